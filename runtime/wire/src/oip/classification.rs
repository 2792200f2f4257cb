//! Triton's classification extension: the top classes of an output, each as `score:index` or `score:index:label`.

use std::cmp::Ordering;

use crate::datatype::Datatype;
use crate::output::View;
use crate::signature::{Shape, TensorSpec};

/// Returns the top `count` classes of each row (of the whole output, without a batch dimension), best first, and
/// their shape.
pub fn classify(view: &View<'_>, spec: &TensorSpec, batched: bool, count: usize) -> (Shape, Vec<String>) {
    let scores: Vec<Score> = scores(spec.datatype, view.data);
    let rows = if batched { view.shape[0] } else { 1 };
    let width = if batched { view.shape[1..].iter().product() } else { scores.len() };
    let count = count.min(width);
    let mut classes = Vec::with_capacity(rows * count);
    for row in scores.chunks(width.max(1)) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        // A stable sort: of equal scores, the class with the lower index comes first.
        order.sort_by(|&left, &right| compare(row[right].value, row[left].value));
        classes.extend(order[..count].iter().map(|&index| match spec.labels.get(index) {
            Some(label) => format!("{}:{index}:{label}", row[index].text),
            None => format!("{}:{index}", row[index].text),
        }));
    }
    let shape = if batched { Shape::from_slice(&[rows, count]) } else { Shape::from_slice(&[count]) };
    (shape, classes)
}

/// Compares scores; NaN is greater than all numbers, and zeros are equal.
fn compare(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

struct Score {
    value: f64,
    text: String,
}

fn scores(datatype: Datatype, data: &[u8]) -> Vec<Score> {
    fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> (f64, String)) -> Vec<Score> {
        let score = |bytes: &[u8; N]| {
            let (value, text) = read(*bytes);
            Score { value, text }
        };
        data.as_chunks::<N>().0.iter().map(score).collect()
    }
    // Six decimal places, as C++'s std::to_string formats them in Triton.
    let float = |value: f64| {
        let text = if value.is_nan() { "nan".to_owned() } else { format!("{value:.6}") };
        (value, text)
    };
    macro_rules! integer {
        ($type:ty) => {
            each(data, |bytes| {
                let value = <$type>::from_le_bytes(bytes);
                (value as f64, value.to_string())
            })
        };
    }
    match datatype {
        Datatype::Fp32 => each(data, |bytes| float(f32::from_le_bytes(bytes).into())),
        Datatype::Fp64 => each(data, |bytes| float(f64::from_le_bytes(bytes))),
        Datatype::Bf16 => {
            each(data, |bytes| float(f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16).into()))
        }
        Datatype::Fp16 => each(data, |bytes| float(half(u16::from_le_bytes(bytes)))),
        Datatype::Bool | Datatype::Uint8 => integer!(u8),
        Datatype::Uint16 => integer!(u16),
        Datatype::Uint32 => integer!(u32),
        Datatype::Uint64 => integer!(u64),
        Datatype::Int8 => integer!(i8),
        Datatype::Int16 => integer!(i16),
        Datatype::Int32 => integer!(i32),
        Datatype::Int64 => integer!(i64),
        Datatype::Bytes => Vec::new(),
    }
}

/// Converts a half-precision float.
pub fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_classes_come_first() {
        let spec = TensorSpec {
            name: "scores".into(),
            datatype: Datatype::Fp32,
            shape: vec![],
            labels: vec!["cat".into(), "dog".into()],
            optional: false,
        };
        let data: Vec<u8> =
            [0.25_f32, 0.5, 0.125, 1.0, 0.0, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = View { position: 0, shape: Shape::from_slice(&[2, 3]), data: &data, owner: None };
        let (shape, classes) = classify(&view, &spec, true, 2);
        assert_eq!(shape.as_slice(), [2, 2]);
        assert_eq!(classes, ["0.500000:1:dog", "0.250000:0:cat", "2.000000:2", "1.000000:0:cat"]);
    }

    #[test]
    fn a_nan_is_above_all_and_zeros_are_equal() {
        let spec = TensorSpec {
            name: "scores".into(),
            datatype: Datatype::Fp32,
            shape: vec![],
            labels: vec![],
            optional: false,
        };
        let scores = [-0.0, f32::INFINITY, 0.0, -f32::NAN, f32::NAN];
        let data: Vec<u8> = scores.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = View { position: 0, shape: Shape::from_slice(&[1, 5]), data: &data, owner: None };
        let (_, classes) = classify(&view, &spec, true, 5);
        assert_eq!(classes, ["nan:3", "nan:4", "inf:1", "-0.000000:0", "0.000000:2"]);
    }

    #[test]
    fn halves_have_their_value() {
        for (bits, value) in
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (1, 2_f64.powi(-24)), (0x7c00, f64::INFINITY)]
        {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan());
    }
}
