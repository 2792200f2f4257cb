"""Insert no-op Reshapes before kernels of ONNX Runtime (1.32) that would crash the process.

GRU, LSTM, InstanceNormalization    on empty tensors: abort, or read out of bounds. A Reshape with -1 raises
                                    an error for the caller instead if another size is zero.
Transpose -> MatMul (float16)       with the first axis moved: the Transpose is fused into the MatMul, whose
                                    float16 constant then crashes on loading. A Reshape prevents the fusion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import perm_of
from kerve.compiler.passes.queries import BATCH, Dim, array_of, input_of, is_op, rank_of, shape_dims

__all__ = ["ShieldKernels"]

_NEED_ELEMENTS = ("GRU", "InstanceNormalization", "LSTM")


class ShieldKernels(ir.passes.InPlacePass):
    """Insert a Reshape to the same shape where an input, or a fusion, would crash the process."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Shield the kernels in every graph of the model, unless they already are."""
        editor = Editor(model)
        modified = False
        for graph in list(model.graphs()):
            for node in list(graph):
                if is_op(node, *_NEED_ELEMENTS):
                    modified |= _shield(node, _refusing_none(node.inputs[0]), editor)
                elif is_op(node, "MatMul") and _would_fuse(node.inputs[0]):
                    modified |= _shield(node, [0] * (rank_of(node.inputs[0]) or 0), editor)
        return ir.passes.PassResult(model, modified)


def _shield(node: ir.Node, target: Sequence[int], editor: Editor) -> bool:
    value = node.inputs[0]
    if value is None or not target or _is_shield(value.producer(), target):
        return False
    sizes = editor.constant(np.array(target, dtype=np.int64), "shape")
    node.replace_input_with(0, editor.node("Reshape", [value, sizes], at=node, like=value))
    return True


def _is_shield(node: ir.Node | None, target: Sequence[int]) -> bool:
    if node is None or not is_op(node, "Reshape"):
        return False
    shape = array_of(input_of(node, 1))
    return shape is not None and shape.tolist() == list(target)


def _refusing_none(value: ir.Value | None) -> list[int]:
    """Return the target of a no-op Reshape that fails for empty tensors; [] if there is none."""
    if value is None or rank_of(value) is None:
        return []
    dims = shape_dims(value)
    known = next((axis for axis, dim in enumerate(dims) if isinstance(dim, int) and dim > 0), None)
    if known is None or not any(map(_may_be_zero, dims)):
        return []
    return [-1 if axis == known else 0 for axis in range(len(dims))]


def _may_be_zero(dim: Dim) -> bool:
    return dim == 0 if isinstance(dim, int) else dim.value != BATCH


def _would_fuse(value: ir.Value | None) -> bool:
    """Whether a float16 value is a Transpose that ONNX Runtime would fuse into a MatMul, through Casts."""
    if value is None or value.dtype != ir.DataType.FLOAT16:
        return False
    node = value.producer()
    while is_op(node, "Cast"):
        assert node is not None
        source = node.inputs[0]
        node = None if source is None else source.producer()
    return node is not None and is_op(node, "Transpose") and perm_of(node)[0] != 0
