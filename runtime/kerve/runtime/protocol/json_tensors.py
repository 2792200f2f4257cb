"""Tensors in JSON: flat or nested lists; bytes in base64."""

import base64
from typing import Any

import numpy as np

from kerve.runtime.datatypes import BF16, BYTES, DATATYPES, Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.tensors import object_array

__all__ = ["from_base64", "from_json"]

# The NumPy kinds of JSON values that are accepted for a datatype's kind.
KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}


def from_json(label: str, datatype: str, data: object) -> Array:
    """Return the elements of a nested or flat JSON tensor; raises InvalidArgumentError if they do not fit."""
    if datatype not in DATATYPES or datatype == BF16.name:
        raise InvalidArgumentError(
            f"{label}: {datatype or 'no datatype'} cannot be given as JSON; send binary data"
        )
    dtype = DATATYPES[datatype].dtype
    try:
        if datatype == BYTES.name:
            return object_array([encoded(each) for each in np.array(data, object).ravel().tolist()])
        array = as_array(data, dtype)
        if array.size and array.dtype.kind not in KINDS[dtype.kind]:
            raise ValueError(f"got {array.dtype}")
        converted = array.astype(dtype)
        if dtype.kind in "iu" and not np.array_equal(converted, array):
            raise ValueError("a value is out of range")
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgumentError(f"{label}: data: expected {datatype}: {error}") from error
    return converted


def encoded(element: object) -> bytes:
    """Return a string as UTF-8; raises ValueError for anything else."""
    if not isinstance(element, str):
        raise ValueError(f"got {element!r}"[:80])
    return element.encode()


def as_array(data: object, dtype: np.dtype[Any]) -> Array:
    """Return JSON values as an array; integers beyond int64 are converted directly to `dtype`."""
    array = np.array(data)
    if dtype.kind not in "iuf" or array.dtype.kind not in "Of":
        return array
    if dtype.kind == "f" and array.dtype.kind == "f":
        return array
    # NumPy has no common type for 2**64 - 1 and -1: it uses floats for some such lists, objects for 2**64.
    exact = np.array(data, object)
    numbers = (int,) if dtype.kind in "iu" else (int, float)
    return exact.astype(dtype) if all(type(each) in numbers for each in exact.ravel().tolist()) else array


def from_base64(label: str, text: str) -> bytes:
    """Decode base64; raises InvalidArgumentError if the text is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one, as is the error for non-ASCII characters
        raise InvalidArgumentError(f"{label}: expected base64: {error}") from error
