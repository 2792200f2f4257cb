"""LSTM, GRU, SimpleRNN, and RNN of their cells: one ONNX operator per cell.

Other cells, and activations that ONNX's operators do not support, are replayed (lowering/recurrence.py).
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering.layers.recurrent_cells import Cells, native_cells
from kerve.compiler.lowering.layers.recurrent_masks import SequenceMask
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.recurrence import unrolled_backwards
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS", "run", "time_first"]

HANDLERS = Handlers()

_BEFORE_THE_FIRST = -(2**63)  # end of a backward ONNX Slice over a whole axis


@HANDLERS.register("layers.GRU", "layers.LSTM", "layers.RNN", "layers.SimpleRNN")
def recurrent(
    g: Lowering,
    layer: keras.layers.RNN,
    sequences: ir.Value,
    initial_state: Any = None,
    mask: Any = None,
    training: bool = False,
) -> Any:
    """Lower to one operator per stacked cell; outputs are passed between them time first."""
    cells = native_cells(layer.cell)
    if cells is None or training:
        return NotImplemented
    kept = None if mask is None else SequenceMask(g, keras.tree.flatten(mask)[0])
    if initial_state is None:
        initial_state = g.unwrap(layer.states) if layer.stateful else []
    given = iter(keras.tree.flatten(initial_state))
    steps = time_first(g, sequences, kept)
    states = []
    for cell in cells:
        one = Cells([cell])
        initial = [g.op.Unsqueeze(state, [0]) for state in islice(given, one.states)]
        direction = "reverse" if layer.go_backwards else "forward"
        outputs, last, finals = run(g, one, steps, initial, kept, direction)
        steps = g.op.Squeeze(outputs, [1])
        states.append([g.op.Squeeze(final, [0]) for final in finals])
    if layer.stateful:
        for variable, state in zip(*map(keras.tree.flatten, (layer.states, states)), strict=True):
            variable.assign(g.wrap(state))
    if layer.return_sequences:
        output = _sequences(g, layer, outputs, kept)
    else:
        output = _last(g, layer, g.op.Squeeze(last, [0]), kept)
    if not layer.return_state:
        return output
    return output, *(states if len(cells) > 1 else states[0])


def time_first(g: Lowering, sequences: ir.Value, kept: SequenceMask | None) -> ir.Value:
    """Return sequences as [time, batch, features] for ONNX's operators, steps kept by a mask first."""
    return g.op.Transpose(sequences, perm=[1, 0, 2]) if kept is None else kept.pack(sequences)


def run(
    g: Lowering,
    cells: Cells,
    steps: ir.Value,
    initial: list[ir.Value],
    kept: SequenceMask | None,
    direction: str,
) -> tuple[ir.Value, ir.Value, list[ir.Value]]:
    """Add an operator over `steps`, [time, batch, features], and `initial`, each
    [directions, batch, units].

    Returns all outputs [time, directions, batch, units]; the last output of each row, zero in rows without a
    kept step; and the final states, which are the initial ones in such rows.
    """
    lengths = None if kept is None else kept.lengths
    steps = g.cast(steps, cells.dtype)
    initial = [g.cast(state, cells.dtype) for state in initial]
    outputs, *finals = cells.run(g, steps, lengths, initial, direction)
    last = finals[0]
    if kept is not None and initial:
        finals = [g.op.Where(kept.any, *pair) for pair in zip(finals, initial, strict=True)]
    return outputs, last, finals


def _sequences(
    g: Lowering, layer: keras.layers.RNN, outputs: ir.Value, kept: SequenceMask | None
) -> ir.Value:
    """Return the outputs of one direction in Keras's layout: batch first, in the order of processing."""
    if kept is None:
        outputs = g.op.Squeeze(outputs, [1])
        return g.op.Transpose(_reversed(g, outputs, 0) if layer.go_backwards else outputs, perm=[1, 0, 2])
    skewed = layer.zero_output_for_mask and unrolled_backwards(layer.unroll, layer.go_backwards)
    if layer.zero_output_for_mask and not skewed:
        positions = kept.only
    elif layer.go_backwards:
        positions = kept.next
    else:
        positions = kept.latest
    rows = kept.unpack(outputs, _reversed(g, positions, 1) if layer.go_backwards else positions)
    rows = g.op.Squeeze(rows, [2])
    return g.op.Where(kept.column, rows, 0) if skewed else rows


def _last(g: Lowering, layer: keras.layers.RNN, output: ir.Value, kept: SequenceMask | None) -> ir.Value:
    """Return the last output, or zero where the mask drops the last step and the layer zeroes it."""
    if kept is None or not layer.zero_output_for_mask:
        return output
    return g.op.Where(kept.step(0 if layer.go_backwards else -1), output, 0)


def _reversed(g: Lowering, x: ir.Value, axis: int) -> ir.Value:
    return g.op.Slice(x, [-1], [_BEFORE_THE_FIRST], [axis], [-1])
