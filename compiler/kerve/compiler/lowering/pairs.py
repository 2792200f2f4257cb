"""Complex numbers in what tf2onnx writes: pairs of real tensors, of which ONNX knows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["by_parts"]

#: Operators of ONNX that move or add up numbers, whatever they are.
_LINEAR = frozenset({
    "Add", "Concat", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Neg", "ReduceMean", "ReduceSum",
    "Reshape", "Slice", "Split", "Squeeze", "Sub", "Sum", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip


def by_parts(g: Lowering, node: ir.Node, inputs: list[Any]) -> list[tuple[ir.Value, ...]] | None:
    """Write a node that does the same with both parts of complex numbers, once for each; None for another."""
    if node.op_type not in _LINEAR or not all(x is None or isinstance(x, ir.Value | tuple) for x in inputs):
        return None
    written = []
    for part in (0, 1):
        chosen = [x[part] if isinstance(x, tuple) else x for x in inputs]
        copy = ir.node(node.op_type, chosen, node.attributes, num_outputs=len(node.outputs))
        written.append(g.append(copy))
    return list(zip(*written, strict=True))
