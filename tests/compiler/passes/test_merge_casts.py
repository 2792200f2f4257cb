"""Casts go where the type in between holds every value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from kerve.compiler.passes.merge_casts import MergeCasts

DT = ir.DataType

CASES: list[Any] = [
    pytest.param([DT.FLOAT], DT.FLOAT, 0, id="to the same type"),
    pytest.param([DT.FLOAT, DT.FLOAT16], DT.FLOAT16, 0, id="half, single, half"),
    pytest.param([DT.DOUBLE, DT.FLOAT16], DT.FLOAT, 1, id="single, double, half"),
    pytest.param([DT.INT64, DT.FLOAT], DT.INT32, 1, id="int, long, single"),
    pytest.param([DT.FLOAT, DT.UINT8], DT.UINT8, 0, id="byte, single, byte"),
    pytest.param([DT.FLOAT16, DT.FLOAT], DT.FLOAT, 2, id="rounding to half stays"),
    pytest.param([DT.INT32, DT.FLOAT], DT.FLOAT, 2, id="truncation stays"),
    pytest.param([DT.FLOAT, DT.INT8], DT.INT16, 2, id="wrapping around stays"),
    pytest.param([DT.BOOL, DT.FLOAT], DT.FLOAT, 2, id="being true stays"),
]


@pytest.mark.parametrize(("through", "start", "left"), CASES)
def test_only_casts_that_change_something_stay(
    emitter: Any, optimized: Callable[..., Any], through: list[DT], start: DT, left: int
) -> None:
    e = emitter
    x = e.input("batch", 3, dtype=start)
    for dtype in through:
        x = e.op.Cast(x, to=int(dtype))
    model = e.model(e.op.Identity(x))
    assert optimized(model, MergeCasts(), common.RemoveUnusedNodesPass())["Cast"] == left
