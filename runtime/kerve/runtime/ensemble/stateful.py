"""Steps of an ensemble whose members keep the states of sequences."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kerve.runtime.datatypes import Array
from kerve.runtime.errors import Code, error_for
from kerve.runtime.protocol.tensors import from_raw, to_raw
from kerve.runtime.sequences.plan import Plan, Value
from kerve.runtime.sequences.request import Asked
from kerve.runtime.sequences.table import Sequences
from kerve.runtime.signature import Signature
from kerve.runtime.transport.base import Batch, Inbox, Queue

__all__ = ["Home", "Stateful", "compute_in_sequence"]


@dataclass(frozen=True)
class Home:
    """The load of a member where a sequence is computed."""

    plan: Plan
    sequences: Sequences
    # All that its graph takes and gives.
    signature: Signature
    queue: Queue


@dataclass(frozen=True)
class Stateful:
    """How a step is computed whose member keeps states."""

    plan: Plan
    # Where a sequence goes on: it stays where it began.
    home: Callable[[Asked], Home]
    # Makes a place for one answer.
    inbox: Callable[[], Inbox]


def compute_in_sequence(
    home: Home, asked: Asked, given: Mapping[str, Array], wanted: list[str], batch: Batch, inbox: Inbox
) -> tuple[Mapping[str, Array], int]:
    """Wait for the turn of a request in its sequence, and compute it with the states; return the outputs, and
    the nanoseconds that it took.

    `given`: what comes of other steps and of the client; `inbox`: for this answer alone. Raises ServingError
    when its turn never comes, or it cannot be computed.
    """
    plan, rows = home.plan, batch.rows
    timeout = None if batch.deadline is None else max(0.0, batch.deadline - time.monotonic())
    with home.sequences.turn(asked, lambda: plan.begin(rows), timeout) as turn:
        inputs = dict(given)
        for name, value in plan.fed(asked, turn.states, rows).items():
            if name not in given:
                plan.check_rows(asked, value, rows)
                datatype = home.signature.input(name).datatype
                inputs[name] = from_raw(f"input {name!r}", datatype, value.shape, value.raw)
        outputs = dict.fromkeys((*wanted, *(state.output for state in plan.states)))
        home.queue.ask(inputs, list(outputs), batch, inbox, None)
        (answer,) = inbox.take() or ()
        if answer.outputs is None:
            raise error_for(Code(answer.code), answer.message)
        turn.states = {
            state.input.name: kept(answer.outputs[state.output], state.input.datatype)
            for state in plan.states
        }
    return answer.outputs, answer.nanoseconds


def kept(array: Array, datatype: str) -> Value:
    """Return a state as it is kept, which is no view of a batch."""
    return Value(array.shape, to_raw(array, datatype))
