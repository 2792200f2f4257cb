//! The element types, in one table: name in the protocol, element size, NumPy type string, `tensorflow.DataType`.

/// An element type of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

use Datatype::*;

/// The properties of one datatype.
struct Row {
    datatype: Datatype,
    name: &'static str,
    /// Bytes per element; 0 if they vary.
    size: usize,
    /// NumPy's type string.
    numpy: &'static str,
    /// Number in tensorflow.DataType.
    tensorflow: u64,
}

const fn row(
    datatype: Datatype,
    name: &'static str,
    size: usize,
    numpy: &'static str,
    tensorflow: u64,
) -> Row {
    Row { datatype, name, size, numpy, tensorflow }
}

/// Indexed by the enum, and in its order.
const TABLE: [Row; 14] = [
    row(Bool, "BOOL", 1, "|b1", 10),
    row(Uint8, "UINT8", 1, "|u1", 4),
    row(Uint16, "UINT16", 2, "<u2", 17),
    row(Uint32, "UINT32", 4, "<u4", 22),
    row(Uint64, "UINT64", 8, "<u8", 23),
    row(Int8, "INT8", 1, "|i1", 6),
    row(Int16, "INT16", 2, "<i2", 5),
    row(Int32, "INT32", 4, "<i4", 3),
    row(Int64, "INT64", 8, "<i8", 9),
    row(Fp16, "FP16", 2, "<f2", 19),
    // NumPy has no bfloat16; its bits are passed as uint16.
    row(Bf16, "BF16", 2, "<u2", 14),
    row(Fp32, "FP32", 4, "<f4", 1),
    row(Fp64, "FP64", 8, "<f8", 2),
    row(Bytes, "BYTES", 0, "|O", 7),
];

impl Datatype {
    /// Returns the datatype with this name in the protocol.
    pub fn from_name(name: &str) -> Option<Datatype> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.datatype)
    }

    /// Returns the datatype with this number in `tensorflow.DataType`.
    pub fn from_tensorflow(number: u64) -> Option<Datatype> {
        TABLE.iter().find(|row| row.tensorflow == number).map(|row| row.datatype)
    }

    /// The name in the protocol.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].name
    }

    /// Bytes per element; None for BYTES, whose elements vary in length.
    pub fn size(self) -> Option<usize> {
        match TABLE[self as usize].size {
            0 => None,
            size => Some(size),
        }
    }

    /// NumPy's type string.
    pub fn numpy(self) -> &'static str {
        TABLE[self as usize].numpy
    }

    /// The number in `tensorflow.DataType`.
    pub fn tensorflow(self) -> u64 {
        TABLE[self as usize].tensorflow
    }

    /// Every datatype.
    pub fn all() -> impl Iterator<Item = Datatype> {
        TABLE.iter().map(|row| row.datatype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.datatype as usize, index);
            assert_eq!(Datatype::from_name(row.name), Some(row.datatype));
            assert_eq!(Datatype::from_tensorflow(row.tensorflow), Some(row.datatype));
        }
    }
}
