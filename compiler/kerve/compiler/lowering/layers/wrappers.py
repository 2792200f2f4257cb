"""Bidirectional and TimeDistributed."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering.layers import recurrent
from kerve.compiler.lowering.layers.recurrent_cells import Cells, native_cells
from kerve.compiler.lowering.layers.recurrent_masks import SequenceMask
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import rank, reshape, sizes
from kerve.compiler.lowering.recurrence import TimeLoop
from kerve.compiler.lowering.registry import Handlers, is_amended

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
    """Run both directions in one operator if ONNX has one for both cells."""
    cells = _both(layer)
    if cells is None or training or (mask is not None and layer.backward_layer.unroll):
        return NotImplemented
    kept = None if mask is None else SequenceMask(g, keras.tree.flatten(mask)[0])
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
    """Return the cells of the two layers if one operator can run both."""
    forward, backward = layers = layer.forward_layer, layer.backward_layer
    if any(recurrent.HANDLERS.find(each) is not recurrent.recurrent or each.stateful for each in layers):
        return None
    if forward.go_backwards or not backward.go_backwards:
        return None
    if any(each.zero_output_for_mask != layer.return_sequences for each in layers):
        return None  # Keras always sets it this way
    cells = [native_cells(each.cell) for each in layers]
    if any(stack is None or len(stack) > 1 for stack in cells):
        return None
    both = Cells([cell for stack in cells if stack for cell in stack])
    return both if both.compatible else None


def _merge(g: Lowering, mode: str | None, pairs: ir.Value) -> Any:
    """Merge the outputs of the directions, [..., 2, units]."""
    if mode is None:
        return tuple(g.op.Squeeze(one, [-2]) for one in g.ops.Split(pairs, [1, 1], axis=-2, _outputs=2))
    if mode == "concat":
        return g.op.Reshape(pairs, [0] * (rank(pairs) - 2) + [-1])
    return g.call(_MERGES[mode], pairs, axis=-2)


@HANDLERS.register("layers.TimeDistributed")
def time_distributed(
    g: Lowering,
    layer: keras.layers.TimeDistributed,
    inputs: ir.Value,
    mask: Any = None,
    training: bool = False,
) -> ir.Value:
    """Run the layer once on all steps, merged into the batch, if it treats rows independently.

    Keras's own layers do. Others are not known to: they run in a Scan, step by step as in Keras.
    """
    masked = mask is not None and layer.layer._call_has_mask_arg
    options = {"training": training} if layer.layer._call_has_training_arg else {}
    sequences = [inputs, mask] if masked else [inputs]

    def run(x: ir.Value, *masks: ir.Value) -> ir.Value:
        value: ir.Value = g.call(layer.layer, x, **options, **({"mask": masks[0]} if masks else {}))
        return value

    if _treats_rows_alike(layer.layer):
        output = run(*(reshape(g, x, [-1, *sizes(g, x)[2:]]) for x in sequences))
        return reshape(g, output, [*sizes(g, inputs)[:2], *sizes(g, output)[1:]])
    loop = TimeLoop(g, sequences)
    with loop.body():
        output = run(*loop.steps)
    _, (stacked,) = loop.run([], [], [output])
    return stacked


def _treats_rows_alike(layer: keras.Layer) -> bool:
    """Whether a row of the layer's output depends only on that row of its input."""
    parts = list(layer._flatten_layers())
    operations = [op for part in parts for op in getattr(part, "operations", ())]
    return all(
        isinstance(part, keras.Layer)
        and type(part).__module__.startswith("keras.src.")
        and not is_amended(part)
        and not isinstance(part, keras.layers.Lambda)
        and not getattr(part, "stateful", False)
        for part in [*parts, *operations]
    )
