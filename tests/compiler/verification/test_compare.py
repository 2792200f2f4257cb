"""What counts as equal, and how a difference is told."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kerve.compiler.verification import Check, Tolerance, failures
from kerve.compiler.verification.compare import compare


def check(got: NDArray[Any], want: NDArray[Any]) -> Check:
    return compare(
        got, want, Tolerance.of(want.dtype), data="seeded", sizes={"batch": 2, "ids_1": 7}, output="y"
    )


def test_rounding_is_equal() -> None:
    want = np.array([1.0, -2.0, 0.0], np.float32)
    result = check(want * np.float32(1 + 5e-5), want)
    assert result.passed
    assert result.max_abs_error == pytest.approx(1e-4, rel=0.01)


def test_more_than_the_tolerance_is_not_equal() -> None:
    want = np.array([1.0, -2.0, 0.0], np.float32)
    result = check(want * np.float32(1.001), want)
    assert not result.passed
    assert result.unequal == 2


def test_values_near_zero_are_judged_by_the_range_of_the_output() -> None:
    want = np.array([1000.0, 0.0], np.float32)
    assert check(want + np.float32(0.005), want).passed
    assert not check(want + np.float32(0.2), want).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_special_values_in_the_same_places_are_equal(value: float) -> None:
    want = np.array([value, 1.0], np.float32)
    assert check(want.copy(), want).passed


@pytest.mark.parametrize(
    ("got", "want"),
    [
        pytest.param(np.nan, 1.0, id="nan for a number"),
        pytest.param(1.0, np.nan, id="a number for nan"),
        pytest.param(np.inf, 1.0, id="infinity for a number"),
        pytest.param(-np.inf, np.inf, id="the other infinity"),
    ],
)
def test_special_values_elsewhere_are_not_equal(got: float, want: float) -> None:
    assert not check(np.array([got], np.float32), np.array([want], np.float32)).passed


def test_integers_and_strings_must_be_equal() -> None:
    assert check(np.array([1, 2]), np.array([1, 2])).passed
    assert not check(np.array([1, 3]), np.array([1, 2])).passed
    assert check(np.array(["a"], object), np.array(["a"], object)).passed
    assert not check(np.array(["a"], object), np.array(["b"], object)).passed


def test_empty_outputs_are_equal() -> None:
    assert check(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).passed


def test_a_failure_says_where_and_by_how_much() -> None:
    (text,) = failures([check(np.array([1.5], np.float32), np.array([1.0], np.float32))])
    assert text.startswith(
        "output 'y' (seeded data, batch 2, ids_1 7) differs in 1 elements: largest error 0.5"
    )


def test_another_shape_or_dtype_is_named() -> None:
    wrong_shape = check(np.zeros((2, 1), np.float32), np.zeros(2, np.float32))
    wrong_dtype = check(np.zeros(2, np.float64), np.zeros(2, np.float32))
    assert failures([wrong_shape])[0].endswith("has shape [2, 1], the source has [2]")
    assert failures([wrong_dtype])[0].endswith("has dtype float64, the source has float32")


def test_what_is_computed_in_a_narrower_type_has_its_tolerance() -> None:
    assert Tolerance.of(np.dtype(np.float32), "float16") == Tolerance.of(np.dtype(np.float16))
    assert Tolerance.of(np.dtype(np.int64), "float16") == Tolerance(0.0, 0.0)


@pytest.mark.parametrize("size", [1e-5, 1e-3])
def test_small_numbers_are_judged_by_their_own_range(size: float) -> None:
    want = np.array([1.0, 0.5, 0.25], np.float32) * np.float32(size)
    assert check(want * np.float32(1 + 5e-5), want).passed
    assert not check(want * np.float32(1.1), want).passed
    assert not check(np.zeros_like(want), want).passed


def test_rounding_of_what_is_near_1_is_allowed_among_small_numbers() -> None:
    want = np.array([1e-6, 3e-5], np.float32)
    assert check(want + np.float32(1e-7), want).passed
