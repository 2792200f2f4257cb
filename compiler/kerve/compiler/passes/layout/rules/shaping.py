"""Layout rules of Reshape, Squeeze and Unsqueeze."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import Perm, is_identity, restrict
from kerve.compiler.passes.layout.placement import Placement, Rule, Slot
from kerve.compiler.passes.layout.rules import absorption
from kerve.compiler.passes.layout.rules.grouping import Group, group
from kerve.compiler.passes.queries import array_of, axes_of, dims_of, rank_of, shape_dims

__all__ = ["RESHAPE", "SQUEEZE"]


def _place_reshape(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Keep axes that are split or merged consecutive; otherwise weights must absorb the change."""
    value, other = node.inputs[0], node.outputs[0]
    if slot.index != 0 or value is None or rank_of(value) is None or rank_of(other) is None:
        return None
    groups = group(shape_dims(value), shape_dims(other))
    if groups is None:
        return None
    before, after = shape_dims(value), shape_dims(other)
    if slot.side == "input":
        carried = _carry(perm, groups, len(after))
    else:
        carried = _carry(perm, [(outs, ins) for ins, outs in groups], len(before))
    if carried is None:
        return absorption.place(node, slot, perm)
    inner, outer = (perm, carried) if slot.side == "input" else (carried, perm)
    return Placement((inner, None), (outer,)) if _can_say_shape(node, inner, outer) else None


def _move_reshape(node: ir.Node, placement: Placement, editor: Editor) -> None:
    absorption.move(node, placement, editor)
    dims = dims_of(node.outputs[0])  # already those of the new layout
    if dims.count(None) <= 1:
        shape = np.array([-1 if size is None else size for size in dims], dtype=np.int64)
        node.replace_input_with(1, editor.constant(shape, "shape"))
        node.attributes.pop("allowzero", None)


def _can_say_shape(node: ir.Node, inner: Perm, outer: Perm) -> bool:
    """Whether the shape after the Reshape can be expressed in the other layout."""
    if dims_of(node.outputs[0]).count(None) <= 1:
        return True
    shape = array_of(node.inputs[1])
    copied = [] if shape is None else np.flatnonzero(shape == 0).tolist()  # sizes copied from the input
    return is_identity(outer) and all(inner[axis] == axis for axis in copied)


def _carry(perm: Perm, groups: Sequence[Group], rank: int) -> Perm | None:
    """Return the order of the `rank` axes on the far side of a Reshape; None if it splits a group.

    Axes in no group are of size one, possibly only by implication.
    """
    near, far = ({axis for group in groups for axis in group[side]} for side in (0, 1))
    stored = [axis for axis in perm if axis in near]
    by_first = {ins[0]: (ins, outs) for ins, outs in groups}
    order: list[int] = []
    while stored:
        ins, outs = by_first.get(stored[0], ((), ()))
        if not ins or tuple(stored[: len(ins)]) != ins:
            return None
        del stored[: len(ins)]
        order.extend(outs)
    for axis in range(rank):
        if axis not in far:
            order.insert(axis, axis)
    return tuple(order)


# -- Squeeze and Unsqueeze ---------------------------------------------------------------------------


def _place_squeeze(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Keep the order of the remaining axes; axes of size one are inserted or removed anywhere."""
    if slot.index != 0:
        return None
    wide = Slot("input" if node.op_type == "Squeeze" else "output", 0)
    rank = rank_of(wide.value(node))
    axes = None if rank is None else axes_of(node, rank, 1)
    if rank is None or not axes:
        return None
    kept = sorted(set(range(rank)) - set(axes))
    if slot == wide:
        full, narrow = perm, restrict(perm, kept)
    else:
        order = [kept[axis] for axis in perm]
        for axis in sorted(axes):
            order.insert(axis, axis)
        full, narrow = tuple(order), perm
    return Placement((full, None), (narrow,)) if wide.side == "input" else Placement((narrow, None), (full,))


def _move_squeeze(node: ir.Node, placement: Placement, editor: Editor) -> None:
    full = placement.inputs[0] if node.op_type == "Squeeze" else placement.outputs[0]
    assert full is not None
    axes = axes_of(node, len(full), 1)
    assert axes is not None
    moved = sorted(full.index(axis) for axis in axes)
    node.replace_input_with(1, editor.constant(np.array(moved, dtype=np.int64), "axes"))


RESHAPE = Rule(_place_reshape, _move_reshape)
SQUEEZE = Rule(_place_squeeze, _move_squeeze)
