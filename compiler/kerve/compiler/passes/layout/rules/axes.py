"""Layout rules of operators with an axis or axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import Perm, identity, restrict
from kerve.compiler.passes.layout.placement import Placement, Rule, Slot, stay
from kerve.compiler.passes.layout.rules import elementwise
from kerve.compiler.passes.queries import attribute_int, axes_of, elements, input_of, is_constant, rank_of

__all__ = ["ARG_REDUCTION", "NORMALIZATION", "REDUCTION", "SINGLE_AXIS", "SOFTMAX"]

#: Default values of `axis`.
_DEFAULT_AXIS: Mapping[str, int] = {"Concat": 0, "Split": 0, "TopK": -1, "Softmax": -1, "LogSoftmax": -1}


def _axis(node: ir.Node, rank: int) -> int:
    return attribute_int(node, "axis", _DEFAULT_AXIS[node.op_type]) % rank


def _place_single(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Store all tensors with the rank of the result alike (the others are sizes and counts)."""
    rank = rank_of(node.outputs[0])
    if rank != len(perm) or rank_of(slot.value(node)) != rank:
        return None
    data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    if any(value is None or rank_of(value) != rank for value in data):
        return None
    inputs = [None if is_constant(value) else perm for value in data]
    inputs += [None] * (len(node.inputs) - len(data))
    return Placement(tuple(inputs), (perm,) * len(node.outputs))


def _move_single(node: ir.Node, placement: Placement, editor: Editor) -> None:
    perm = placement.outputs[0]
    assert perm is not None
    if node.op_type == "Concat":
        elementwise.move(node, placement, editor)
    node.attributes["axis"] = ir.AttrInt64("axis", perm.index(_axis(node, len(perm))))


def _place_softmax(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Place as any single axis, with a cost unless it is last: otherwise ONNX Runtime moves the data."""
    placement = _place_single(node, slot, perm)
    if placement is None or perm.index(_axis(node, len(perm))) == len(perm) - 1:
        return placement
    return Placement(placement.inputs, placement.outputs, cost=elements(node.outputs[0]))


def _reduced(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    """Return the axes of a reduction; None if they are not static."""
    if "axis" in node.attributes or node.op_type in ("ArgMax", "ArgMin"):
        return (attribute_int(node, "axis", 0) % rank,)
    axes = axes_of(node, rank, 1)
    if axes == () and not attribute_int(node, "noop_with_empty_axes", 0):
        return identity(rank)
    return axes


def _place_reduction(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Store the result with the remaining axes in their order."""
    rank = rank_of(node.inputs[0])
    axes = None if rank != len(perm) else _reduced(node, rank)
    if axes is None:
        return None
    if attribute_int(node, "keepdims", 1):
        return Placement((perm,) + (None,) * (len(node.inputs) - 1), (perm,))
    if slot.side == "output":
        return None
    left = restrict(perm, set(identity(len(perm))) - set(axes))
    return Placement((perm,) + (None,) * (len(node.inputs) - 1), (left,))


def _move_reduction(node: ir.Node, placement: Placement, editor: Editor) -> None:
    perm = placement.inputs[0]
    assert perm is not None
    axes = _reduced(node, len(perm))
    assert axes is not None
    moved = sorted(perm.index(axis) for axis in axes)
    if input_of(node, 1) is not None:
        node.replace_input_with(1, editor.constant(np.array(moved, dtype=np.int64), "axes"))
    elif "axes" in node.attributes:
        node.attributes["axes"] = ir.AttrInt64s("axes", moved)


def _move_arg_reduction(node: ir.Node, placement: Placement, editor: Editor) -> None:  # noqa: ARG001  # a rule's signature
    perm = placement.inputs[0]
    assert perm is not None
    node.attributes["axis"] = ir.AttrInt64("axis", perm.index(attribute_int(node, "axis", 0) % len(perm)))


def _place_normalization(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Keep the trailing axes that are normalized together in place."""
    rank = rank_of(node.inputs[0])
    if rank != len(perm) or len(node.outputs) != 1 or rank_of(slot.value(node)) != rank:
        return None
    axis = attribute_int(node, "axis", -1) % rank
    if perm[axis:] != tuple(range(axis, rank)):
        return None
    return Placement((perm,) + (None,) * (len(node.inputs) - 1), (perm,))


SINGLE_AXIS = Rule(_place_single, _move_single)
SOFTMAX = Rule(_place_softmax, _move_single)
REDUCTION = Rule(_place_reduction, _move_reduction)
ARG_REDUCTION = Rule(_place_reduction, _move_arg_reduction)
NORMALIZATION = Rule(_place_normalization, stay)
