"""Tensors in the Open Inference Protocol: raw bytes or typed contents.

Raw: row-major, little-endian; BOOL is one byte; BYTES elements are a 4-byte little-endian length and the
bytes.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerve.runtime.datatypes import BYTES, DATATYPES, Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.signature import show_shape

__all__ = ["from_raw", "from_typed", "object_array", "to_raw"]


def to_raw(array: Array, datatype: str) -> bytes:
    """Return the raw contents of an array of the datatype's dtype."""
    if datatype == BYTES.name:
        return b"".join(struct.pack("<I", len(element)) + element for element in array.ravel())
    return array.tobytes()


def from_raw(label: str, datatype: str, shape: Sequence[int], raw: bytes) -> Array:
    """Return the array in raw contents; for numbers, a read-only view.

    `label` names the tensor in errors ("input 'x'"). Raises InvalidArgumentError if the length does not fit
    the shape.
    """
    if datatype == BYTES.name:
        elements = list(split_bytes(label, raw))
        check_count(label, datatype, shape, len(elements))
        return shaped(label, object_array(elements), shape)
    dtype = DATATYPES[datatype].dtype
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise InvalidArgumentError(
            f"{label}: expected {expected} bytes for {datatype} {show_shape(shape)}, got {len(raw)}"
        )
    if datatype == "BOOL":  # any byte other than 0 is true, but NumPy expects only 0 and 1
        return shaped(label, np.frombuffer(raw, np.uint8) != 0, shape)
    return shaped(label, np.frombuffer(raw, dtype), shape)


def from_typed(label: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Array:
    """Return the array in typed contents; raises InvalidArgumentError if the values do not fit."""
    check_count(label, datatype, shape, len(values))
    if datatype == BYTES.name:
        return shaped(label, object_array(list(values)), shape)
    try:
        return shaped(label, np.fromiter(values, DATATYPES[datatype].dtype, len(values)), shape)
    except OverflowError as error:  # INT8 is transmitted in 32 bits
        raise InvalidArgumentError(f"{label}: a value does not fit {datatype}: {error}") from error


def split_bytes(label: str, raw: bytes) -> Iterator[bytes]:
    """Yield the elements of a raw BYTES tensor."""
    position = 0
    while position < len(raw):
        start = position + 4
        position = start + int.from_bytes(raw[position:start], "little")
        if start > len(raw) or position > len(raw):
            raise InvalidArgumentError(
                f"{label}: expected BYTES as 4-byte little-endian lengths, each with its bytes; "
                f"got {len(raw)} bytes, which end within an element"
            )
        yield raw[start:position]


def check_count(label: str, datatype: str, shape: Sequence[int], count: int) -> None:
    """Raise InvalidArgumentError unless the number of elements matches the shape."""
    expected = math.prod(shape)
    if count != expected:
        raise InvalidArgumentError(
            f"{label}: expected {expected} elements for {datatype} {show_shape(shape)}, got {count}"
        )


def shaped(label: str, flat: Array, shape: Sequence[int]) -> Array:
    """Reshape the elements."""
    try:
        return flat.reshape(tuple(shape))
    except ValueError as error:  # no elements, but other dimensions are too large for NumPy
        raise InvalidArgumentError(f"{label}: shape {show_shape(shape)} is too large") from error


def object_array(elements: Sequence[bytes]) -> Array:
    """Return a flat object array of bytes; np.array() would create one of fixed width."""
    array = np.empty(len(elements), BYTES.dtype)
    array[:] = elements
    return array
