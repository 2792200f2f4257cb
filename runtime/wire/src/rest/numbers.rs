//! Elements of tensors in JSON.
//!
//! Nearly all clients read JSON numbers as doubles. So each element is written as the shortest text that reads back as
//! exactly its value as a double: 0.10000000149011612 for the float32 whose own shortest text would be 0.1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::datatype::Datatype;
use crate::oip::classification::half;
use crate::rest::text;

/// Writes the elements of raw contents as JSON, in order.
pub struct ElementWriter<'a> {
    datatype: Datatype,
    rest: &'a [u8],
    /// Whether byte strings are binary, which are written in base64, as in TensorFlow Serving.
    base64: bool,
}

impl<'a> ElementWriter<'a> {
    /// Creates a writer of all elements.
    pub fn new(datatype: Datatype, data: &'a [u8], base64: bool) -> ElementWriter<'a> {
        ElementWriter { datatype, rest: data, base64 }
    }

    /// Appends the next elements, as nested lists of this shape.
    pub fn nest(&mut self, target: &mut Vec<u8>, shape: &[usize]) {
        match shape.split_first() {
            None => self.put(target),
            Some((&length, inner)) => list(target, 0..length, |target, _| self.nest(target, inner)),
        }
    }

    fn put(&mut self, target: &mut Vec<u8>) {
        match self.datatype {
            Datatype::Bool => {
                target.extend_from_slice(if u8::from_le_bytes(self.take()) == 0 {
                    b"false"
                } else {
                    b"true"
                });
            }
            Datatype::Uint8 => integer(target, u8::from_le_bytes(self.take())),
            Datatype::Uint16 => integer(target, u16::from_le_bytes(self.take())),
            Datatype::Uint32 => integer(target, u32::from_le_bytes(self.take())),
            Datatype::Uint64 => integer(target, u64::from_le_bytes(self.take())),
            Datatype::Int8 => integer(target, i8::from_le_bytes(self.take())),
            Datatype::Int16 => integer(target, i16::from_le_bytes(self.take())),
            Datatype::Int32 => integer(target, i32::from_le_bytes(self.take())),
            Datatype::Int64 => integer(target, i64::from_le_bytes(self.take())),
            Datatype::Fp16 => float(target, half(u16::from_le_bytes(self.take()))),
            Datatype::Bf16 => {
                float(target, f32::from_bits(u32::from(u16::from_le_bytes(self.take())) << 16).into())
            }
            Datatype::Fp32 => float(target, f32::from_le_bytes(self.take()).into()),
            Datatype::Fp64 => float(target, f64::from_le_bytes(self.take())),
            Datatype::Bytes => {
                let length = u32::from_le_bytes(self.take()) as usize;
                let (element, rest) = self.rest.split_at(length);
                self.rest = rest;
                put_bytes(target, element, self.base64);
            }
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (element, rest) = self.rest.split_first_chunk().expect("a shape has its elements");
        self.rest = rest;
        *element
    }
}

/// Appends a list.
pub fn list<T>(
    target: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    target.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            target.push(b',');
        }
        put(target, item);
    }
    target.push(b']');
}

/// Appends an integer.
pub fn integer(target: &mut Vec<u8>, value: impl itoa::Integer) {
    target.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a number, or NaN or Infinity: these are not valid JSON, but Python's and JavaScript's names.
fn float(target: &mut Vec<u8>, value: f64) {
    let mut buffer = zmij::Buffer::new();
    target.extend_from_slice(match value {
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ if value.is_nan() => b"NaN",
        _ => buffer.format_finite(value).as_bytes(),
    });
}

fn put_bytes(target: &mut Vec<u8>, element: &[u8], base64: bool) {
    if base64 {
        target.extend_from_slice(b"{\"b64\":\"");
        target.extend_from_slice(STANDARD.encode(element).as_bytes());
        target.extend_from_slice(b"\"}");
    } else {
        text::put(target, &String::from_utf8_lossy(element));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(datatype: Datatype, data: &[u8], shape: &[usize]) -> String {
        let mut target = Vec::new();
        ElementWriter::new(datatype, data, false).nest(&mut target, shape);
        String::from_utf8(target).unwrap()
    }

    #[test]
    fn numbers_are_short_and_exact() {
        let floats =
            [0.1_f32, -0.0, 1.0, f32::MIN_POSITIVE, f32::MAX, f32::NAN, f32::INFINITY, -f32::INFINITY];
        let text = written(Datatype::Fp32, &floats.map(f32::to_le_bytes).concat(), &[8]);
        let numbers = text[1..text.len() - 1].split(',');
        let parsed: Vec<f64> = numbers.map(|number| number.parse().unwrap()).collect();
        assert!(text.starts_with("[0.10000000149011612,-0.0,1.0,"), "{text}");
        assert!(text.ends_with(",NaN,Infinity,-Infinity]"), "{text}");
        for (found, given) in parsed.iter().zip(floats) {
            assert!(found.to_bits() == f64::from(given).to_bits() || given.is_nan(), "{found} {given}");
        }
        assert_eq!(written(Datatype::Fp16, &[0, 0x3c, 0x66, 0x2e], &[2]), "[1.0,0.0999755859375]");
        assert_eq!(written(Datatype::Bf16, &[0x80, 0x3f], &[]), "1.0");
    }

    #[test]
    fn all_else_is_what_json_has_for_it() {
        assert_eq!(written(Datatype::Int64, &i64::MIN.to_le_bytes(), &[1]), "[-9223372036854775808]");
        assert_eq!(written(Datatype::Uint64, &u64::MAX.to_le_bytes(), &[1]), "[18446744073709551615]");
        assert_eq!(written(Datatype::Bool, &[1, 0], &[2, 1]), "[[true],[false]]");
        let text = written(Datatype::Bytes, b"\x03\0\0\0\"\n\xff\0\0\0\0", &[2]);
        assert_eq!(text, "[\"\\\"\\n\u{fffd}\",\"\"]");
        assert_eq!(written(Datatype::Fp64, &[], &[2, 0]), "[[],[]]");
        let mut target = Vec::new();
        ElementWriter::new(Datatype::Bytes, b"\x01\0\0\0\xff", true).nest(&mut target, &[1]);
        assert_eq!(target, b"[{\"b64\":\"/w==\"}]");
    }
}
