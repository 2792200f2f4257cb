"""TensorFlow's operators that reduce segments of rows, or scatter rows.

tf2onnx adds rows with negative segment ids, which TensorFlow drops, to the last segments, and fills empty
segments with infinity; of rows scattered to the same index it keeps one, where TensorFlow adds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import operand, rank
from kerve.compiler.lowering.ops.sorting import segments
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]


#: ScatterND's reduction, and the value of empty segments for a type.
_REDUCTIONS: dict[str, tuple[str, Any]] = {
    "Max": ("max", lambda dtype: dtype.min),
    "Min": ("min", lambda dtype: dtype.max),
    "Prod": ("mul", lambda _: 1),
    "Sum": ("add", lambda _: 0),
}


def _reduced(g: Lowering, kind: str, data: ir.Value, ids: ir.Value, count: ir.Value | None) -> ir.Value:
    reduction, start = _REDUCTIONS[kind]
    if count is not None:
        count = g.op.Reshape(g.cast(count, "int64"), [1])
    return segments(g, data, g.cast(ids, "int64"), count, reduction, start(data.dtype))


def _rows(g: Lowering, data: ir.Value, ids: ir.Value, count: ir.Value | None) -> ir.Value:
    """Return the number of rows of each segment, in a shape that broadcasts to the segments."""
    assert data.dtype is not None
    ones = g.op.Expand(operand(g, 1, data.dtype), g.op.Shape(ids))
    rows = _reduced(g, "Sum", ones, ids, count)
    return g.op.Unsqueeze(rows, list(range(1, rank(data)))) if rank(data) > 1 else rows


def _unsorted(kind: str) -> Handler:
    return lambda g, _, data, ids, count: _reduced(g, kind, data, ids, count)


def _sorted(kind: str) -> Handler:
    """Make a handler for sorted ids; empty segments are zero, except for products."""

    def handler(g: Lowering, _: _Attributes, data: ir.Value, ids: ir.Value) -> ir.Value:
        reduced = _reduced(g, kind, data, ids, None)
        if kind not in ("Max", "Min"):
            return reduced
        assert data.dtype is not None
        zero = operand(g, 0, data.dtype)
        return g.op.Where(g.op.Equal(_rows(g, data, ids, None), zero), zero, reduced)

    return handler


def _averaged(weigh: Callable[[Lowering, ir.Value], ir.Value]) -> Handler:
    """Make a handler that divides sums by a function of the number of rows."""

    def handler(g: Lowering, _: _Attributes, data: ir.Value, ids: ir.Value, *count: ir.Value) -> ir.Value:
        assert data.dtype is not None
        total = next(iter(count), None)
        rows = g.op.Max(_rows(g, data, ids, total), operand(g, 1, data.dtype))
        return g.op.Div(_reduced(g, "Sum", data, ids, total), weigh(g, rows))

    return handler


def _sparse(handler: Handler) -> Handler:
    """Make a handler that gathers rows first."""

    def picked(
        g: Lowering, attributes: _Attributes, data: ir.Value, places: ir.Value, *rest: ir.Value
    ) -> Any:
        rows = g.op.Gather(data, places)
        return handler(g, attributes, rows, *rest)

    return picked


def _sum(g: Lowering, _: _Attributes, data: ir.Value, ids: ir.Value, *count: ir.Value) -> ir.Value:
    return _reduced(g, "Sum", data, ids, next(iter(count), None))


def _scatter(g: Lowering, _: _Attributes, places: ir.Value, rows: ir.Value, shape: ir.Value) -> ir.Value:
    """Add rows at indices of a tensor of zeros."""
    assert rows.dtype is not None
    is_number = rows.dtype not in (ir.DataType.BOOL, ir.DataType.STRING)
    nothing = (
        operand(g, 0, rows.dtype) if rows.dtype != ir.DataType.STRING else g.constant(np.array("", object))
    )
    zeros = g.op.Expand(nothing, g.cast(shape, "int64"))
    return g.op.ScatterND(zeros, g.cast(places, "int64"), rows, reduction="add" if is_number else "none")


_MEAN = _averaged(lambda _, rows: rows)
_SQUARE_ROOT = _averaged(lambda g, rows: g.op.Sqrt(rows))

HANDLERS.add("tensorflow.ScatterNd", _scatter)
HANDLERS.add("tensorflow.SegmentMean", _MEAN)
for _kind in _REDUCTIONS:
    HANDLERS.add(f"tensorflow.Segment{_kind}", _sorted(_kind))
    HANDLERS.add(f"tensorflow.UnsortedSegment{_kind}", _unsorted(_kind))
for _kind, _handler in (("Mean", _MEAN), ("SqrtN", _SQUARE_ROOT), ("Sum", _sum)):
    for _suffix in ("", "WithNumSegments"):
        HANDLERS.add(f"tensorflow.SparseSegment{_kind}{_suffix}", _sparse(_handler))
