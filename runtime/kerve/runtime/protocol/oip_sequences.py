"""Requests of a sequence: converts a client's request to the model's, with states and controls."""

from collections.abc import Mapping

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol import oip
from kerve.runtime.protocol.tensors import to_raw
from kerve.runtime.sequences.plan import Plan, Value
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.signature import Signature

__all__ = ["SequenceRequest", "place_in_sequence"]


def place_in_sequence(message: pb.ModelInferRequest, plan: Plan | None) -> SequencePosition | None:
    """Return a request's position in its sequence; None if the model has no sequences.

    Raises InvalidArgumentError if the model requires a sequence and the request has none.
    """
    if plan is None:
        return None
    parameters = {name: oip.parameter_value(value) for name, value in message.parameters.items()}
    return plan.place(parameters, message.model_name)


class SequenceRequest:
    """One request of a sequence, validated against the signature that clients see."""

    def __init__(
        self, message: pb.ModelInferRequest, position: SequencePosition, plan: Plan, signature: Signature
    ) -> None:
        """`signature`: all inputs and outputs of the graph."""
        self._message = message
        self._position = position
        self._plan = plan
        self._signature = signature
        self._request = oip.decode_request(message, plan.within)
        # The outputs that the client receives; the states are requested in addition.
        self._requested = oip.requested_outputs(message) or dict.fromkeys(plan.answers, 0)
        for state in plan.states:
            if self._requested.get(state.output):
                raise InvalidArgumentError(f"output {state.output!r} is a state, which cannot be classified")

    def begin(self) -> dict[str, Value]:
        """Return the initial states of a sequence."""
        return self._plan.begin(self._request.rows)

    def encode(self, states: Mapping[str, Value], route: str) -> pb.ModelInferRequest:
        """Return the request to the model; states that the client sends itself take precedence."""
        message = pb.ModelInferRequest(
            model_name=self._message.model_name, model_version=route, id=self._message.id
        )
        message.parameters.MergeFrom(self._message.parameters)
        for name, array in self._request.inputs.items():
            datatype = self._signature.input(name).datatype
            add(message, name, datatype, Value(array.shape, to_raw(array, datatype)))
        rows = self._request.rows
        for name, value in self._plan.fed(self._position, states, rows).items():
            if name not in self._request.inputs:
                self._plan.check_rows(self._position, value, rows)
                add(message, name, self._signature.input(name).datatype, value)
        for name, count in self._requested.items():
            message.outputs.add(name=name).parameters["classification"].int64_param = count
        for state in self._plan.states:
            if state.output not in self._requested:
                message.outputs.add(name=state.output)
        return message

    def take(self, response: pb.ModelInferResponse) -> dict[str, Value]:
        """Return the next states in a response, and remove those that the client did not request."""
        found = {
            tensor.name: Value(tuple(tensor.shape), raw)
            for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }
        for position in reversed(range(len(response.outputs))):
            if response.outputs[position].name not in self._requested:
                del response.outputs[position], response.raw_output_contents[position]
        return {state.input.name: found[state.output] for state in self._plan.states}


def add(message: pb.ModelInferRequest, name: str, datatype: str, value: Value) -> None:
    """Add an input to a request."""
    message.inputs.add(name=name, datatype=datatype, shape=value.shape)
    message.raw_input_contents.append(value.raw)
