"""Replacement of imprecise ONNX Runtime kernels where the precision matters.

    Sigmoid -> (Add, Clip, ...) -> Log    =>  1 / (1 + exp(-x)) -> (Add, Clip, ...) -> Log

Its Sigmoid is a polynomial approximation, and 0 below -18: the error of 6e-8 exceeds small probabilities. It
is negligible in a gate, but a logarithm after it returns -inf at -20, where TensorFlow returns -20.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import is_op

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
    waiting, seen = [node for node in graph if is_op(node, "Log")], dict[ir.Node, None]()
    while waiting:
        for value in waiting.pop().inputs:
            node = None if value is None else value.producer()
            if node is None or node in seen or node.graph is not graph:
                continue
            seen[node] = None
            if is_op(node, *_BETWEEN):
                waiting.append(node)
    return [node for node in seen if is_op(node, "Sigmoid") and node.outputs[0].dtype == ir.DataType.FLOAT]


def _sigmoid(node: ir.Node, editor: Editor) -> ir.Value:
    result = node.outputs[0]

    def write(op_type: str, *inputs: ir.Value | None) -> ir.Value:
        return editor.node(op_type, inputs, at=node, like=result)

    one = editor.constant(np.float32(1.0), f"{result.name}:one")
    return write("Reciprocal", write("Add", write("Exp", write("Neg", node.inputs[0])), one))
