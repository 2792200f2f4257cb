"""Bidirectional and TimeDistributed."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering.layers import recurrent
from kerve.compiler.lowering.layers.recurrent_cells import Cells, native_cells
from kerve.compiler.lowering.layers.recurrent_masks import KeptSteps
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

_MERGES = {"ave": keras.ops.mean, "mul": keras.ops.prod, "sum": keras.ops.sum}


@HANDLERS.register("layers.Bidirectional")
def bidirectional(
    g: Lowering,
    layer: keras.layers.Bidirectional,
    sequences: ir.Value,
    initial_state: Any = None,
    mask: Any = None,
    training: bool = False,
) -> Any:
    """Run both directions in one operator where ONNX has one for both cells."""
    cells = _both(layer)
    if cells is None or training:
        return NotImplemented
    kept = None if mask is None else KeptSteps(g, keras.tree.flatten(mask)[0])
    states = [] if initial_state is None else keras.tree.flatten(initial_state)
    initial = [
        g.op.Concat(*(g.op.Unsqueeze(state, [0]) for state in pair), axis=0)
        for pair in zip(states[: cells.states], states[cells.states :], strict=True)
    ]
    steps = recurrent.time_first(g, sequences, kept)
    outputs, last, finals = recurrent.run(g, cells, steps, initial, kept, "bidirectional")
    if not layer.return_sequences:
        pairs = g.op.Transpose(last, perm=[1, 0, 2])
    elif kept is None:
        pairs = g.op.Transpose(outputs, perm=[2, 0, 1, 3])
    else:
        pairs = kept.unpack(outputs, kept.only)
    output = _merge(g, layer.merge_mode, pairs)
    if not layer.return_state:
        return output
    finals = [g.op.Gather(final, direction) for direction in range(2) for final in finals]
    return *(output if layer.merge_mode is None else [output]), *finals


def _both(layer: keras.layers.Bidirectional) -> Cells | None:
    """Return the cells of the two layers if one operator can stand for both."""
    forward, backward = layers = layer.forward_layer, layer.backward_layer
    if any(recurrent.HANDLERS.find(each) is not recurrent.recurrent or each.stateful for each in layers):
        return None
    if forward.go_backwards or not backward.go_backwards:
        return None
    if any(each.zero_output_for_mask != layer.return_sequences for each in layers):
        return None  # Keras sets it so
    cells = [native_cells(each.cell) for each in layers]
    if any(stack is None or len(stack) > 1 for stack in cells):
        return None
    both = Cells([cell for stack in cells if stack for cell in stack])
    return both if both.compatible else None


def _merge(g: Lowering, mode: str | None, pairs: ir.Value) -> Any:
    """Merge what the directions give, [..., 2, units]."""
    assert pairs.shape is not None
    if mode is None:
        return tuple(g.op.Squeeze(one, [-2]) for one in g.ops.Split(pairs, [1, 1], axis=-2, _outputs=2))
    if mode == "concat":
        return g.op.Reshape(pairs, [0] * (len(pairs.shape) - 2) + [2 * int(pairs.shape[-1])])
    return g.call(_MERGES[mode], pairs, axis=-2)
