"""How a model's sequences are computed: its states, which are fed back, and its control inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.datatypes import BYTES, DATATYPES
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.tensors import object_array, to_raw
from kerve.runtime.sequences.request import Identity, SequencePosition, position_of
from kerve.runtime.signature import Signature, TensorSpec

__all__ = ["Control", "Kind", "Plan", "State", "Value"]

Kind = pb.ModelSequenceBatching.Control


@dataclass(frozen=True)
class Value:
    """A tensor in the protocol's raw form."""

    shape: tuple[int, ...]
    raw: bytes


@dataclass(frozen=True)
class State:
    """A state tensor: `output` of one request is fed to `input` of the next."""

    input: TensorSpec
    output: str
    # The value for the first request; of one row if the model is batched.
    initial: Value

    def begin(self, rows: int, *, batched: bool) -> Value:
        """Return the value for the first request of a sequence."""
        if not batched:
            return self.initial
        return Value((rows, *self.initial.shape), self.initial.raw * rows)


@dataclass(frozen=True)
class Control:
    """An input that tells the model the request's position in its sequence."""

    input: TensorSpec
    kind: Kind.Kind.ValueType
    # The elements for false and true; unused for CORRID.
    elements: tuple[bytes, bytes] = (b"", b"")

    def value(self, position: SequencePosition, rows: int, *, batched: bool) -> Value:
        """Return the value of the input; raises InvalidArgumentError for an id that it cannot hold."""
        element = self._element(position)
        if batched:
            return Value((rows, *(1 for _ in self.input.shape[1:])), element * rows)
        return Value(tuple(1 for _ in self.input.shape), element)

    def _element(self, position: SequencePosition) -> bytes:
        match self.kind:
            case Kind.CONTROL_SEQUENCE_START:
                return self.elements[position.start]
            case Kind.CONTROL_SEQUENCE_END:
                return self.elements[position.end]
            case Kind.CONTROL_SEQUENCE_READY:
                return self.elements[True]
            case _:
                return identity_element(self.input, position.identity)


@dataclass(frozen=True)
class Plan:
    """How sequences of one model version are computed."""

    # The signature that clients see.
    public: Signature
    states: tuple[State, ...] = ()
    controls: tuple[Control, ...] = ()
    # Whether every request must belong to a sequence.
    required: bool = True
    # Seconds without a request after which a sequence is dropped.
    idle: float = 1.0
    # Maximum number of open sequences; 0: the server's limit.
    most: int = 0

    @property
    def within(self) -> Signature:
        """The signature of requests within a sequence, in which states are optional."""
        fed = {state.input.name for state in self.states}
        inputs = tuple(
            replace(spec, optional=True) if spec.name in fed else spec for spec in self.public.inputs
        )
        return replace(self.public, inputs=inputs)

    def place(self, parameters: Mapping[str, Any], model: str) -> SequencePosition | None:
        """Return a request's position in its sequence, or None if it has none.

        Raises InvalidArgumentError if a sequence is required.
        """
        position = position_of(parameters)
        if position is None and self.required:
            raise InvalidArgumentError(
                f"inference request to model '{model}' must specify a non-zero or non-empty "
                "correlation ID (sequence_id)"
            )
        return position

    def begin(self, rows: int) -> dict[str, Value]:
        """Return the initial states of a sequence, by input."""
        batched = self.public.batched
        return {state.input.name: state.begin(rows, batched=batched) for state in self.states}

    def fed(self, position: SequencePosition, states: Mapping[str, Value], rows: int) -> dict[str, Value]:
        """Return the states and controls that are added to a client's request, by input."""
        batched = self.public.batched
        controls = {
            control.input.name: control.value(position, rows, batched=batched) for control in self.controls
        }
        return {**states, **controls}

    def check_rows(self, position: SequencePosition, value: Value, rows: int) -> None:
        """Raise InvalidArgumentError unless a value has as many rows as the request."""
        if self.public.batched and value.shape[0] != rows:
            raise InvalidArgumentError(
                f"expected {value.shape[0]} rows, as in the first request of sequence "
                f"{position.identity}, got {rows}"
            )

    @property
    def answers(self) -> tuple[str, ...]:
        """The outputs returned for a request within a sequence that names none."""
        kept = () if self.required else tuple(state.output for state in self.states)
        return tuple(spec.name for spec in self.public.outputs if spec.name not in kept)


def identity_element(spec: TensorSpec, identity: Identity) -> bytes:
    """Return a sequence's id as one element of an input."""
    dtype = DATATYPES[spec.datatype].dtype
    if spec.datatype == BYTES.name:
        return to_raw(object_array([str(identity).encode()]), BYTES.name)
    if isinstance(identity, str):
        raise InvalidArgumentError(
            f"sequence_id: expected a number, which the model's input {spec.name!r} takes, got {identity!r}"
        )
    # Triton's clients send every number as int64; Triton interprets it as uint64.
    number = identity % 2**64 if dtype == np.uint64 else identity
    limits = np.iinfo(dtype)
    if not limits.min <= number <= limits.max:
        raise InvalidArgumentError(
            f"sequence_id: expected a number of {spec.datatype}, which the model's input {spec.name!r} "
            f"takes, got {identity}"
        )
    return np.array(number, dtype).tobytes()
