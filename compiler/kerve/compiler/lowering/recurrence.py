"""Loops over time steps: `keras.backend.rnn` becomes one Scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import onnx_ir as ir
from keras.src import backend

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import static_shape, symbols_in

__all__ = ["TimeLoop", "over_time", "replacements", "unrolled_backwards"]


def replacements(g: Lowering) -> Iterator[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for functions that recurrent layers call besides `keras.ops`."""
    yield backend, "rnn", _rnn(g, backend.rnn)
    for name in ("gru", "lstm"):
        yield backend, name, _for_gpus


class TimeLoop:
    """A builder of a Scan along axis 1 of `sequences`, [batch, time, ...]."""

    def __init__(self, g: Lowering, sequences: Sequence[ir.Value]) -> None:
        self._g = g
        self._sequences = sequences
        #: One step of each sequence.
        self.steps = [ir.val(f"step_{i}", x.dtype, _without_time(x)) for i, x in enumerate(sequences)]
        self._carried: list[ir.Value] = []
        self._body = ir.Graph([], [], nodes=[], opset_imports={"": g.opset}, name="step")

    def body(self) -> AbstractContextManager[ir.Graph]:
        """Add nodes to the body while the context lasts."""
        return self._g.subgraph(self._body)

    def carry(self, like: ir.Value) -> ir.Value:
        """Add a state with the type and shape of `like`; return its value in the body."""
        self._carried.append(ir.val(f"state_{len(self._carried)}", like.dtype, like.shape))
        return self._carried[-1]

    def run(
        self,
        initial: Sequence[ir.Value],
        following: Sequence[ir.Value],
        outputs: Sequence[ir.Value],
        *,
        backwards: bool = False,
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Create the Scan from the body's next states and outputs.

        Returns the final states, and the outputs of all steps in the order of processing.
        """
        g = self._g
        self._body.inputs.extend([*self._carried, *self.steps])
        with self.body():
            for value in (*following, *outputs):
                self._body.outputs.append(value if self._may_leave(value) else _copy(g, value))
        count = len(self._sequences)
        results = g.ops.Scan(
            *initial,
            *self._sequences,
            body=self._body,
            num_scan_inputs=count,
            scan_input_axes=[1] * count,
            scan_input_directions=[int(backwards)] * count,
            **({"scan_output_axes": [1] * len(outputs)} if outputs else {}),
            _outputs=len(following) + len(outputs),
        )
        results = [results] if isinstance(results, ir.Value) else list(results)
        finals, stacked = results[: len(following)], results[len(following) :]
        for final, state in zip(finals, self._carried, strict=True):
            final.type, final.shape = state.type, state.shape
        for all_steps, output in zip(stacked, outputs, strict=True):
            all_steps.type, all_steps.shape = output.type, _with_time(output, self._sequences[0])
        return finals, stacked

    def _may_leave(self, value: ir.Value) -> bool:
        """Whether a value can be an output of the body: it is computed there and not yet an output."""
        producer = value.producer()
        return producer is not None and producer.graph is self._body and value not in self._body.outputs


def _rnn(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the replacement of `keras.backend.rnn`, with the same arguments."""

    def rnn(step_function: Callable[..., Any], inputs: Any, initial_states: Any, **options: Any) -> Any:
        if symbols_in((inputs, initial_states, options.get("mask"))):
            return g.wrap(over_time(g, step_function, inputs, initial_states, **options))
        return original(step_function, inputs, initial_states, **options)

    return rnn


def over_time(
    g: Lowering,
    step_function: Callable[..., Any],
    inputs: Any,
    initial_states: Any,
    go_backwards: bool = False,
    mask: Any = None,
    zero_output_for_mask: bool = False,
    return_all_outputs: bool = True,
    unroll: bool = False,
    **_: Any,
) -> tuple[ir.Value, ir.Value, Any]:
    """Return the last output, all outputs and the final states.

    Where the mask drops a step, the states are kept, and the output is zero or that of the previous step.
    """
    if mask is not None and zero_output_for_mask and unrolled_backwards(unroll, go_backwards):
        options = {"go_backwards": go_backwards, "mask": mask, "return_all_outputs": return_all_outputs}
        last, outputs, finals = over_time(g, step_function, inputs, initial_states, **options)
        kept = g.to_value(mask)
        last = _choose(g, g.op.Gather(kept, 0, axis=1), last, 0)
        return last, _choose(g, kept, outputs, 0) if return_all_outputs else last, finals
    initial = [g.to_value(state) for state in keras.tree.flatten(initial_states)]
    sequences = [g.to_value(x) for x in keras.tree.flatten(inputs)]
    loop = TimeLoop(g, sequences if mask is None else [*sequences, g.to_value(mask)])
    holds = not return_all_outputs or (mask is not None and not zero_output_for_mask)
    with loop.body():
        before = [loop.carry(state) for state in initial]
        output, after = g.call(
            step_function,
            keras.tree.pack_sequence_as(inputs, loop.steps[: len(sequences)]),
            keras.tree.pack_sequence_as(initial_states, before),
        )
        after = [g.cast(new, _dtype(old)) for new, old in zip(keras.tree.flatten(after), before, strict=True)]
        held = [loop.carry(output)] if holds else []
        if mask is not None:
            kept = loop.steps[-1]
            after = [_choose(g, kept, new, old) for new, old in zip(after, before, strict=True)]
            output = _choose(g, kept, output, 0 if zero_output_for_mask else held[0])
    nothing = [_zeros(g, output, sequences[0]) for _ in held]
    finals, stacked = loop.run(
        [*initial, *nothing],
        [*after, *([output] if holds else [])],
        [output] if return_all_outputs else [],
        backwards=go_backwards,
    )
    last = finals.pop() if holds else g.op.Gather(stacked[0], -1, axis=1)
    return last, stacked[0] if stacked else last, keras.tree.pack_sequence_as(initial_states, finals)


def unrolled_backwards(unroll: bool, go_backwards: bool) -> bool:
    """Whether Keras zeroes the outputs of dropped steps with a mask that it did not reverse.

    Its unrolled loop reverses the steps and the mask that keeps states, but not the mask with which the
    outputs, which are in the order of processing, are zeroed in the end.
    """
    return unroll and go_backwards


def _choose(g: Lowering, kept: ir.Value, new: ir.Value, old: ir.Value | int) -> ir.Value:
    """Return `new` in the rows that are kept, `old` in the others."""
    assert kept.shape is not None
    assert new.shape is not None
    missing = range(len(kept.shape), len(new.shape))
    kept = g.cast(kept, ir.DataType.BOOL)
    return g.op.Where(g.op.Unsqueeze(kept, list(missing)) if missing else kept, new, old)


def _zeros(g: Lowering, like: ir.Value, sequence: ir.Value) -> ir.Value:
    """Return zeros in the shape of a value of the body, with the batch size of `sequence`."""
    dims = [dim for dim in static_shape(like)[1:] if dim is not None]
    if len(dims) < len(static_shape(like)) - 1:
        raise g.refuse(
            f"the shape of its cell's output, {static_shape(like)}, is dynamic beyond the batch",
            "fix the sizes of the model's inputs, except batch and time",
        )
    zero = g.cast(g.constant(0.0, "zero"), _dtype(like))
    return g.op.Expand(zero, g.shape([g.dim(sequence, 0), *dims]))


def _for_gpus(*_: Any, **__: Any) -> Any:
    raise NotImplementedError  # Keras then uses its generic implementation


def _dtype(x: ir.Value) -> ir.DataType:
    assert x.dtype is not None
    return x.dtype


def _without_time(x: ir.Value) -> ir.Shape:
    assert x.shape is not None
    return ir.Shape([x.shape[0], *x.shape[2:]])


def _with_time(x: ir.Value, like: ir.Value) -> ir.Shape:
    assert x.shape is not None
    assert like.shape is not None
    return ir.Shape([x.shape[0], like.shape[1], *x.shape[1:]])


def _copy(g: Lowering, value: ir.Value) -> ir.Value:
    copy = g.op.Identity(value)
    copy.type, copy.shape = value.type, value.shape
    return copy
