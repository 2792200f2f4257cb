//! The part of the protobuf wire format that the server needs: a zero-copy reader over ropes, and a writer.
//!
//! Encoding: <https://protobuf.dev/programming-guides/encoding/>.

use bytes::Bytes;
use compact_str::CompactString;

use crate::rope::Rope;

/// The maximum nesting depth of groups, as in protobuf's own parsers.
const MAX_DEPTH: usize = 100;

/// Why a message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A field reaches past the end of its message.
    Truncated,
    /// A varint has more than ten bytes.
    Varint,
    /// An invalid field number or wire type, or an end of a group without its start.
    Tag,
    /// A string is not UTF-8.
    Utf8,
    /// Groups nest too deep.
    Depth,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Malformed::Truncated => "a field reaches past the end of its message",
            Malformed::Varint => "a varint is longer than ten bytes",
            Malformed::Tag => "a field tag is not valid",
            Malformed::Utf8 => "a string is not UTF-8",
            Malformed::Depth => "groups nest too deep",
        })
    }
}

/// The wire type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// int32, int64, uint32, uint64, bool, enum.
    Varint,
    /// fixed64, double.
    Fixed64,
    /// string, bytes, messages, packed fields.
    Length,
    /// The beginning of a group.
    Group,
    /// The end of a group.
    EndGroup,
    /// fixed32, float.
    Fixed32,
}

const WIRES: [Wire; 6] =
    [Wire::Varint, Wire::Fixed64, Wire::Length, Wire::Group, Wire::EndGroup, Wire::Fixed32];

/// Reads the fields of one message.
#[derive(Clone)]
pub struct Reader<'a> {
    /// The piece that `rest` is part of; ropes that are read share its memory.
    piece: Option<&'a Bytes>,
    rest: &'a [u8],
    later: &'a [Bytes],
    remaining: usize,
}

impl<'a> Reader<'a> {
    /// Creates a reader of the whole rope.
    pub fn new(rope: &'a Rope) -> Reader<'a> {
        Reader { piece: None, rest: &[], later: rope.pieces(), remaining: rope.len() }
    }

    /// The number of bytes left in this message.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// Reads the next field number and wire type; None at the end of the message. Callers skip a known field whose wire
    /// type differs from its definition, as protobuf's own parsers do.
    pub fn field(&mut self) -> Result<Option<(u32, Wire)>, Malformed> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed::Tag)?;
        let wire = *WIRES.get((tag & 7) as usize).ok_or(Malformed::Tag)?;
        if number == 0 || number >= 1 << 29 {
            return Err(Malformed::Tag);
        }
        Ok(Some((number, wire)))
    }

    /// Reads a varint of at most ten bytes; bits beyond 64 are dropped.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// Reads `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut value = [0; N];
        for byte in &mut value {
            *byte = self.byte()?;
        }
        Ok(value)
    }

    /// Reads a length-delimited field as a nested message.
    pub fn message(&mut self) -> Result<Reader<'a>, Malformed> {
        let len = self.length()?;
        let mut inner = self.clone();
        inner.remaining = len;
        self.advance(len)?;
        Ok(inner)
    }

    /// Reads the bytes of a length-delimited field; they share the message's memory.
    pub fn bytes(&mut self) -> Result<Rope, Malformed> {
        let mut wanted = self.length()?;
        let mut result = Rope::default();
        while wanted > 0 {
            self.refill();
            let taken = wanted.min(self.rest.len());
            let (head, tail) = self.rest.split_at(taken);
            result.push(self.piece.ok_or(Malformed::Truncated)?.slice_ref(head));
            self.rest = tail;
            self.remaining -= taken;
            wanted -= taken;
        }
        Ok(result)
    }

    /// Appends the bytes of a length-delimited field to `target`; returns their number.
    pub fn copy(&mut self, target: &mut Vec<u8>) -> Result<usize, Malformed> {
        let len = self.length()?;
        let mut wanted = len;
        while wanted > 0 {
            self.refill();
            let taken = wanted.min(self.rest.len());
            let (head, tail) = self.rest.split_at(taken);
            target.extend_from_slice(head);
            self.rest = tail;
            self.remaining -= taken;
            wanted -= taken;
        }
        Ok(len)
    }

    /// Reads a string.
    pub fn text(&mut self) -> Result<CompactString, Malformed> {
        let mut ahead = self.clone();
        let len = ahead.length()?;
        ahead.refill();
        if len <= ahead.rest.len() {
            let text = CompactString::from_utf8(&ahead.rest[..len]).map_err(|_| Malformed::Utf8)?;
            ahead.rest = &ahead.rest[len..];
            ahead.remaining -= len;
            *self = ahead;
            return Ok(text);
        }
        let bytes = self.bytes()?.into_bytes();
        CompactString::from_utf8(bytes).map_err(|_| Malformed::Utf8)
    }

    /// Reads varints of a repeated field: one value, or all of a packed field.
    pub fn varints(&mut self, wire: Wire, mut each: impl FnMut(u64)) -> Result<(), Malformed> {
        if wire == Wire::Varint {
            each(self.varint()?);
            return Ok(());
        }
        let mut packed = self.message()?;
        while packed.remaining > 0 {
            each(packed.varint()?);
        }
        Ok(())
    }

    /// Appends `N`-byte values of a repeated field to `target`, in wire format: one value, or all of a packed field.
    pub fn fixeds<const N: usize>(&mut self, wire: Wire, target: &mut Vec<u8>) -> Result<(), Malformed> {
        if wire != Wire::Length {
            target.extend_from_slice(&self.fixed::<N>()?);
            return Ok(());
        }
        if !self.copy(target)?.is_multiple_of(N) {
            return Err(Malformed::Truncated);
        }
        Ok(())
    }

    /// Skips a field that is unknown or has an unexpected wire type.
    pub fn skip(&mut self, number: u32, wire: Wire) -> Result<(), Malformed> {
        self.skip_nested(number, wire, 0)
    }

    fn skip_nested(&mut self, number: u32, wire: Wire, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed::Depth);
        }
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.advance(8),
            Wire::Fixed32 => self.advance(4),
            Wire::Length => {
                let len = self.length()?;
                self.advance(len)
            }
            Wire::Group => loop {
                match self.field()?.ok_or(Malformed::Truncated)? {
                    (end, Wire::EndGroup) if end == number => return Ok(()),
                    (inner, wire) => self.skip_nested(inner, wire, depth + 1)?,
                }
            },
            Wire::EndGroup => Err(Malformed::Tag),
        }
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.remaining => Ok(len),
            _ => Err(Malformed::Truncated),
        }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        if self.remaining == 0 {
            return Err(Malformed::Truncated);
        }
        self.refill();
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        self.remaining -= 1;
        Ok(byte)
    }

    fn advance(&mut self, mut len: usize) -> Result<(), Malformed> {
        if len > self.remaining {
            return Err(Malformed::Truncated);
        }
        self.remaining -= len;
        while len > self.rest.len() {
            len -= self.rest.len();
            self.rest = &[];
            self.refill();
        }
        self.rest = &self.rest[len..];
        Ok(())
    }

    #[inline]
    fn refill(&mut self) {
        if self.rest.is_empty()
            && let Some((piece, later)) = self.later.split_first()
        {
            self.piece = Some(piece);
            self.rest = piece;
            self.later = later;
        }
    }
}

/// Appends a varint.
pub fn put_varint(target: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        target.push(value as u8 | 0x80);
        value >>= 7;
    }
    target.push(value as u8);
}

/// Returns the encoded length of a varint.
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a varint field.
pub fn put_integer(target: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(target, u64::from(field) << 3);
    put_varint(target, value);
}

/// Appends the tag and length of a length-delimited field; the caller appends its bytes.
pub fn put_length(target: &mut Vec<u8>, field: u32, len: usize) {
    put_varint(target, u64::from(field) << 3 | 2);
    put_varint(target, len as u64);
}

/// Appends a string, bytes, or message field.
pub fn put_bytes(target: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_length(target, field, bytes.len());
    target.extend_from_slice(bytes);
}

/// Returns the encoded length of a length-delimited field with its tag, for field numbers below 16.
pub fn field_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8], size: usize) -> Rope {
        let mut rope = Rope::default();
        bytes.chunks(size).for_each(|chunk| rope.push(Bytes::copy_from_slice(chunk)));
        rope
    }

    #[test]
    fn varints_round_trip_in_any_split() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(bytes.len(), varint_len(value));
            for size in 1..=bytes.len() {
                assert_eq!(Reader::new(&split(&bytes, size)).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn fields_are_read_across_pieces() {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, "a name longer than any inline string is".as_bytes());
        put_integer(&mut bytes, 2, 300);
        put_bytes(&mut bytes, 3, &[1, 0xac, 2]);
        for size in 1..=bytes.len() {
            let rope = split(&bytes, size);
            let mut reader = Reader::new(&rope);
            assert_eq!(reader.field(), Ok(Some((1, Wire::Length))));
            assert_eq!(reader.text().unwrap(), "a name longer than any inline string is");
            assert_eq!(reader.field(), Ok(Some((2, Wire::Varint))));
            assert_eq!(reader.varint(), Ok(300));
            let (_, wire) = reader.field().unwrap().unwrap();
            let mut values = Vec::new();
            reader.varints(wire, |value| values.push(value)).unwrap();
            assert_eq!(values, [1, 300]);
            assert_eq!(reader.field(), Ok(None));
        }
    }

    #[test]
    fn malformed_messages_are_told_apart() {
        let read = |bytes: &[u8]| {
            let rope = split(bytes, 3);
            let mut reader = Reader::new(&rope);
            while let Some((number, wire)) = reader.field()? {
                reader.skip(number, wire)?;
            }
            Ok(())
        };
        assert_eq!(read(&[0x0a, 5, 1]), Err(Malformed::Truncated));
        assert_eq!(read(&[0x08]), Err(Malformed::Truncated));
        assert_eq!(read(&[0xff; 11]), Err(Malformed::Varint));
        assert_eq!(read(&[0x00, 0]), Err(Malformed::Tag));
        assert_eq!(read(&[0x0f, 0]), Err(Malformed::Tag));
        assert_eq!(read(&[0x0c]), Err(Malformed::Tag));
        assert_eq!(read(&[0x0b; 200]), Err(Malformed::Depth));
        assert_eq!(read(&[0x0b, 0x08, 1, 0x0c]), Ok(()));
        assert_eq!(
            read(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(Malformed::Truncated)
        );
    }
}
