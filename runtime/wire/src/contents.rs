//! `inference.InferTensorContents`: converts tensors in typed fields to raw contents.

use crate::bytes_tensor;
use crate::datatype::Datatype;
use crate::protobuf::Wire::{Fixed32, Fixed64, Length, Varint};
use crate::protobuf::{Malformed, Reader};
use crate::rope::Rope;

/// The typed fields, named as in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Bool,
    Int,
    Int64,
    Uint,
    Uint64,
    Fp32,
    Fp64,
    Bytes,
}

/// The names of the fields, in order of their field numbers, which start at 1.
const FIELDS: [(Field, &str); 8] = [
    (Field::Bool, "bool_contents"),
    (Field::Int, "int_contents"),
    (Field::Int64, "int64_contents"),
    (Field::Uint, "uint_contents"),
    (Field::Uint64, "uint64_contents"),
    (Field::Fp32, "fp32_contents"),
    (Field::Fp64, "fp64_contents"),
    (Field::Bytes, "bytes_contents"),
];

/// Returns the field that holds a datatype; None if it can only be sent as raw contents.
fn field_of(datatype: Datatype) -> Option<Field> {
    Some(match datatype {
        Datatype::Bool => Field::Bool,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => Field::Int,
        Datatype::Int64 => Field::Int64,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => Field::Uint,
        Datatype::Uint64 => Field::Uint64,
        Datatype::Fp32 => Field::Fp32,
        Datatype::Fp64 => Field::Fp64,
        Datatype::Bytes => Field::Bytes,
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

/// The elements of one tensor's typed fields, as little-endian bytes in the width of the field.
#[derive(Debug, Default)]
pub struct Contents {
    /// One bit for each field that is not empty, in the order of `FIELDS` from the lowest bit.
    given: u8,
    count: usize,
    data: Vec<u8>,
}

impl Contents {
    /// Whether all fields are empty.
    pub fn is_empty(&self) -> bool {
        self.given == 0
    }

    /// The names of the fields that are not empty.
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = self.given;
        FIELDS
            .iter()
            .enumerate()
            .filter(move |(index, _)| given >> index & 1 == 1)
            .map(|(_, (_, name))| *name)
    }

    /// Reads a message and appends its elements, as protobuf merges messages.
    pub fn read(&mut self, mut reader: Reader<'_>) -> Result<(), Malformed> {
        while let Some((number, wire)) = reader.field()? {
            let index = (number as usize).wrapping_sub(1);
            let Some((field, _)) = FIELDS.get(index) else {
                reader.skip(number, wire)?;
                continue;
            };
            let Contents { count, data, .. } = self;
            let (count_before, bytes_before) = (*count, data.len());
            match (field, wire) {
                (Field::Bool, Varint | Length) => {
                    reader.varints(wire, |value| data.push(u8::from(value != 0)))?;
                }
                (Field::Int | Field::Uint, Varint | Length) => {
                    reader.varints(wire, |value| data.extend_from_slice(&(value as u32).to_le_bytes()))?;
                }
                (Field::Int64 | Field::Uint64, Varint | Length) => {
                    reader.varints(wire, |value| data.extend_from_slice(&value.to_le_bytes()))?;
                }
                (Field::Fp32, Fixed32 | Length) => reader.fixeds::<4>(wire, data)?,
                (Field::Fp64, Fixed64 | Length) => reader.fixeds::<8>(wire, data)?,
                (Field::Bytes, Length) => {
                    bytes_tensor::put(data, &reader.bytes()?.into_bytes());
                    *count += 1;
                }
                _ => reader.skip(number, wire)?,
            }
            if let Some(width) = width(*field) {
                *count += (data.len() - bytes_before) / width;
            }
            self.given |= u8::from(*count > count_before) << index;
        }
        Ok(())
    }

    /// Converts to raw contents of a datatype; an error unless there are `expected` elements in the datatype's field.
    pub fn into_raw(self, datatype: Datatype, expected: u128, shape: &str) -> Result<Rope, String> {
        let name = datatype.name();
        let field = field_of(datatype)
            .ok_or_else(|| format!("{name} has no typed contents; use raw_input_contents"))?;
        let index = FIELDS.iter().position(|(each, _)| *each == field).expect("every field is in the table");
        if self.given & !(1 << index) != 0 {
            let given: Vec<&str> = self.given().collect();
            return Err(format!("expected {name} in {}, got {}", FIELDS[index].1, given.join(", ")));
        }
        if self.count as u128 != expected {
            return Err(format!("expected {expected} elements for {name} {shape}, got {}", self.count));
        }
        fit(self.data, datatype, field == Field::Int)
    }
}

/// Returns the bytes per element of a field in `Contents`; None if they vary.
fn width(field: Field) -> Option<usize> {
    match field {
        Field::Bool => Some(1),
        Field::Int | Field::Uint | Field::Fp32 => Some(4),
        Field::Int64 | Field::Uint64 | Field::Fp64 => Some(8),
        Field::Bytes => None,
    }
}

/// Narrows elements whose field is wider (four bytes) than their datatype; returns all others unchanged.
pub fn fit(data: Vec<u8>, datatype: Datatype, signed: bool) -> Result<Rope, String> {
    match datatype {
        Datatype::Int8 => {
            narrow(&data, "int8", datatype, signed, |wide| i8::try_from(wide).map(i8::to_le_bytes))
        }
        Datatype::Int16 => {
            narrow(&data, "int16", datatype, signed, |wide| i16::try_from(wide).map(i16::to_le_bytes))
        }
        Datatype::Uint8 => {
            narrow(&data, "uint8", datatype, signed, |wide| u8::try_from(wide).map(u8::to_le_bytes))
        }
        // Small floats are sent as their bits.
        Datatype::Uint16 | Datatype::Fp16 | Datatype::Bf16 => {
            narrow(&data, "uint16", datatype, signed, |wide| u16::try_from(wide).map(u16::to_le_bytes))
        }
        _ => Ok(data.into()),
    }
}

fn narrow<const N: usize, E>(
    data: &[u8],
    numpy: &str,
    datatype: Datatype,
    signed: bool,
    each: impl Fn(i64) -> Result<[u8; N], E>,
) -> Result<Rope, String> {
    let mut result = Vec::with_capacity(data.len() / 4 * N);
    for wide in data.as_chunks::<4>().0 {
        let value =
            if signed { i64::from(i32::from_le_bytes(*wide)) } else { i64::from(u32::from_le_bytes(*wide)) };
        let bytes = each(value).map_err(|_| {
            // The second half is NumPy's message, which the portable transport passes on.
            format!(
                "a value does not fit {}: Python integer {value} out of bounds for {numpy}",
                datatype.name()
            )
        })?;
        result.extend_from_slice(&bytes);
    }
    Ok(result.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protobuf::{put_bytes, put_integer};

    fn read(message: &[u8]) -> Contents {
        let mut contents = Contents::default();
        contents.read(Reader::new(&message.to_vec().into())).unwrap();
        contents
    }

    fn raw(message: &[u8], datatype: Datatype, expected: u128) -> Result<Vec<u8>, String> {
        read(message).into_raw(datatype, expected, "[2]").map(|rope| rope.into_bytes().to_vec())
    }

    #[test]
    fn integers_are_narrowed_and_checked() {
        let mut message = Vec::new();
        put_integer(&mut message, 2, -3_i64 as u64);
        put_bytes(&mut message, 2, &[7]);
        assert_eq!(raw(&message, Datatype::Int8, 2).unwrap(), [253, 7]);
        put_integer(&mut message, 2, 300);
        assert!(raw(&message, Datatype::Int8, 3).unwrap_err().contains("300"));
        assert_eq!(raw(&message, Datatype::Int8, 2).unwrap_err(), "expected 2 elements for INT8 [2], got 3");
    }

    #[test]
    fn a_wrong_field_is_named() {
        let mut message = Vec::new();
        put_bytes(&mut message, 6, &1.5_f32.to_le_bytes());
        assert_eq!(raw(&message, Datatype::Fp32, 1).unwrap(), 1.5_f32.to_le_bytes());
        let error = raw(&message, Datatype::Int64, 1).unwrap_err();
        assert_eq!(error, "expected INT64 in int64_contents, got fp32_contents");
        put_integer(&mut message, 3, 1);
        let error = raw(&message, Datatype::Fp32, 1).unwrap_err();
        assert_eq!(error, "expected FP32 in fp32_contents, got int64_contents, fp32_contents");
        assert!(raw(&message, Datatype::Fp16, 1).unwrap_err().contains("raw_input_contents"));
    }

    #[test]
    fn byte_strings_are_counted() {
        let mut message = Vec::new();
        put_bytes(&mut message, 8, b"a");
        put_bytes(&mut message, 8, b"");
        assert_eq!(raw(&message, Datatype::Bytes, 2).unwrap(), b"\x01\0\0\0a\0\0\0\0");
    }
}
