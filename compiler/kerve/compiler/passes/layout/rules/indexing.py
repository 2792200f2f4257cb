"""Layout rules of Slice, Pad, Tile, Expand, Gather, Shape and Size."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import Perm, identity
from kerve.compiler.passes.layout.placement import Placement, Rule, Slot, stay
from kerve.compiler.passes.layout.rules.elementwise import operand, spread
from kerve.compiler.passes.queries import (
    array_of,
    attribute_int,
    axes_of,
    dims_of,
    input_of,
    is_constant,
    rank_of,
)

__all__ = ["EXPAND", "GATHER", "PAD", "SHAPE", "SIZE", "SLICE", "TILE"]


def _alike(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Store the first input and the output alike."""
    ranks = {rank_of(node.inputs[0]), rank_of(node.outputs[0]), len(perm)}
    if slot.index != 0 or len(ranks) != 1 or is_constant(node.inputs[0]):
        return None
    return Placement((perm,) + (None,) * (len(node.inputs) - 1), (perm,))


def _perm(placement: Placement) -> Perm:
    perm = placement.inputs[0]
    assert perm is not None
    return perm


# -- Slice -------------------------------------------------------------------------------------------


def _place_slice(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    return _alike(node, slot, perm) if _sliced(node, len(perm)) is not None else None


def _move_slice(node: ir.Node, placement: Placement, editor: Editor) -> None:
    perm = _perm(placement)
    axes = _sliced(node, len(perm))
    starts = node.inputs[1]
    assert axes is not None
    assert starts is not None
    kind = np.int64 if starts.dtype is None else starts.dtype.numpy()  # axes have the type of the starts
    node.resize_inputs(max(len(node.inputs), 4))
    node.replace_input_with(3, editor.constant(np.array([perm.index(a) for a in axes], dtype=kind), "axes"))


def _sliced(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    """Return the axes of a Slice, in the order of its other inputs; None if they are not static."""
    starts = node.inputs[1]
    if starts is None or rank_of(starts) != 1:
        return None
    count = dims_of(starts)[0]
    axes = axes_of(node, rank, 3, default=identity(count or 0))
    return axes if axes else None


# -- Pad ---------------------------------------------------------------------------------------------


def _place_pad(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    static = axes_of(node, len(perm), 3) if input_of(node, 3) is not None else array_of(node.inputs[1])
    return None if static is None else _alike(node, slot, perm)


def _move_pad(node: ir.Node, placement: Placement, editor: Editor) -> None:
    perm = _perm(placement)
    if input_of(node, 3) is not None:
        axes = axes_of(node, len(perm), 3)
        assert axes is not None
        moved = [perm.index(axis) for axis in axes]
        node.replace_input_with(3, editor.constant(np.array(moved, dtype=np.int64), "axes"))
        return
    pads = array_of(node.inputs[1])
    assert pads is not None
    stored = pads.reshape(2, len(perm))[:, list(perm)].reshape(-1)
    node.replace_input_with(1, editor.constant(stored, "pads"))


# -- Tile and Expand ---------------------------------------------------------------------------------


def _place_tile(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    return _alike(node, slot, perm) if array_of(node.inputs[1]) is not None else None


def _move_tile(node: ir.Node, placement: Placement, editor: Editor) -> None:
    repeats = array_of(node.inputs[1])
    assert repeats is not None
    node.replace_input_with(1, editor.constant(repeats[list(_perm(placement))], "repeats"))


def _place_expand(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Place the operand as that of an elementwise operator; a shape of full length is permuted."""
    value, shape = node.inputs
    if (
        value is None
        or shape is None
        or rank_of(node.outputs[0]) != len(perm)
        or rank_of(slot.value(node)) != len(perm)
    ):
        return None
    if array_of(shape) is None and (rank_of(shape) != 1 or dims_of(shape)[0] != len(perm)):
        return None
    own = None if is_constant(value) else operand(value, perm)
    if own is None and not is_constant(value):
        return None
    return Placement((own, None), (perm,))


def _move_expand(node: ir.Node, placement: Placement, editor: Editor) -> None:
    perm = placement.outputs[0]
    value, shape = node.inputs
    assert perm is not None
    assert value is not None
    assert shape is not None
    node.replace_input_with(0, spread(value, perm, placement.inputs[0], node, editor))
    sizes = array_of(shape)
    if sizes is not None:
        full = np.concatenate([np.ones(len(perm) - sizes.size, dtype=np.int64), sizes])
        node.replace_input_with(1, editor.constant(full[list(perm)], "shape"))
    else:
        places = editor.constant(np.array(perm, dtype=np.int64), "axes")
        moved = editor.node("Gather", [shape, places], at=node, like=shape)
        node.replace_input_with(1, moved)


# -- Gather ------------------------------------------------------------------------------------------


def _place_gather(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Put the axes of the indices in the place of the gathered axis."""
    rank, index_rank = rank_of(node.inputs[0]), rank_of(node.inputs[1])
    if slot.index != 0 or rank is None or index_rank is None or is_constant(node.inputs[0]):
        return None
    if index_rank == 1:
        return _alike(node, slot, perm)
    if slot.side == "output" or len(perm) != rank:
        return None
    axis = attribute_int(node, "axis", 0) % rank
    outer: list[int] = []
    for source in perm:
        if source == axis:
            outer.extend(range(axis, axis + index_rank))
        else:
            outer.append(source if source < axis else source + index_rank - 1)
    return Placement((perm, None), (tuple(outer),))


def _move_gather(node: ir.Node, placement: Placement, editor: Editor) -> None:  # noqa: ARG001  # a rule's signature
    perm = _perm(placement)
    node.attributes["axis"] = ir.AttrInt64("axis", perm.index(attribute_int(node, "axis", 0) % len(perm)))


# -- Shape -------------------------------------------------------------------------------------------


def _place_shape(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:  # noqa: ARG001  # a rule's signature
    """Place the input in any layout: sizes do not require moving data."""
    return Placement((perm,), (None,)) if slot.side == "input" else None


def _move_shape(node: ir.Node, placement: Placement, editor: Editor) -> None:
    perm = _perm(placement)
    start, end, _ = slice(attribute_int(node, "start", 0), attribute_int(node, "end", len(perm))).indices(
        len(perm)
    )
    wanted = [perm.index(axis) for axis in range(start, end)]
    if len(wanted) == 1:
        node.attributes["start"] = ir.AttrInt64("start", wanted[0])
        node.attributes["end"] = ir.AttrInt64("end", wanted[0] + 1)
        return
    value, sizes = node.inputs[0], node.outputs[0]
    every = editor.node("Shape", [value], at=node, dtype=ir.DataType.INT64, shape=ir.Shape([len(perm)]))
    places = editor.constant(np.array(wanted, dtype=np.int64), "axes")
    editor.replace(
        sizes, editor.node("Gather", [every, places], at=node, dtype=ir.DataType.INT64, shape=sizes.shape)
    )


SLICE = Rule(_place_slice, _move_slice)
PAD = Rule(_place_pad, _move_pad)
TILE = Rule(_place_tile, _move_tile)
EXPAND = Rule(_place_expand, _move_expand)
GATHER = Rule(_place_gather, _move_gather)
SHAPE = Rule(_place_shape, _move_shape)
SIZE = Rule(_place_shape, stay)
