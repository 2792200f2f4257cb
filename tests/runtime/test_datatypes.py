"""The table of datatypes, and bfloat16, which NumPy does not know."""

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kerve.runtime.datatypes import BY_ONNX, DATATYPES, bfloat16_to_float32, float32_to_bfloat16

ALL_BITS = np.arange(2**16, dtype=np.uint16)


def test_every_datatype_has_its_own_name_in_onnx_runtime() -> None:
    assert len(BY_ONNX) == len(DATATYPES) == 14


def test_every_bfloat16_becomes_the_float32_that_equals_it() -> None:
    expected = ALL_BITS.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(bfloat16_to_float32(ALL_BITS), expected)


def test_every_bfloat16_survives_float32() -> None:
    numbers = ALL_BITS[~np.isnan(bfloat16_to_float32(ALL_BITS))]
    np.testing.assert_array_equal(float32_to_bfloat16(bfloat16_to_float32(numbers)), numbers)


def test_a_scalar_stays_a_scalar() -> None:
    bits = float32_to_bfloat16(np.array(1.0, np.float32))
    assert bits.shape == bfloat16_to_float32(bits).shape == ()
    assert bfloat16_to_float32(bits) == 1.0


@given(st.lists(st.floats(width=32), max_size=50))
def test_a_float32_becomes_the_nearest_bfloat16(values: list[float]) -> None:
    array = np.array(values, np.float32)
    with np.errstate(invalid="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(bfloat16_to_float32(float32_to_bfloat16(array)), expected)
