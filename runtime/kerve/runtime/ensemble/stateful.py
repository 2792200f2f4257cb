"""Steps of an ensemble whose members keep the states of sequences."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kerve.runtime.datatypes import Array
from kerve.runtime.errors import Code, error_for
from kerve.runtime.protocol.tensors import from_raw, to_raw
from kerve.runtime.sequences.plan import Plan, Value
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.sequences.table import Sequences
from kerve.runtime.signature import Signature
from kerve.runtime.transport.base import Batch, Inbox, Queue

__all__ = ["SequenceHost", "Stateful", "compute_in_sequence"]


@dataclass(frozen=True)
class SequenceHost:
    """The loaded version of a member that holds a sequence's states."""

    plan: Plan
    sequences: Sequences
    # The signature of its graph, including states and controls.
    signature: Signature
    queue: Queue


@dataclass(frozen=True)
class Stateful:
    """How to compute a step whose member keeps states."""

    plan: Plan
    # Returns the version to which a sequence is pinned: the one where it began.
    host: Callable[[SequencePosition], SequenceHost]
    # Creates an inbox for one answer.
    inbox: Callable[[], Inbox]


def compute_in_sequence(
    host: SequenceHost,
    position: SequencePosition,
    given: Mapping[str, Array],
    requested: list[str],
    batch: Batch,
    inbox: Inbox,
) -> tuple[Mapping[str, Array], int]:
    """Wait for a request's turn in its sequence, and compute it with the states; return the outputs and the
    compute time in nanoseconds.

    `given`: the inputs from other steps and the client; `inbox`: used only for this answer. Raises
    ServingError if its turn does not come or the computation fails.
    """
    plan, rows = host.plan, batch.rows
    timeout = None if batch.deadline is None else max(0.0, batch.deadline - time.monotonic())
    with host.sequences.turn(position, lambda: plan.begin(rows), timeout) as turn:
        inputs = dict(given)
        for name, value in plan.fed(position, turn.states, rows).items():
            if name not in given:
                plan.check_rows(position, value, rows)
                datatype = host.signature.input(name).datatype
                inputs[name] = from_raw(f"input {name!r}", datatype, value.shape, value.raw)
        outputs = dict.fromkeys((*requested, *(state.output for state in plan.states)))
        host.queue.ask(inputs, list(outputs), batch, inbox, None)
        (answer,) = inbox.take() or ()
        if answer.outputs is None:
            raise error_for(Code(answer.code), answer.message)
        turn.states = {
            state.input.name: detached(answer.outputs[state.output], state.input.datatype)
            for state in plan.states
        }
    return answer.outputs, answer.nanoseconds


def detached(array: Array, datatype: str) -> Value:
    """Return a copy of a state: the array may be a view of a batch."""
    return Value(array.shape, to_raw(array, datatype))
