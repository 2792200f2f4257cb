"""Open Inference Protocol v2 on the server: decodes requests, encodes outputs and signatures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.config.complete import PLATFORM
from kerve.runtime.datatypes import BYTES, DATATYPES, Array
from kerve.runtime.errors import InvalidArgumentError, UnimplementedError
from kerve.runtime.protocol.classification import classify
from kerve.runtime.protocol.tensors import from_raw, from_typed, to_raw
from kerve.runtime.signature import (
    Signature,
    TensorSpec,
    check_inputs,
    check_outputs,
    check_tensor,
    rows_of,
)

__all__ = ["SERVICE", "InferRequest", "decode_request", "encode_response", "model_metadata"]

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]

# Integer parameters, and the fields that hold integers.
REQUEST_NUMBERS, OUTPUT_NUMBERS = ("priority", "timeout"), ("classification",)
INTEGERS = ("int64_param", "uint64_param")

# The parameter of tensors in shared memory.
SHARED_MEMORY = "shared_memory_region"

# By Triton's names; `cuda_shared_memory` depends on the machine.
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "sequence",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
    "system_shared_memory",
    "logging",
    "trace",
)


@dataclass(frozen=True)
class InferRequest:
    """A client's request, validated against the model's signature."""

    inputs: Mapping[str, Array]
    rows: int
    requested: frozenset[str] | None
    parameters: Mapping[str, Any]

    @property
    def priority(self) -> int:
        """The request's `priority`; 0: none."""
        priority = self.parameters.get("priority", 0)
        return priority if isinstance(priority, int) else 0

    @property
    def timeout(self) -> float | None:
        """The request's `timeout` in seconds (microseconds in the request, 0: none)."""
        microseconds = self.parameters.get("timeout", 0)
        return microseconds / 1e6 if isinstance(microseconds, int) and microseconds > 0 else None


def decode_request(message: pb.ModelInferRequest, signature: Signature) -> InferRequest:
    """Return the request in a message; raises InvalidArgumentError if it does not fit the signature."""
    model = message.model_name
    check_numbers(message.parameters, REQUEST_NUMBERS)
    for output in message.outputs:
        check_numbers(output.parameters, OUTPUT_NUMBERS)
    for tensors in (message.inputs, message.outputs):
        for tensor in tensors:
            if SHARED_MEMORY in tensor.parameters:
                raise UnimplementedError(
                    f"tensor {tensor.name!r}: this server does not support shared memory; "
                    "send the tensor's contents in the request"
                )
    check_inputs(signature, model, [tensor.name for tensor in message.inputs])
    check_outputs(signature, model, [tensor.name for tensor in message.outputs])
    requested = requested_outputs(message)
    for name, count in requested.items():
        if count > 0 and signature.output(name).datatype == BYTES.name:
            raise InvalidArgumentError(
                f"class result not available for output {name!r} due to unsupported type 'BYTES'"
            )
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidArgumentError(
            f"expected one entry of raw_input_contents for each of the {len(message.inputs)} inputs, "
            f"got {len(raw)}"
        )
    sizes: dict[str, tuple[int, str]] = {}
    inputs = {}
    for position, tensor in enumerate(message.inputs):
        check_tensor(signature.input(tensor.name), tensor.datatype, tensor.shape, sizes)
        inputs[tensor.name] = decode_tensor(tensor, raw[position] if raw else None)
    return InferRequest(
        inputs=inputs,
        rows=rows_of(signature, inputs),
        requested=frozenset(requested) or None,
        parameters={name: parameter_value(value) for name, value in message.parameters.items()},
    )


def check_numbers(parameters: Mapping[str, pb.InferParameter], names: Iterable[str]) -> None:
    """Raise InvalidArgumentError for a parameter that is not an integer, which would otherwise be ignored."""
    for name in names:
        if name in parameters and parameters[name].WhichOneof("parameter_choice") not in INTEGERS:
            raise InvalidArgumentError(f"invalid value type for {name!r} parameter, expected int64_param")


def decode_tensor(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Array:
    """Return one input, from its raw or its typed contents."""
    label = f"input {tensor.name!r}"
    given = [field.name for field, _ in tensor.contents.ListFields()]
    if raw is not None:
        if given:
            raise InvalidArgumentError(f"{label}: expected either raw_input_contents or {given[0]}, got both")
        return from_raw(label, tensor.datatype, tensor.shape, raw)
    field = DATATYPES[tensor.datatype].contents
    if field is None:
        raise InvalidArgumentError(
            f"{label}: {tensor.datatype} has no typed contents; use raw_input_contents"
        )
    if given not in ([], [field]):
        raise InvalidArgumentError(f"{label}: expected {tensor.datatype} in {field}, got {', '.join(given)}")
    return from_typed(label, tensor.datatype, tensor.shape, getattr(tensor.contents, field))


def parameter_value(parameter: pb.InferParameter) -> Any:
    """Return the value of a parameter; None if it has none."""
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def encode_response(
    message: pb.ModelInferRequest, version: int, signature: Signature, outputs: Mapping[str, Array]
) -> pb.ModelInferResponse:
    """Return the response to a request: the requested outputs in the requested order, or all, raw."""
    response = pb.ModelInferResponse(model_name=message.model_name, model_version=str(version), id=message.id)
    for name, count in (requested_outputs(message) or {spec.name: 0 for spec in signature.outputs}).items():
        spec = signature.output(name)
        datatype, array = spec.datatype, outputs[name]
        if count > 0:
            datatype, array = BYTES.name, classify(spec, array, count, batched=signature.batched)
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(to_raw(array, datatype))
    return response


def requested_outputs(message: pb.ModelInferRequest) -> dict[str, int]:
    """Return the requested outputs in order, each with the number of top classes to return instead of it.

    If an output is requested twice, the first request counts.
    """
    requested: dict[str, int] = {}
    for tensor in message.outputs:
        requested.setdefault(tensor.name, classes(tensor))
    return requested


def classes(tensor: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    """Return the number of top classes requested instead of the tensor; 0: the tensor itself."""
    value = parameter_value(tensor.parameters["classification"]) if tensor.parameters else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def stream_response(response: pb.ModelInferResponse) -> pb.ModelStreamInferResponse:
    """Return a response as a message of a stream; it is marked as final, as each request has one response."""
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=response)


def stream_error(message: str, identity: str) -> pb.ModelStreamInferResponse:
    """Return an error as a message of a stream."""
    return pb.ModelStreamInferResponse(
        error_message=message, infer_response=pb.ModelInferResponse(id=identity)
    )


def model_metadata(
    name: str, versions: Sequence[int], signature: Signature, *, platform: str = PLATFORM
) -> pb.ModelMetadataResponse:
    """Return the metadata of a model.

    The protocol has only -1 for dynamic dimensions; the names of dimensions and classes are in `properties`,
    as JSON: `batched` (true), `shape/<tensor>` (["batch", 28, 28, 1]), `labels/<output>` (["cat", "dog"]).
    """
    response = pb.ModelMetadataResponse(
        name=name, versions=[str(version) for version in versions], platform=platform
    )
    response.properties["batched"] = json.dumps(signature.batched)
    for specs, messages in ((signature.inputs, response.inputs), (signature.outputs, response.outputs)):
        for spec in specs:
            messages.add(name=spec.name, datatype=spec.datatype, shape=numeric(spec))
            response.properties[f"shape/{spec.name}"] = json.dumps(spec.shape)
            if spec.labels:
                response.properties[f"labels/{spec.name}"] = json.dumps(spec.labels)
    return response


def numeric(spec: TensorSpec) -> list[int]:
    """Return a shape in the protocol's form: -1 for dynamic dimensions."""
    return [size if isinstance(size, int) else -1 for size in spec.shape]


def server_metadata(
    name: str, version: str, devices: str, *, cuda_shared_memory: bool
) -> pb.ServerMetadataResponse:
    """Return the metadata of the server: its extensions by Triton's names, and its devices."""
    extensions = [*EXTENSIONS, f"devices({devices})"]
    if cuda_shared_memory:
        extensions.append("cuda_shared_memory")
    return pb.ServerMetadataResponse(name=name, version=version, extensions=extensions)


def server_live(*, live: bool) -> pb.ServerLiveResponse:
    """Return the response of ServerLive."""
    return pb.ServerLiveResponse(live=live)


def server_ready(*, ready: bool) -> pb.ServerReadyResponse:
    """Return the response of ServerReady."""
    return pb.ServerReadyResponse(ready=ready)


def model_ready(*, ready: bool) -> pb.ModelReadyResponse:
    """Return the response of ModelReady."""
    return pb.ModelReadyResponse(ready=ready)
