"""Weights in bfloat16; the arithmetic stays in float32.

ONNX Runtime has no bfloat16 kernels for convolutions, matrices or recurrence on a CPU, and few elsewhere.
So the file has the weights in bfloat16, half the size, each followed by a Cast that is folded when the model
is loaded: it runs wherever the float32 model does, and as fast.
"""

from __future__ import annotations

import ml_dtypes
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import dims_of, is_constant

__all__ = ["narrow"]


def narrow(model: ir.Model) -> None:
    """Convert the weights of a model in place: its float32 constants with two or more dimensions."""
    editor = Editor(model)
    for value in list(model.graph.initializers.values()):
        if value.dtype != ir.DataType.FLOAT or not is_constant(value) or len(dims_of(value)) < 2:
            continue
        readers = [node for node, _ in value.uses()]
        if not readers:
            continue
        short = editor.derive(value, "bfloat16", lambda array: array.astype(ml_dtypes.bfloat16))
        wide = editor.node(
            "Cast",
            (short,),
            at=next((node for node in readers if node.graph is model.graph), model.graph[0]),
            attributes={"to": int(ir.DataType.FLOAT)},
            dtype=ir.DataType.FLOAT,
            shape=value.shape,
        )
        value.replace_all_uses_with(wide)
    editor.close()
