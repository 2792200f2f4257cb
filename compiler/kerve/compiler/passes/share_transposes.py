"""Stores a matrix once that is used with its transpose, as the table of a tied embedding is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import perm_of
from kerve.compiler.passes.queries import array_of, dims_of, elements, is_constant, is_op, rank_of

__all__ = ["ShareTransposes", "SplitTransposes"]

#: Matrices of fewer elements are not worth a node.
_LEAST = 1 << 13


class ShareTransposes(ir.passes.InPlacePass):
    """Replace a constant that is the transpose of another one by a Transpose of that.

    ONNX Runtime folds it when it loads the model: the file is smaller, and inference is not slower.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Share the matrices of the model."""
        editor, modified = Editor(model), False
        kept: dict[tuple[ir.DataType | None, bytes, bytes], ir.Value] = {}
        for value in _candidates(model.graph):
            array = array_of(value)
            assert array is not None
            row, column = array[0].tobytes(), array[:, 0].tobytes()
            other = kept.get((value.dtype, column, row))
            reader = next((node for node, _ in value.uses() if node.graph is model.graph), None)
            if other is None or reader is None or not _is_equal(other, array.T):
                kept.setdefault((value.dtype, row, column), value)
                continue
            turned = editor.node("Transpose", (other,), at=reader, like=value, attributes={"perm": (1, 0)})
            value.replace_all_uses_with(turned)
            del model.graph.initializers[str(value.name)]
            modified = True
        return ir.passes.PassResult(model, modified)


class SplitTransposes(ir.passes.InPlacePass):
    """The reverse: fold Transposes of constants into constants, for passes that look for weights."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold the Transposes of the model's constant matrices."""
        editor, modified = Editor(model), False
        for node in list(model.graph):
            value = node.inputs[0] if is_op(node, "Transpose") else None
            if value is not None and is_constant(value) and perm_of(node) == (1, 0):
                editor.replace(node.outputs[0], editor.derive(value, "transposed", np.transpose))
                modified = True
        editor.close()
        return ir.passes.PassResult(model, modified)


def _candidates(graph: ir.Graph) -> list[ir.Value]:
    """Return the matrices whose shape fits another one's transpose; no other elements need to be read."""
    matrices = [
        value
        for value in graph.initializers.values()
        if rank_of(value) == 2
        and elements(value) > _LEAST
        and is_constant(value)
        and not value.is_graph_output()
    ]
    shapes = Counter((value.dtype, *dims_of(value)) for value in matrices)

    def has_counterpart(value: ir.Value) -> bool:
        rows, columns = dims_of(value)
        return shapes[value.dtype, columns, rows] > (rows == columns)

    return list(filter(has_counterpart, matrices))


def _is_equal(constant: ir.Value, array: NDArray[Any]) -> bool:
    own = array_of(constant)
    return own is not None and np.array_equal(own, array)
