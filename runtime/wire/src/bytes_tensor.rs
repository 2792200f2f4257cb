//! BYTES tensors: each element is preceded by its length in four little-endian bytes.

use crate::datatype::Datatype;
use crate::rope::Rope;

/// Iterates over the elements of contiguous raw BYTES contents; ends after the first error.
pub fn elements(raw: &[u8]) -> impl Iterator<Item = Result<&[u8], String>> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let split = rest
            .split_first_chunk::<4>()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((element, later)) = split else {
            rest = &[];
            return Some(Err(format!(
                "expected BYTES as 4-byte little-endian lengths, each with its bytes; \
                 got {} bytes, which end within an element",
                raw.len()
            )));
        };
        rest = later;
        Some(Ok(element))
    })
}

/// Returns the number of elements in raw BYTES contents.
pub fn count(data: &Rope) -> Result<usize, String> {
    let raw = data.clone().into_bytes();
    elements(&raw).try_fold(0, |count, element| element.map(|_| count + 1))
}

/// Appends one element.
pub fn put(target: &mut Vec<u8>, element: &[u8]) {
    // A message is smaller than 4 GiB, and so is each of its elements.
    target.extend_from_slice(&(element.len() as u32).to_le_bytes());
    target.extend_from_slice(element);
}

/// Pads the elements to `count`: repeats the last one, or fills with zeros when there is none.
///
/// This is how `tensorflow.TensorProto` abbreviates tensors. An error if more than `MAX_FILL` bytes are missing.
pub fn repeat(data: Rope, datatype: Datatype, count: u128) -> Result<Rope, String> {
    let bytes = data.into_bytes();
    let (given, last) = match datatype.size() {
        Some(size) => (bytes.len() / size, bytes[bytes.len().saturating_sub(size)..].to_vec()),
        None => {
            let given: Vec<&[u8]> = elements(&bytes).collect::<Result<_, _>>()?;
            let mut last = Vec::new();
            put(&mut last, given.last().copied().unwrap_or_default());
            (given.len(), last)
        }
    };
    let last = if last.is_empty() { vec![0; datatype.size().unwrap_or(4)] } else { last };
    let missing = count.saturating_sub(given as u128);
    if missing == 0 {
        return Ok(bytes.into());
    }
    if missing.saturating_mul(last.len() as u128) > MAX_FILL {
        return Err(format!(
            "expected {count} elements, got {given}; so many cannot be filled with the last one"
        ));
    }
    let mut filled = bytes.to_vec();
    filled.reserve_exact(missing as usize * last.len());
    (0..missing).for_each(|_| filled.extend_from_slice(&last));
    Ok(filled.into())
}

/// The maximum number of bytes that padding may add to a tensor.
const MAX_FILL: u128 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(elements: &[&[u8]]) -> Vec<u8> {
        let mut raw = Vec::new();
        elements.iter().for_each(|element| put(&mut raw, element));
        raw
    }

    #[test]
    fn elements_round_trip() {
        let raw = raw(&[b"a", b"", b"bcd"]);
        assert_eq!(elements(&raw).collect::<Result<Vec<_>, _>>().unwrap(), [&b"a"[..], b"", b"bcd"]);
        assert_eq!(count(&raw.into()), Ok(3));
    }

    #[test]
    fn damaged_contents_are_told() {
        let whole = raw(&[b"abc"]);
        for len in 1..whole.len() {
            assert!(count(&whole[..len].to_vec().into()).unwrap_err().contains(&format!("got {len} bytes")));
        }
    }

    #[test]
    fn the_last_element_repeats() {
        let fill = |data: Vec<u8>, datatype, count| {
            repeat(data.into(), datatype, count).map(|rope| rope.into_bytes().to_vec())
        };
        assert_eq!(fill(vec![1, 2], Datatype::Uint8, 4).unwrap(), [1, 2, 2, 2]);
        assert_eq!(fill(vec![], Datatype::Int16, 2).unwrap(), [0, 0, 0, 0]);
        assert_eq!(fill(raw(&[b"x"]), Datatype::Bytes, 2).unwrap(), raw(&[b"x", b"x"]));
        assert_eq!(fill(vec![], Datatype::Bytes, 2).unwrap(), raw(&[b"", b""]));
        assert!(fill(vec![1], Datatype::Uint8, u128::MAX).is_err());
    }
}
