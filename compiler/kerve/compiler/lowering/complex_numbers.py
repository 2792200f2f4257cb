"""Complex numbers in graphs of tf2onnx, represented as pairs of real tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["by_parts", "constant", "makes_complex"]

_Pair = tuple[ir.Value, ir.Value]

#: The types of the parts of complex numbers.
_REAL = {ir.DataType.COMPLEX64: ir.DataType.FLOAT, ir.DataType.COMPLEX128: ir.DataType.DOUBLE}

#: ONNX operators that are linear, so that they apply to each part separately.
_LINEAR = frozenset({
    "Add", "Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Neg", "ReduceMean", "ReduceSum",
    "Reshape", "Slice", "Split", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip


def _times(g: Lowering, x: _Pair, y: _Pair) -> _Pair:
    op, (a, b), (c, d) = g.op, x, y
    return op.Sub(op.Mul(a, c), op.Mul(b, d)), op.Add(op.Mul(a, d), op.Mul(b, c))


def _divided(g: Lowering, x: _Pair, y: _Pair) -> _Pair:
    op, (c, d) = g.op, y
    real, imaginary = _times(g, x, (c, op.Neg(d)))
    square = op.Add(op.Mul(c, c), op.Mul(d, d))
    return op.Div(real, square), op.Div(imaginary, square)


_BINARY: Mapping[str, Callable[[Lowering, _Pair, _Pair], _Pair]] = {"Div": _divided, "Mul": _times}


def makes_complex(node: ir.Node) -> bool:
    """Whether a node casts to complex numbers."""
    return node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()) in _REAL


def constant(g: Lowering, array: NDArray[Any]) -> ir.Value | _Pair:
    """Return a constant; for complex numbers, a pair of their parts."""
    if not np.iscomplexobj(array):
        return g.constant(array, "traced")
    return g.constant(array.real.copy(), "real"), g.constant(array.imag.copy(), "imaginary")


def _as_complex(g: Lowering, node: ir.Node, x: Any) -> _Pair:
    dtype = _REAL[ir.DataType(node.attributes["to"].as_int())]
    real, imaginary = x if isinstance(x, tuple) else (x, g.op.Expand(g.constant(np.zeros(1)), g.op.Shape(x)))
    imaginary.shape = real.shape
    return g.cast(real, dtype), g.cast(imaginary, dtype)


def by_parts(g: Lowering, node: ir.Node, inputs: list[Any]) -> list[tuple[ir.Value, ...]] | None:
    """Lower a node on complex numbers to nodes on their parts; return None if it is not supported."""
    if makes_complex(node):
        return [_as_complex(g, node, *inputs)]
    if node.op_type in _BINARY and all(isinstance(x, tuple) for x in inputs):
        return [_BINARY[node.op_type](g, *inputs)]
    if node.op_type not in _LINEAR or not all(x is None or isinstance(x, ir.Value | tuple) for x in inputs):
        return None
    written = []
    for part in (0, 1):
        chosen = [x[part] if isinstance(x, tuple) else x for x in inputs]
        copy = ir.node(node.op_type, chosen, node.attributes, num_outputs=len(node.outputs))
        written.append(g.append(copy))
    return list(zip(*written, strict=True))
