"""`ops.add`, which Keras computes with TensorFlow's BiasAdd if its second operand looks like a bias.

A vector with axes of size one is added along the last axis of the first operand if the sizes agree, otherwise
along axis 1 if they agree there, and only otherwise as in broadcasting. So the bias of a channels-first
convolution is added along the width of an image whose width equals the number of channels. Correct or not,
this is how the model was trained and predicts. (`x + y` of tensors is TensorFlow's own addition: `plus`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.operators import Plus
from kerve.compiler.lowering.ops.operands import operand
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape

__all__ = ["HANDLERS", "add_bias", "broadcasts"]

HANDLERS = Handlers()

_Shape = Sequence[int | None]


@HANDLERS.register("numpy.Add")
def add(g: Lowering, operation: Any, x1: Any, x2: Any) -> ir.Value:
    """Add, with `x2` along the axis that Keras chooses."""
    x1, x2 = (operand(g, x, g.output_dtype) for x in (x1, x2))
    if not isinstance(operation, Plus):
        x2 = _placed(g, x1, x2)
    return g.op.Add(x1, x2)


def add_bias(g: Lowering, x: ir.Value, bias: Any, shape: Sequence[int] | None = None) -> ir.Value:
    """Add a layer's bias, a variable, as the layer does, reshaped to `shape` if given."""
    column = None if shape is None else lambda array: array.reshape(shape)
    placed = _placed(g, x, g.weight(bias, column, role="" if shape is None else "column"))
    return g.op.Add(x, placed)


def broadcasts(x1: _Shape, x2: _Shape) -> bool:
    """Whether Keras adds operands of these shapes by plain broadcasting for all values of dynamic sizes."""
    vector = _vector(x1, x2)
    return vector is None or not _others(x1, *vector)


def _placed(g: Lowering, x1: ir.Value, x2: ir.Value) -> ir.Value:
    """Reshape `x2` so that broadcasting adds it along the axis that Keras chooses."""
    shape = static_shape(x1)
    vector = _vector(shape, static_shape(x2))
    if vector is None or not (others := _others(shape, *vector)):
        return x2
    size, own = vector

    def form(axis: int) -> ir.Value:
        return g.shape([size if each == axis else 1 for each in range(len(shape))])

    chosen = form(own)
    for axis in reversed(others):
        if shape[axis] is None:
            agrees = g.op.Equal(g.op.Shape(x1, start=axis, end=axis + 1), g.shape([size]))
            chosen = g.op.Where(agrees, form(axis), chosen)
        else:
            chosen = form(axis)
    placed = g.op.Reshape(x2, chosen)
    if placed.shape is None:
        placed.shape = ir.Shape([None] * len(shape))
    return placed


def _vector(x1: _Shape, x2: _Shape) -> tuple[int, int] | None:
    """Return the size of a vector with axes of size one, and its axis in `x1`; None for other shapes."""
    places = [place for place, size in enumerate(x2, len(x1) - len(x2)) if size != 1]
    if len(x1) < 2 or len(x2) > len(x1) or len(places) != 1:  # Keras's own conditions
        return None
    size = x2[places[0] - len(x1)]
    return None if size is None or x1[places[0]] == 1 else (size, places[0])


def _others(x1: _Shape, size: int, own: int) -> list[int]:
    """Return the axes, in order, that Keras prefers to a vector's own if the size matches."""
    found = []
    for axis in (len(x1) - 1, 1):
        if x1[axis] not in (size, None):
            continue
        if axis == own:
            break
        found.append(axis)
        if x1[axis] == size:
            break
    return found
