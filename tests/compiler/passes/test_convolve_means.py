"""Means over small windows are convolutions where ONNX Runtime's pool is slow, and as they were elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest

from kerve.compiler.passes.convolve_means import ConvolveMeans


def _pool(e: Any, *shape: int | str, **attributes: Any) -> ir.Model:
    model: ir.Model = e.model(e.op.AveragePool(e.input("batch", *shape), **attributes))
    return model


@pytest.mark.parametrize(
    ("attributes", "products"),
    [
        pytest.param({"kernel_shape": [2, 2], "strides": [2, 2]}, 0, id="side by side"),
        pytest.param({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 1, id="padding left out"),
        pytest.param({"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "strides": [2, 1]}, 1, id="uneven"),
        pytest.param(
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 0, id="padding counted"
        ),
    ],
)
def test_a_mean_over_a_small_window_is_a_convolution(
    emitter: Any, optimized: Callable[..., Any], attributes: dict[str, Any], products: int
) -> None:
    counts = optimized(_pool(emitter, 5, 8, 7, **attributes), ConvolveMeans())
    assert (counts["AveragePool"], counts["Conv"], counts["Mul"]) == (0, 1, products)


@pytest.mark.parametrize(
    ("shape", "attributes", "reason"),
    [
        pytest.param((5, 8, 8), {"kernel_shape": [6, 6]}, "window is large", id="large"),
        pytest.param(
            (5, 8, 8), {"kernel_shape": [3, 3], "ceil_mode": 1}, "has ceil_mode or", id="rounded up"
        ),
        pytest.param((5, 8, 8), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, "auto_pad", id="auto"),
        pytest.param((5, 8), {"kernel_shape": [2]}, "images of float32", id="sequences"),
        pytest.param(
            (5, "h", "w"), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, "dynamic size", id="open sizes"
        ),
    ],
)
def test_other_pools_stay(
    emitter: Any, optimized: Callable[..., Any], shape: Any, attributes: dict[str, Any], reason: str
) -> None:
    rewrite = ConvolveMeans()
    assert optimized(_pool(emitter, *shape, **attributes), rewrite)["AveragePool"] == 1
    assert reason in rewrite.notes[0]


def test_pools_of_versions_that_are_fast_stay(emitters: Any, optimized: Callable[..., Any]) -> None:
    model = _pool(emitters(18), 5, 8, 8, kernel_shape=[2, 2])
    assert optimized(model, ConvolveMeans())["AveragePool"] == 1
