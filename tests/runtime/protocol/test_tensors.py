"""Tensors to bytes and back, for every datatype and shape."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from kerve.runtime.datatypes import BYTES, DATATYPES
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.tensors import from_raw, from_typed, object_array, to_raw

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, NDArray[Any]]:
    datatype = DATATYPES[draw(st.sampled_from(sorted(DATATYPES)))]
    shape = draw(SHAPES)
    if datatype is BYTES:
        size = math.prod(shape)
        return BYTES.name, object_array(draw(st.lists(st.binary(), min_size=size, max_size=size))).reshape(
            shape
        )
    return datatype.name, draw(hnp.arrays(datatype.dtype, shape))


@given(tensors())
def test_raw_contents_give_the_array_back(tensor: tuple[str, NDArray[Any]]) -> None:
    datatype, array = tensor
    again = from_raw("input 'x'", datatype, array.shape, to_raw(array, datatype))
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@given(tensors())
def test_typed_contents_give_the_array(tensor: tuple[str, NDArray[Any]]) -> None:
    datatype, array = tensor
    again = from_typed("input 'x'", datatype, array.shape, array.ravel().tolist())
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


@given(st.lists(st.binary(), max_size=20))
def test_bytes_are_laid_out_as_tritons_client_does(elements: list[bytes]) -> None:
    array = object_array(elements)
    if elements:
        assert to_raw(array, "BYTES") == serialize_byte_tensor(array).item()
    assert list(deserialize_bytes_tensor(to_raw(array, "BYTES"))) == elements


def test_numbers_are_not_copied() -> None:
    raw = np.arange(6, dtype=np.float32).tobytes()
    assert np.shares_memory(from_raw("x", "FP32", (2, 3), raw), np.frombuffer(raw, np.uint8))


def test_any_byte_but_zero_is_true() -> None:
    assert from_raw("x", "BOOL", (3,), b"\0\1\2").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "message"),
    [
        pytest.param(
            "FP32",
            (1, 28, 28, 1),
            b"x" * 100,
            "expected 3136 bytes for FP32 [1, 28, 28, 1], got 100",
            id="short",
        ),
        pytest.param("INT8", (2,), b"abc", "expected 2 bytes for INT8 [2], got 3", id="long"),
        pytest.param(
            "INT8", (2**62, 8), b"", f"expected {2**65} bytes for INT8 [{2**62}, 8], got 0", id="huge"
        ),
        pytest.param("FP32", (0, 2**62, 8), b"", f"shape [0, {2**62}, 8] is too large", id="huge but empty"),
        pytest.param(
            "BYTES", (2,), b"\1\0\0\0a", "expected 2 elements for BYTES [2], got 1", id="too few elements"
        ),
        pytest.param(
            "BYTES",
            (1,),
            b"\2\0\0\0a",
            "expected BYTES as 4-byte little-endian lengths, each with its bytes; "
            "got 5 bytes, which end within an element",
            id="element cut off",
        ),
        pytest.param(
            "BYTES",
            (1,),
            b"\0\0\0",
            "expected BYTES as 4-byte little-endian lengths, each with its bytes; "
            "got 3 bytes, which end within an element",
            id="length cut off",
        ),
    ],
)
def test_raw_contents_of_another_length_are_refused(
    datatype: str, shape: tuple[int, ...], raw: bytes, message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        from_raw("input 'x'", datatype, shape, raw)
    assert str(caught.value) == f"input 'x': {message}"


@given(st.binary(), st.lists(st.integers(-1, 2**63 - 1), max_size=4), st.sampled_from(sorted(DATATYPES)))
def test_hostile_contents_are_refused_and_nothing_else_happens(
    raw: bytes, shape: list[int], datatype: str
) -> None:
    try:
        array = from_raw("input 'x'", datatype, shape, raw)
    except InvalidArgumentError:
        return
    assert array.shape == tuple(shape)


@pytest.mark.parametrize(
    ("datatype", "values", "message"),
    [
        pytest.param("INT8", [300], "a value does not fit INT8", id="too large"),
        pytest.param("UINT8", [256], "a value does not fit UINT8", id="too large, unsigned"),
        pytest.param("FP32", [1.0, 2.0], "expected 1 elements for FP32 [1], got 2", id="too many"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(datatype: str, values: list[Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        from_typed("input 'x'", datatype, (1,), values)
    assert str(caught.value).startswith(f"input 'x': {message}")
