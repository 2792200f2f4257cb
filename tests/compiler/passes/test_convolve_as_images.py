"""Sequences are convolved as images of height one where that is faster, with what stands between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from kerve.compiler.passes.convolve_as_images import ConvolveAsImages


def _conv(e: Any, x: Any, filters: int = 16, kernel: int = 3, group: int = 1, **attributes: Any) -> Any:
    weights = e.weight(filters, x.shape[1] // group, kernel)
    return e.op.Conv(
        x, weights, e.weight(filters, name="bias"), group=group, pads=[kernel - 1, 0], **attributes
    )


def _chain(e: Any, between: Callable[[Any, Any], Any], length: int | str = 512) -> ir.Model:
    model: ir.Model = e.model(_conv(e, between(e, _conv(e, e.input("batch", 16, length)))))
    return model


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(lambda e, x: e.op.Relu(x), id="activation"),
        pytest.param(lambda e, x: e.op.Add(x, e.weight(16, 1)), id="constant per channel"),
        pytest.param(lambda e, x: e.op.Mul(e.weight(1, 1, 512), x), id="constant per step"),
        pytest.param(lambda e, x: e.op.Clip(x, e.constant(0.0), e.constant(1.0)), id="bounds"),
        pytest.param(lambda e, x: e.op.Add(x, e.op.Sigmoid(x)), id="residual"),
        pytest.param(lambda e, x: e.op.Concat(x, e.op.Tanh(x), axis=1), id="channels joined"),
        pytest.param(lambda e, x: e.op.Concat(x, x, axis=-1), id="steps joined"),
        pytest.param(lambda e, x: e.op.PRelu(x, e.weight(16, 1)), id="slopes"),
        pytest.param(lambda e, x: e.op.MaxPool(x, kernel_shape=[3], strides=[2], pads=[1, 0]), id="pool"),
        pytest.param(lambda e, x: _conv(e, x, kernel=1), id="points"),
        pytest.param(lambda e, x: _conv(e, x, group=16, dilations=[4]), id="channels apart, dilated"),
        pytest.param(lambda e, x: e.op.Mul(x, e.op.GlobalAveragePool(x)), id="gate"),
        pytest.param(
            lambda e, x: e.op.BatchNormalization(
                x, *(e.constant(np.full(16, v)) for v in (2.0, 1.0, 0.5, 1.0))
            ),
            id="normalized",
        ),
    ],
)
def test_what_stands_between_convolutions_goes_along(
    emitter: Any, optimized: Callable[..., Any], between: Callable[[Any, Any], Any]
) -> None:
    model = _chain(emitter, between)
    optimized(model, ConvolveAsImages())
    live = {node.op_type for node in model.graph if node.op_type in ("Conv", "Squeeze")}
    assert live == {"Conv", "Squeeze"}
    assert all(len(node.outputs[0].shape or ()) == 4 for node in model.graph if node.op_type == "Conv")
    assert sum(node.op_type == "Unsqueeze" for node in model.graph) == 1


def test_what_reads_a_sequence_otherwise_still_does(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    hidden = e.op.Relu(_conv(e, e.input("batch", 16, 512)))
    model = e.model(e.op.ReduceMax(hidden, e.ints(2), keepdims=0), e.op.Softmax(_conv(e, hidden), axis=-1))
    assert optimized(model, ConvolveAsImages())["Conv"] == 2


def test_an_open_length_is_taken_for_a_long_one(emitter: Any, optimized: Callable[..., Any]) -> None:
    counts = optimized(_chain(emitter, lambda e, x: e.op.Relu(x), "steps"), ConvolveAsImages())
    assert counts["Unsqueeze"] == 1


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("length", "rank"), [pytest.param(4096, 4, id="long"), pytest.param(64, 3, id="short")]
)
def test_long_sequences_are_pooled_as_images(
    emitter: Any, optimized: Callable[..., Any], op_type: str, length: int, rank: int
) -> None:
    pool = getattr(emitter.op, op_type)(emitter.input("batch", 3, length), kernel_shape=[2], strides=[2])
    model = emitter.model(pool)
    optimized(model, ConvolveAsImages())
    (node,) = (node for node in model.graph if node.op_type == op_type)
    assert len(node.outputs[0].shape or ()) == rank


@pytest.mark.parametrize(
    ("channels", "kernel", "length"),
    [
        pytest.param(3, 5, 512, id="few channels"),
        pytest.param(18, 5, 512, id="channels that fill no blocks"),
        pytest.param(64, 1, 512, id="points"),
        pytest.param(16, 3, 32, id="little to do"),
    ],
)
def test_other_convolutions_stay(
    emitter: Any, optimized: Callable[..., Any], channels: int, kernel: int, length: int
) -> None:
    model = emitter.model(_conv(emitter, emitter.input("batch", channels, length), kernel=kernel))
    rewrite = ConvolveAsImages()
    assert optimized(model, rewrite) == {"Conv": 1}
    assert rewrite.notes == ["Conv: remains a convolution of sequences: it has few channels, or little work"]
