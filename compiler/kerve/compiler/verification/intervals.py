"""Inference of the interval of an input in which casts of floats to small integers are defined.

Outside the range of the type, TensorFlow's result depends on the place of the element in its tensor (vector
instructions wrap or saturate, the scalar code of the last elements does not), and ONNX defines none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["UNBOUNDED", "Interval", "defined_interval"]

#: The smallest and the largest number, inclusive.
Interval = tuple[float, float]

UNBOUNDED: Interval = (-np.inf, np.inf)

#: Integer types that ordinary numbers exceed, if only after scaling.
_SMALL = frozenset({ir.DataType.INT8, ir.DataType.INT16, ir.DataType.UINT8, ir.DataType.UINT16})

#: Operators whose outputs lie in every interval (with integer bounds) that contains their float inputs.
_CONTAINED = frozenset(
    {
        "AveragePool",
        "Ceil",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherND",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "Reshape",
        "Resize",
        "Round",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)

#: An operator's input as a function of its output and its other input, by the position of the input.
_INVERSES: Mapping[tuple[str, int], Callable[[float, NDArray[Any]], NDArray[Any]]] = {
    ("Add", 0): lambda output, other: output - other,
    ("Add", 1): lambda output, other: output - other,
    ("Sub", 0): lambda output, other: output + other,
    ("Sub", 1): lambda output, other: other - output,
    ("Mul", 0): lambda output, other: output / other,
    ("Mul", 1): lambda output, other: output / other,
    ("Div", 0): lambda output, other: output * other,
}


def defined_interval(value: ir.Value) -> Interval:
    """Return the interval of an input in which casts to small integers are in the range of their type.

    It is found through operators that keep values in an interval, and through arithmetic with constants.
    """
    if value.graph is None or not any(map(_narrows, value.graph)):
        return UNBOUNDED
    known: dict[ir.Value, Interval] = {}
    for node in reversed(value.graph):
        for index, given in enumerate(node.inputs):
            if given is not None and given.dtype is not None and given.dtype.is_floating_point():
                low, high = known.get(given, UNBOUNDED)
                least, largest = _required(node, index, known.get(node.outputs[0], UNBOUNDED))
                known[given] = max(low, least), min(high, largest)
    low, high = known.get(value, UNBOUNDED)
    return (low, high) if low < high else UNBOUNDED  # a single number would verify little


def _narrows(node: ir.Node) -> bool:
    """Whether the node is a cast to a small integer type."""
    return node.op_type == "Cast" and node.outputs[0].dtype in _SMALL


def _required(node: ir.Node, index: int, interval: Interval) -> Interval:
    """Return the interval in which an input of a node must lie so that its output lies in `interval`."""
    target = node.outputs[0].dtype
    if _narrows(node):
        assert target is not None
        limits = np.iinfo(target.numpy())
        return float(limits.min), float(limits.max)
    if interval == UNBOUNDED or target is None or not target.is_floating_point():
        return UNBOUNDED
    if node.op_type in _CONTAINED or node.op_type == "Cast":
        return interval
    if node.op_type in ("Clip", "Relu") and index == 0:
        return _unclipped(node, interval)
    if inverse := _INVERSES.get((node.op_type, index)):
        other = node.inputs[1 - index]
        if other is not None and other.const_value is not None and other.const_value.size:
            return _inverted(inverse, other.const_value.numpy().astype(np.float64), interval)
    return UNBOUNDED


def _unclipped(node: ir.Node, interval: Interval) -> Interval:
    """Return an interval without the bounds that the node itself keeps."""
    if node.op_type == "Relu":
        low, high = 0.0, np.inf
    else:
        low, high = (
            _number(node.inputs[place], otherwise) if place < len(node.inputs) else otherwise
            for place, otherwise in enumerate(UNBOUNDED, 1)
        )
    return -np.inf if low >= interval[0] else interval[0], np.inf if high <= interval[1] else interval[1]


def _number(value: ir.Value | None, otherwise: float) -> float:
    """Return the number of a constant, or `otherwise` if it is computed or left out."""
    return otherwise if value is None or value.const_value is None else float(value.const_value.numpy())


def _inverted(
    inverse: Callable[[float, NDArray[Any]], NDArray[Any]], other: NDArray[Any], interval: Interval
) -> Interval:
    """Return the interval that all elements of the other input map into `interval`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = inverse(interval[0], other), inverse(interval[1], other)
    return float(np.minimum(*ends).max()), float(np.maximum(*ends).min())
