"""Replacement of imprecise ONNX Runtime kernels where the precision matters.

    Sigmoid -> (Add, Clip, ...) -> Log    =>  1 / (1 + exp(-x)) -> (Add, Clip, ...) -> Log

Its Sigmoid is a polynomial approximation, and 0 below -18: the error of 6e-8 exceeds small probabilities. It
is negligible in a gate, but a logarithm after it returns -inf at -20, where TensorFlow returns -20.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import is_op
from kerve.compiler.traversal import reachable

__all__ = ["PreciseKernels"]

#: Operators that may occur between a probability and its logarithm, and keep small numbers small.
_BETWEEN = (
    *("Add", "Cast", "Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "Mul", "Reshape"),
    *("Slice", "Squeeze", "Transpose", "Unsqueeze", "Where"),
)


class PreciseKernels(ir.passes.InPlacePass):
    """Replace operators with imprecise kernels by precise ones where it matters."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in every graph of the model; a Sigmoid that is an output stays one."""
        editor, modified = Editor(model), False
        for graph in list(model.graphs()):
            for node in _behind_logarithms(graph):
                modified = True
                written = _sigmoid(node, editor)
                for use in list(node.outputs[0].uses()):
                    use.node.replace_input_with(use.idx, written)
        return ir.passes.PassResult(model, modified)


def _behind_logarithms(graph: ir.Graph) -> list[ir.Node]:
    logarithms = [node for node in graph if is_op(node, "Log")]
    behind = [node for node in reachable(logarithms, _logarithm_of) if node.graph is graph]
    return [node for node in behind if is_op(node, "Sigmoid") and node.outputs[0].dtype == ir.DataType.FLOAT]


def _logarithm_of(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the producers of the inputs of a Log, or of an operator between a Log and its argument."""
    if is_op(node, "Log", *_BETWEEN):
        yield from filter(None, (value.producer() for value in node.inputs if value is not None))


def _sigmoid(node: ir.Node, editor: Editor) -> ir.Value:
    result = node.outputs[0]

    def write(op_type: str, *inputs: ir.Value | None) -> ir.Value:
        return editor.node(op_type, inputs, at=node, like=result)

    one = editor.constant(np.float32(1.0), f"{result.name}:one")
    return write("Reciprocal", write("Add", write("Exp", write("Neg", node.inputs[0])), one))
