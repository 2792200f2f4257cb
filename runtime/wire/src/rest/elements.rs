//! Converts the elements of a tensor from flat or nested lists to raw contents.

use std::fmt::{Formatter, Result as Written};

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::bytes_tensor;
use crate::datatype::Datatype;

/// Integers beyond this are rounded differently, depending on the elements beside them.
const EXACT: u64 = 1 << 53;

/// The maximum nesting depth of lists.
const MAX_DEPTH: usize = 32;

/// Builds raw contents from elements; elements that do not fit the datatype and ragged lists are errors.
pub struct TensorBuilder {
    datatype: Datatype,
    data: Vec<u8>,
    /// For each depth, the length of the lists there.
    lengths: SmallVec<[Option<usize>; 8]>,
    /// The depth of the elements.
    depth: Option<usize>,
}

impl TensorBuilder {
    /// Creates a builder with capacity for `count` elements; None if the datatype has no JSON representation.
    pub fn new(datatype: Datatype, count: usize) -> Option<TensorBuilder> {
        let data = Vec::with_capacity(count * datatype.size().unwrap_or(8));
        let elements = TensorBuilder { datatype, data, lengths: SmallVec::new(), depth: None };
        (datatype != Datatype::Bf16).then_some(elements)
    }

    /// Returns the lengths of the lists, from the outermost.
    pub fn shape(&self) -> SmallVec<[i64; 6]> {
        self.lengths.iter().map(|length| length.unwrap_or(0) as i64).collect()
    }

    /// Returns the raw contents.
    pub fn into_raw(self) -> Vec<u8> {
        self.data
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.data.extend_from_slice(&bytes);
    }

    /// Checks the depth of an element: it must be the same for all elements, and no list may have it.
    fn check_element_depth(&mut self, depth: usize) -> Option<()> {
        let is_list = self.lengths.get(depth).is_some_and(Option::is_some);
        (*self.depth.get_or_insert(depth) == depth && !is_list).then_some(())
    }

    /// Ends a list at this depth: all lists there must have the same length, and no element may have this depth.
    pub fn end_list(&mut self, depth: usize, length: usize) -> Option<()> {
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, None);
        }
        let fits = *self.lengths[depth].get_or_insert(length) == length;
        (fits && self.depth.is_none_or(|elements| elements > depth)).then_some(())
    }

    fn integer(&mut self, value: i128) -> Option<()> {
        macro_rules! put {
            ($type:ty) => {
                self.put(<$type>::try_from(value).ok()?.to_le_bytes())
            };
        }
        match self.datatype {
            Datatype::Uint8 => put!(u8),
            Datatype::Uint16 => put!(u16),
            Datatype::Uint32 => put!(u32),
            Datatype::Uint64 => put!(u64),
            Datatype::Int8 => put!(i8),
            Datatype::Int16 => put!(i16),
            Datatype::Int32 => put!(i32),
            Datatype::Int64 => put!(i64),
            _ if value.unsigned_abs() <= u128::from(EXACT) => return self.float(value as f64),
            _ => return None,
        }
        Some(())
    }

    fn float(&mut self, value: f64) -> Option<()> {
        match self.datatype {
            Datatype::Fp32 => self.put((value as f32).to_le_bytes()),
            Datatype::Fp64 => self.put(value.to_le_bytes()),
            Datatype::Fp16 => self.put(half(value).to_le_bytes()),
            _ => return None,
        }
        Some(())
    }

    fn boolean(&mut self, value: bool) -> Option<()> {
        (self.datatype == Datatype::Bool).then(|| self.data.push(value.into()))
    }

    fn text(&mut self, value: &str) -> Option<()> {
        (self.datatype == Datatype::Bytes).then(|| bytes_tensor::put(&mut self.data, value.as_bytes()))
    }
}

/// A value at a depth: a list of values, or an element.
pub struct Value<'a>(pub &'a mut TensorBuilder, pub usize);

impl Value<'_> {
    fn element<E: Error>(self, put: impl FnOnce(&mut TensorBuilder) -> Option<()>) -> Result<(), E> {
        let Value(elements, depth) = self;
        elements
            .check_element_depth(depth)
            .and_then(|()| put(elements))
            .ok_or_else(|| E::custom("another kind of element"))
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut Formatter<'_>) -> Written {
        write!(formatter, "elements of {}", self.0.datatype.name())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Value(elements, depth) = self;
        let mut length = 0;
        while depth < MAX_DEPTH && list.next_element_seed(Value(elements, depth + 1))?.is_some() {
            length += 1;
        }
        elements.end_list(depth, length).ok_or_else(|| A::Error::custom("lists of unequal lengths"))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.element(|elements| elements.integer(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.element(|elements| elements.integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.element(|elements| elements.float(value))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.element(|elements| elements.boolean(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.element(|elements| elements.text(value))
    }
}

/// Rounds a number to the nearest half-precision float, ties to even.
fn half(value: f64) -> u16 {
    /// The smallest number that is rounded to infinity, and the smallest normal one.
    const OVERFLOW: f64 = 65520.0;
    const NORMAL: f64 = 1.0 / 16384.0;
    let sign = u16::from(value.is_sign_negative()) << 15;
    let size = value.abs();
    let bits = if size >= OVERFLOW {
        0x7c00
    } else {
        // A step is the distance of two adjacent floats; rounding up to the next power of two carries to the exponent.
        let exponent = ((size.max(NORMAL).to_bits() >> 52) as i32) - 1023;
        let steps = (size * 2_f64.powi(10 - exponent)).round_ties_even() as u16;
        ((exponent + 14) as u16) * 1024 + steps
    };
    sign | bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oip::classification;

    fn read(datatype: Datatype, json: &str) -> Option<Vec<u8>> {
        let mut elements = TensorBuilder::new(datatype, 0)?;
        let mut deserializer = serde_json::Deserializer::from_str(json);
        Value(&mut elements, 0).deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(elements.into_raw())
    }

    #[test]
    fn nested_lists_are_flattened() {
        for json in ["[1,2,3,4]", "[[1,2],[3,4]]", "[[[1],[2]],[[3],[4]]]"] {
            assert_eq!(read(Datatype::Uint8, json), Some(vec![1, 2, 3, 4]), "{json}");
        }
        for json in ["[]", "[[],[]]"] {
            assert_eq!(read(Datatype::Uint8, json), Some(vec![]), "{json}");
        }
        assert_eq!(read(Datatype::Uint8, "7"), Some(vec![7]));
    }

    #[test]
    fn what_is_no_tensor_is_none() {
        let deep = "[".repeat(40) + &"]".repeat(40);
        for json in ["[1,[2]]", "[[1],2]", "[[1],[2,3]]", "[[],1]", "[1,[]]", "[[1],[]]", "{}", "null", &deep]
        {
            assert_eq!(read(Datatype::Uint8, json), None, "{json}");
        }
    }

    #[test]
    fn numbers_keep_their_digits_or_are_refused() {
        let wide = u64::MAX.to_string();
        assert_eq!(read(Datatype::Uint64, &wide), Some(vec![255; 8]));
        assert_eq!(read(Datatype::Int64, &i64::MIN.to_string()), Some(i64::MIN.to_le_bytes().to_vec()));
        for (datatype, json) in [
            (Datatype::Int64, &wide[..]),
            (Datatype::Uint64, "-1"),
            (Datatype::Uint8, "256"),
            (Datatype::Int8, "1.0"),
            (Datatype::Int8, "true"),
            (Datatype::Fp32, "9007199254740993"),
            (Datatype::Fp32, "true"),
            (Datatype::Fp32, "\"1\""),
            (Datatype::Fp32, "NaN"),
            (Datatype::Bool, "1"),
            (Datatype::Bytes, "1"),
            (Datatype::Bf16, "1"),
        ] {
            assert_eq!(read(datatype, json), None, "{json}");
        }
        assert_eq!(
            read(Datatype::Fp32, "[1e39,-0.0]"),
            Some([f32::INFINITY, -0.0].map(f32::to_le_bytes).concat())
        );
        assert_eq!(read(Datatype::Bool, "[true,false]"), Some(vec![1, 0]));
        assert_eq!(read(Datatype::Bytes, "[\"\\u00e4\",\"\"]"), Some(b"\x02\0\0\0\xc3\xa4\0\0\0\0".to_vec()));
    }

    #[test]
    fn every_half_comes_back_and_ties_go_to_the_even_one() {
        for bits in 0..=u16::MAX {
            let value = classification::half(bits);
            if value.is_finite() {
                assert_eq!(half(value), bits);
            }
        }
        for bits in 0..0x7bff_u16 {
            let middle = (classification::half(bits) + classification::half(bits + 1)) / 2.0;
            assert_eq!(half(middle), bits + (bits & 1), "{bits}");
            assert_eq!(half(middle.next_up()), bits + 1);
        }
        assert_eq!(half(65519.99), 0x7bff);
        assert_eq!(half(65520.0), 0x7c00);
        assert_eq!(half(-1e300), 0xfc00);
    }
}
