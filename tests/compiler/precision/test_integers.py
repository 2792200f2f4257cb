"""Numbers as integers, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kerve.compiler.precision import integers

FINITE = st.floats(-1e6, 1e6, width=32)
MATRICES = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=70), elements=FINITE
)


@given(low=FINITE, high=FINITE)
def test_an_activation_in_its_range_is_off_by_half_a_step_at_most(low: float, high: float) -> None:
    low, high = sorted((low, high))
    scale, zero_point = integers.affine(low, high)
    values = np.linspace(low, high, 101)
    stored = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    assert np.abs((stored - zero_point) * scale - values).max() <= 1.001 * scale


@given(low=FINITE, high=FINITE)
def test_zero_is_exact(low: float, high: float) -> None:
    low, high = sorted((low, high))
    affine = integers.affine(low, high)
    assert 0 <= int(affine.zero_point) <= 255
    assert affine.scale > 0


def test_what_a_relu_gives_starts_at_the_smallest_byte() -> None:
    assert integers.affine(0.0, 6.0).zero_point == 0


@given(MATRICES)
def test_a_weight_is_off_by_half_a_step_of_its_channel(weight: np.ndarray) -> None:
    stored, scale = integers.per_channel(weight, (0,))
    assert stored.dtype == np.int8
    assert scale.shape == (1, weight.shape[1])
    assert (np.abs(stored * scale - weight) <= np.maximum(scale * 0.5001, 1e-35)).all()


def test_a_channel_of_small_weights_keeps_its_digits_beside_one_of_large_weights() -> None:
    weight = np.array([[1000.0, 0.001], [-500.0, 0.0005]], np.float32)
    stored, scale = integers.per_channel(weight, (0,))
    np.testing.assert_allclose(stored * scale, weight, rtol=1e-2)


def test_a_scale_is_not_below_the_least() -> None:
    _, scale = integers.per_channel(np.full((4, 2), 1e-9, np.float32), (0,), np.array([1.0, 0.0], np.float32))
    assert scale[0, 0] == 1.0
    assert scale[0, 1] < 1e-9


@given(MATRICES)
def test_four_bits_are_off_by_an_eighth_of_the_largest_of_a_block_or_so(weight: np.ndarray) -> None:
    stored, scale = integers.blockwise(weight, 32)
    assert stored.shape == weight.shape
    assert scale.shape == (-(-len(weight) // 32), weight.shape[1])
    for block in range(len(scale)):
        rows = slice(32 * block, 32 * block + 32)
        error = np.square(stored[rows].astype(np.float32) * scale[block] - weight[rows]).sum(axis=0)
        unclipped = len(weight[rows]) * np.square(np.abs(weight[rows]).max(axis=0) / 14)
        assert (error <= unclipped * 1.01 + 1e-35).all()


@pytest.mark.parametrize("block", [16, 32])
def test_clipping_the_largest_of_a_block_lowers_its_error(block: int) -> None:
    weight = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    stored, scale = integers.blockwise(weight, block)
    largest = np.abs(weight.reshape(-1, block, 64)).max(axis=1) / 7
    plain = np.rint(weight / np.repeat(largest, block, axis=0)) * np.repeat(largest, block, axis=0)
    clipped = stored.astype(np.float32) * np.repeat(scale, block, axis=0)
    assert np.square(clipped - weight).mean() < np.square(plain - weight).mean()


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)], ids=str)
def test_what_is_quantized_in_parts_is_what_it_is_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, axes: tuple[int, ...]
) -> None:
    weight = np.random.default_rng(0).standard_normal((70, 30)).astype(np.float32)
    whole = [*integers.per_channel(weight, axes), *integers.blockwise(weight, 32)]
    monkeypatch.setattr(integers, "_SLAB", 100)
    parts = [*integers.per_channel(weight, axes), *integers.blockwise(weight, 32)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)
