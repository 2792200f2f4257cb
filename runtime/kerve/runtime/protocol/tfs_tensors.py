"""Conversion between tensorflow.TensorProto and NumPy."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kerve.runtime.datatypes import BYTES, DATATYPES, Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.tensors import check_count, from_raw, object_array, shaped
from kerve.tensorflow.core.framework import tensor_pb2, types_pb2

__all__ = ["NUMBERS", "datatype_of", "decode_tensor", "encode_tensor", "shape_of"]


class Row(NamedTuple):
    """A datatype's number in TensorFlow, the field of its elements, and their dtype in that field."""

    number: int
    field: str
    dtype: str


TABLE: Mapping[str, Row] = {
    "FP32": Row(types_pb2.DT_FLOAT, "float_val", "<f4"),
    "FP64": Row(types_pb2.DT_DOUBLE, "double_val", "<f8"),
    "INT32": Row(types_pb2.DT_INT32, "int_val", "<i4"),
    "UINT8": Row(types_pb2.DT_UINT8, "int_val", "u1"),
    "INT16": Row(types_pb2.DT_INT16, "int_val", "<i2"),
    "INT8": Row(types_pb2.DT_INT8, "int_val", "i1"),
    "BYTES": Row(types_pb2.DT_STRING, "string_val", "O"),
    "INT64": Row(types_pb2.DT_INT64, "int64_val", "<i8"),
    "BOOL": Row(types_pb2.DT_BOOL, "bool_val", "?"),
    "BF16": Row(types_pb2.DT_BFLOAT16, "half_val", "<u2"),
    "UINT16": Row(types_pb2.DT_UINT16, "int_val", "<u2"),
    # As bits.
    "FP16": Row(types_pb2.DT_HALF, "half_val", "<u2"),
    "UINT32": Row(types_pb2.DT_UINT32, "uint32_val", "<u4"),
    "UINT64": Row(types_pb2.DT_UINT64, "uint64_val", "<u8"),
}
NUMBERS = {datatype: row.number for datatype, row in TABLE.items()}
BY_NUMBER = {row.number: datatype for datatype, row in TABLE.items()}


def datatype_of(tensor: tensor_pb2.TensorProto) -> str:
    """Return the datatype of a tensor by its name in the Open Inference Protocol."""
    return BY_NUMBER.get(tensor.dtype, f"tensorflow.DataType {tensor.dtype}")


def shape_of(tensor: tensor_pb2.TensorProto) -> list[int]:
    """Return the shape of a tensor."""
    return [each.size for each in tensor.tensor_shape.dim]


def decode_tensor(label: str, tensor: tensor_pb2.TensorProto) -> Array:
    """Return the array in a tensor of a known datatype; raises InvalidArgumentError if it is incomplete."""
    datatype, shape = datatype_of(tensor), shape_of(tensor)
    if tensor.tensor_content:
        return from_raw(label, datatype, shape, tensor.tensor_content)
    row = TABLE[datatype]
    values = getattr(tensor, row.field)
    if datatype == BYTES.name:
        flat = object_array(list(values))
    else:
        try:
            flat = np.fromiter(values, row.dtype, len(values)).view(DATATYPES[datatype].dtype)
        except OverflowError as error:
            raise InvalidArgumentError(f"{label}: a value does not fit {datatype}: {error}") from error
    return shaped(label, repeated(flat, math.prod(shape), label, datatype, shape), shape)


def repeated(flat: Array, count: int, label: str, datatype: str, shape: list[int]) -> Array:
    """Return `count` elements: the last one is repeated for missing ones, zero if all are missing."""
    if len(flat) == count or len(flat) > count:
        check_count(label, datatype, shape, len(flat))
        return flat
    if count > MOST_REPEATED:
        raise InvalidArgumentError(
            f"{label}: expected {count} elements, got {len(flat)}; so many cannot be filled with the last one"
        )
    last = flat[-1] if len(flat) else b"" if datatype == BYTES.name else 0
    missing = np.full(count - len(flat), last, flat.dtype)
    return np.concatenate([flat, missing])


# A request of a few bytes must not exhaust the machine's memory.
MOST_REPEATED = 1 << 28


def encode_tensor(datatype: str, array: Array) -> tensor_pb2.TensorProto:
    """Convert an array to a tensor, with its elements in the field of their type."""
    row = TABLE[datatype]
    tensor = tensor_pb2.TensorProto(dtype=row.number)  # type: ignore[arg-type]  # an enum's number
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    flat: Any = array.ravel()
    getattr(tensor, row.field).extend((flat.view(row.dtype) if datatype == "FP16" else flat).tolist())
    return tensor
