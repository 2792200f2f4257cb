"""ConvLSTM: one convolution of the inputs of all steps, and a loop with one convolution of the state.

Keras convolves each gate separately, and the inputs step by step.
"""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir
from keras.src.layers.rnn.conv_lstm import ConvLSTM, ConvLSTMCell

from kerve.compiler.activations import keras2_hard_sigmoid
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.convolution import conv_form, convolve
from kerve.compiler.lowering.ops.operands import reshape, sizes
from kerve.compiler.lowering.recurrence import over_time
from kerve.compiler.lowering.registry import Handlers, is_amended
from kerve.compiler.lowering.windows import Windows, from_channels_first, to_channels_first

__all__ = ["HANDLERS"]

HANDLERS = Handlers()

_GATES = 4  # input, forget, carry, output: Keras's order in the kernels

#: Activations that do not depend on the channel axis, as a softmax does.
_POINTWISE = {
    keras2_hard_sigmoid,
    *(
        getattr(module, name)
        for name in (
            *("elu", "gelu", "hard_sigmoid", "leaky_relu", "linear", "relu", "relu6"),
            *("selu", "sigmoid", "silu", "softplus", "softsign", "tanh"),
        )
        for module in (keras.activations, keras.ops)
        if hasattr(module, name)
    ),
}


@HANDLERS.register("layers.ConvLSTM1D", "layers.ConvLSTM2D", "layers.ConvLSTM3D")
def conv_lstm(
    g: Lowering,
    layer: ConvLSTM,
    sequences: ir.Value,
    initial_state: Any = None,
    mask: Any = None,
    training: bool = False,
) -> Any:
    """Lower to a Scan over the gates of the inputs, with states in channels-first layout."""
    cell = layer.cell
    if (
        training
        or type(cell) is not ConvLSTMCell
        or is_amended(cell)
        or not {cell.activation, cell.recurrent_activation} <= _POINTWISE
    ):
        return NotImplemented
    gates = _of_inputs(g, cell, sequences)
    if initial_state is None:
        initial_state = layer.states if layer.stateful else _zeros(g, cell, gates)
    initial = [
        to_channels_first(g, g.cast_like(g.to_value(state), gates), cell.data_format)
        for state in keras.tree.flatten(initial_state)
    ]
    last, outputs, finals = over_time(
        g,
        lambda step, states: _step(g, cell, g.unwrap(step), *g.unwrap(states)),
        gates,
        initial,
        go_backwards=layer.go_backwards,
        mask=mask,
        zero_output_for_mask=layer.zero_output_for_mask,
        return_all_outputs=layer.return_sequences,
        unroll=layer.unroll,
    )
    states = [from_channels_first(g, final, cell.data_format) for final in finals]
    if layer.stateful:
        for variable, state in zip(keras.tree.flatten(layer.states), states, strict=True):
            variable.assign(g.wrap(state))
    output = (
        _frames(g, cell, outputs)
        if layer.return_sequences
        else from_channels_first(g, last, cell.data_format)
    )
    return (output, *states) if layer.return_state else output


def _of_inputs(g: Lowering, cell: ConvLSTMCell, sequences: ir.Value) -> ir.Value:
    """Return the input contributions to the gates of all steps, [batch, time, 4 filters, *spatial]."""
    frames = reshape(g, sequences, [-1, *sizes(g, sequences)[2:]])
    kernel = g.weight(cell.kernel, conv_form, role="conv")
    bias = g.weight(cell.bias) if cell.use_bias else None
    windows = Windows.of(cell.kernel_size, cell.strides, cell.padding, cell.dilation_rate)
    frames = to_channels_first(g, frames, cell.data_format)
    gates = convolve(g, frames, kernel, bias, windows, "channels_first")
    return reshape(g, gates, [*sizes(g, sequences)[:2], *sizes(g, gates)[1:]])


def _zeros(g: Lowering, cell: ConvLSTMCell, gates: ir.Value) -> list[ir.Value]:
    """Return states of zeros in Keras's layout."""
    batch, _, _, *space = sizes(g, gates)
    features = (*space, cell.filters) if cell.data_format == "channels_last" else (cell.filters, *space)
    zero = g.cast_like(g.constant(0.0, "zero"), gates)
    return [g.op.Expand(zero, g.shape([batch, *features]))] * 2


def _step(
    g: Lowering, cell: ConvLSTMCell, gates: ir.Value, h: ir.Value, c: ir.Value
) -> tuple[ir.Value, list[ir.Value]]:
    """Return the output and the states after one step, all [batch, filters, *spatial]."""
    kernel = g.weight(cell.recurrent_kernel, conv_form, role="conv")
    windows = Windows.of(cell.kernel_size, 1, "same")
    gates = g.op.Add(gates, convolve(g, h, kernel, None, windows, "channels_first"))
    i, f, x, o = g.ops.Split(gates, axis=1, num_outputs=_GATES, _outputs=_GATES)
    i, f, o = (g.call(cell.recurrent_activation, gate) for gate in (i, f, o))
    c = g.op.Add(g.op.Mul(f, c), g.op.Mul(i, g.call(cell.activation, x)))
    h = g.op.Mul(o, g.call(cell.activation, c))
    return h, [h, c]


def _frames(g: Lowering, cell: ConvLSTMCell, outputs: ir.Value) -> ir.Value:
    """Return [batch, time, filters, *spatial] in Keras's layout."""
    if cell.data_format == "channels_first":
        return outputs
    rank = cell.rank + 3
    return g.op.Transpose(outputs, perm=[0, 1, *range(3, rank), 2])
