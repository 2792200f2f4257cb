"""The element types of the Open Inference Protocol, in one table.

Inside the runtime a tensor is a NumPy array of the table's dtype: BYTES is an object array of `bytes`, and
BF16, which NumPy does not know, is the array of its bits as uint16.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BF16", "BYTES", "DATATYPES", "Array", "Datatype", "bfloat16_to_float32", "float32_to_bfloat16"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Datatype:
    """An element type, with its names in the protocol, NumPy and ONNX Runtime."""

    name: str
    dtype: np.dtype[Any]
    # ONNX Runtime's name of the tensor type, and ONNX's number of the datatype (TensorProto.DataType)
    onnx: str
    onnx_number: int
    # field of InferTensorContents; None: raw contents only
    contents: str | None


def _table(*rows: tuple[str, str, str, int, str | None]) -> Mapping[str, Datatype]:
    return {
        name: Datatype(name, np.dtype(dtype), f"tensor({onnx})", number, contents)
        for name, dtype, onnx, number, contents in rows
    }


DATATYPES = _table(
    ("BOOL", "?", "bool", 9, "bool_contents"),
    ("UINT8", "u1", "uint8", 2, "uint_contents"),
    ("UINT16", "<u2", "uint16", 4, "uint_contents"),
    ("UINT32", "<u4", "uint32", 12, "uint_contents"),
    ("UINT64", "<u8", "uint64", 13, "uint64_contents"),
    ("INT8", "i1", "int8", 3, "int_contents"),
    ("INT16", "<i2", "int16", 5, "int_contents"),
    ("INT32", "<i4", "int32", 6, "int_contents"),
    ("INT64", "<i8", "int64", 7, "int64_contents"),
    ("FP16", "<f2", "float16", 10, None),
    ("BF16", "<u2", "bfloat16", 16, None),
    ("FP32", "<f4", "float", 1, "fp32_contents"),
    ("FP64", "<f8", "double", 11, "fp64_contents"),
    ("BYTES", "O", "string", 8, "bytes_contents"),
)

BF16 = DATATYPES["BF16"]
BYTES = DATATYPES["BYTES"]

BY_ONNX: Mapping[str, Datatype] = {each.onnx: each for each in DATATYPES.values()}
BY_DTYPE: Mapping[np.dtype[Any], Datatype] = {
    each.dtype: each for each in DATATYPES.values() if each not in (BF16, BYTES)
}


def float32_to_bfloat16(values: Array) -> Array:
    """Return the bits of the nearest bfloat16 (ties to even) of each float32; a NaN stays a NaN."""
    bits = np.asarray(values, np.float32, order="C").view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    result: Array = np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
    return result


def bfloat16_to_float32(bits: Array) -> Array:
    """Return the float32 value of each bfloat16, given by its bits."""
    wide = np.asarray(bits, np.uint16).astype(np.uint32)
    result: Array = np.asarray(wide << np.uint32(16)).view(np.float32)
    return result
