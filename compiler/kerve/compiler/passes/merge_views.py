"""Merge sequences of views, which do not move elements in memory, to one Reshape or nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import keeps_order, perm_of
from kerve.compiler.passes.queries import Dim, input_of, is_constant, is_op, rank_of, same_dim, shape_dims

__all__ = ["MergeViews"]

_VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


class MergeViews(ir.passes.InPlacePass):
    """Merge Reshape, Flatten, Squeeze and Unsqueeze; a single Squeeze or Unsqueeze is kept.

    With `transposes`, Transposes that move only axes of size one count, too: only after the layout pass,
    which may remove them altogether.
    """

    def __init__(self, *, transposes: bool = False) -> None:
        super().__init__()
        self._transposes = transposes

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merge in every graph of the model."""
        editor = Editor(model)
        modified = False
        for graph in list(model.graphs()):
            for node in list(graph):
                if self._is_view(node) and not self._is_only_a_step(node):
                    modified |= self._merge(node, editor)
        return ir.passes.PassResult(model, modified)

    def _is_view(self, node: ir.Node) -> bool:
        source = input_of(node, 0)
        if source is None or rank_of(source) is None or rank_of(node.outputs[0]) is None:
            return False
        if is_op(node, "Transpose"):
            return self._transposes and keeps_order(perm_of(node), shape_dims(source))
        return is_op(node, *_VIEWS)

    def _is_only_a_step(self, node: ir.Node) -> bool:
        """Whether all readers of the result are views themselves, which will skip over this one."""
        result = node.outputs[0]
        users = result.consumers()
        return bool(users) and not result.is_graph_output() and all(map(self._is_view, users))

    def _merge(self, node: ir.Node, editor: Editor) -> bool:
        result = node.outputs[0]
        *shown, source = self._origin(node)
        if is_constant(source):
            return False
        before, after = shape_dims(source), shape_dims(result)
        if _is_same(before, after):
            editor.replace(result, source)
            return True
        if len(shown) == 1 and is_op(node, "Reshape", "Squeeze", "Unsqueeze"):
            return False
        shape = _shape(before, after)
        if shape is None:
            return False
        sizes = editor.constant(np.array(shape, dtype=np.int64), "shape")
        inputs = [source, sizes]
        editor.replace(result, editor.node("Reshape", inputs, at=node, like=result))
        return True

    def _origin(self, node: ir.Node) -> list[ir.Value]:
        """Return the output of a view, its input, and the inputs of the views before it."""
        chain: list[ir.Value] = []
        current: ir.Node | None = node
        while current is not None and current.graph is node.graph and self._is_view(current):
            source = current.inputs[0]
            assert source is not None
            chain.append(source)
            current = source.producer()
        return [node.outputs[0], *chain]


def _is_same(before: Sequence[Dim], after: Sequence[Dim]) -> bool:
    """Whether two shapes of the same elements are equal; one unknown size follows from the others."""
    unsure = [pair for pair in zip(before, after, strict=False) if not same_dim(*pair)]
    return (
        len(before) == len(after)
        and len(unsure) <= 1
        and 0 not in before
        and not any(isinstance(a, int) and isinstance(b, int) for a, b in unsure)
    )


def _shape(before: Sequence[Dim], after: Sequence[Dim]) -> list[int] | None:
    """Return a Reshape's target: numbers, 0 where a size is copied, at most one -1; None if impossible."""
    shape = []
    for axis, dim in enumerate(after):
        if isinstance(dim, int):
            shape.append(dim)
        elif axis < len(before) and same_dim(before[axis], dim):
            shape.append(0)
        else:
            shape.append(-1)
    if shape.count(-1) > 1 or (0 in after):
        return None
    return shape
