"""Pads go into the convolution or pool behind them where that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx_ir.passes import common

from kerve.compiler.passes.fuse_pads import FusePads


def _conv(e: Any, x: Any, **attributes: Any) -> Any:
    return e.op.Conv(x, e.weight(2, 3, 3, 3), **attributes)


def _pool(e: Any, x: Any, op_type: str = "MaxPool", **attributes: Any) -> Any:
    return getattr(e.op, op_type)(x, kernel_shape=[3, 3], strides=[2, 2], **attributes)


def _pad(
    e: Any, x: Any, *inputs: Any, pads: tuple[int, ...] = (0, 0, 1, 2, 0, 0, 0, 1), **attributes: Any
) -> Any:
    return e.op.Pad(x, e.ints(*pads), *inputs, **attributes)


def _wider(e: Any, x: Any) -> Any:
    return _pad(e, x, pads=(0, 0, 3, 0, 0, 0, 0, 0))


def _with_another_channel(e: Any, x: Any) -> Any:
    return _pad(e, e.op.Slice(x, e.ints(0), e.ints(2), e.ints(1)), pads=(0, 1, 0, 0, 0, 0, 0, 0))


def _value(e: Any, value: float) -> Any:
    return e.constant(np.float32(value), "value")


FIRES: list[Any] = [
    pytest.param(lambda e, x: _conv(e, _pad(e, x)), id="conv"),
    pytest.param(
        lambda e, x: _conv(e, _pad(e, x, _value(e, 0.0)), pads=[1, 0, 1, 0]), id="conv that pads as well"
    ),
    pytest.param(
        lambda e, x: _conv(e, _pad(e, x), auto_pad="VALID", strides=[2, 2]), id="conv said to be valid"
    ),
    pytest.param(
        lambda e, x: _conv(e, _pad(e, x, None, e.ints(2, -1), pads=(1, 1, 1, 0))), id="pad of named axes"
    ),
    pytest.param(lambda e, x: _pool(e, _pad(e, x, _value(e, -np.inf))), id="max pool of a pad of -inf"),
    pytest.param(lambda e, x: _pool(e, _pad(e, e.op.Relu(x))), id="max pool of a pad of zeros after relu"),
    pytest.param(lambda e, x: _pool(e, _pad(e, e.op.Clip(x, 0.0, 6.0))), id="max pool after a clip at zero"),
    pytest.param(lambda e, x: _pool(e, _pad(e, x), "AveragePool"), id="average pool"),
]

STAYS: list[Any] = [
    pytest.param(lambda e, x: _conv(e, _pad(e, x, _value(e, 1.0))), "not with 1", id="pad of ones"),
    pytest.param(lambda e, x: _conv(e, _pad(e, x, mode="reflect")), "constants", id="reflection"),
    pytest.param(lambda e, x: _conv(e, _pad(e, x, pads=(0, 0, -1, 0, 0, 0, 0, 0))), "crops", id="crop"),
    pytest.param(lambda e, x: _conv(e, _with_another_channel(e, x)), "channels", id="pad of channels"),
    pytest.param(
        lambda e, x: _conv(e, _pad(e, x), auto_pad="SAME_UPPER"),
        "computes its padding",
        id="conv said to be same",
    ),
    pytest.param(lambda e, x: _pool(e, _pad(e, x)), "maximum may be 0", id="max pool of a pad of zeros"),
    pytest.param(lambda e, x: _pool(e, _wider(e, e.op.Relu(x))), "as wide", id="wider than the window"),
    pytest.param(lambda e, x: _pool(e, _pad(e, e.op.Relu(x)), ceil_mode=1), "rounded up", id="rounded up"),
    pytest.param(
        lambda e, x: _pool(e, _pad(e, x), "AveragePool", pads=[1, 1, 1, 1]),
        "from the mean",
        id="average pool that pads too",
    ),
]

Make = Callable[[Any, Any], Any]


@pytest.mark.parametrize("make", FIRES)
def test_a_pad_disappears(emitter: Any, optimized: Callable[..., Any], make: Make) -> None:
    model = emitter.model(make(emitter, emitter.input("batch", 3, 8, 8)))
    assert "Pad" not in optimized(model, FusePads(), common.RemoveUnusedNodesPass())


@pytest.mark.parametrize(("make", "reason"), STAYS)
def test_a_pad_that_means_something_else_stays_and_says_why(
    emitter: Any, optimized: Callable[..., Any], make: Make, reason: str
) -> None:
    fuse = FusePads()
    assert optimized(emitter.model(make(emitter, emitter.input("batch", 3, 8, 8))), fuse)["Pad"] == 1
    (note,) = fuse.notes
    assert reason in note


def test_two_convolutions_that_read_one_pad_both_take_it_in(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    padded = _pad(e, e.input("batch", 3, 8, 8))
    assert "Pad" not in optimized(e.model(_conv(e, padded), _conv(e, padded)))
