"""Inference over REST: converts JSON, with or without binary tensors, to gRPC messages and back.

OIP's REST protocol with Triton's binary tensor data extension: the header `Inference-Header-Content-Length`
is the length of the JSON, and each tensor with the parameter `binary_data_size` has that many bytes after it.
"""

from collections.abc import Mapping
from typing import Any

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.datatypes import BF16, bfloat16_to_float32
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.http.wsgi import Request, Response, compact, parse_object
from kerve.runtime.protocol.json_tensors import from_json
from kerve.runtime.protocol.tensors import from_raw, to_raw

__all__ = ["decode", "encode"]

LENGTH = "Inference-Header-Content-Length"


def decode(request: Request, model: str, version: str) -> tuple[pb.ModelInferRequest, dict[str, bool]]:
    """Return the message in a request, and for each output whether it is requested as binary ("": others)."""
    length = request.headers.get(LENGTH.lower(), "")
    if length and not (length.isdecimal() and len(length) < 20 and int(length) <= len(request.body)):
        raise InvalidArgumentError(f"{LENGTH}: expected at most the {len(request.body)} bytes of the body")
    end = int(length) if length else len(request.body)
    document, binary = parse_object(request.body[:end]), memoryview(request.body)[end:]
    message = pb.ModelInferRequest(
        model_name=model, model_version=version, id=text(document.get("id", ""), "id")
    )
    parameters = mapping(document.get("parameters", {}), "parameters")
    binary_outputs = {"": parameters.pop("binary_data_output", False) is True}
    set_parameters(message.parameters, parameters)
    position = 0
    for tensor in objects(document.get("inputs", []), "inputs"):
        position += add_input(message, tensor, binary[position:])
    if position != len(binary):
        raise InvalidArgumentError(
            f"expected {position} bytes of binary data, as the inputs specify, got {len(binary)}"
        )
    for tensor in objects(document.get("outputs", []), "outputs"):
        name = text(tensor.get("name", ""), "name")
        own = mapping(tensor.get("parameters", {}), f"output {name!r}: parameters")
        binary_outputs.setdefault(name, own.pop("binary_data", binary_outputs[""]) is True)
        set_parameters(message.outputs.add(name=name).parameters, own)
    return message, binary_outputs


def add_input(message: pb.ModelInferRequest, tensor: Mapping[str, Any], binary: memoryview) -> int:
    """Add an input to a message; return the number of bytes of `binary` that it uses."""
    name = text(tensor.get("name", ""), "name")
    label = f"input {name!r}"
    shape, datatype = tensor.get("shape", []), text(tensor.get("datatype", ""), f"{label}: datatype")
    if not isinstance(shape, list) or not all(
        type(size) is int and -(2**63) <= size < 2**63 for size in shape
    ):
        raise InvalidArgumentError(f"{label}: shape: expected a list of numbers, got {shape!r}")
    parameters = mapping(tensor.get("parameters", {}), f"{label}: parameters")
    size = parameters.pop("binary_data_size", None)
    added = message.inputs.add(name=name, datatype=datatype, shape=shape)
    set_parameters(added.parameters, parameters)
    if "shared_memory_region" in parameters:
        return 0
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise InvalidArgumentError(
                f"{label}: binary_data_size: {size!r}, but {len(binary)} bytes are left"
            )
        message.raw_input_contents.append(bytes(binary[:size]))
        return size
    if "data" not in tensor:
        raise InvalidArgumentError(
            f"{label}: expected data, or binary data with its binary_data_size, got neither"
        )
    message.raw_input_contents.append(to_raw(from_json(label, datatype, tensor["data"]), datatype))
    return 0


def set_parameters(target: Any, values: Mapping[str, Any]) -> None:
    """Write parameters into a message, by the type of their value."""
    fields: Mapping[type, str] = {
        bool: "bool_param",
        int: "int64_param",
        float: "double_param",
        str: "string_param",
    }
    for key, value in values.items():
        if type(value) not in fields:
            raise InvalidArgumentError(
                f"parameter {key!r}: expected a number, string or boolean, got {value!r}"
            )
        field = fields[type(value)]
        if field == "int64_param" and value >= 1 << 63:
            field = "uint64_param"
        try:
            setattr(target[key], field, value)
        except ValueError as error:
            raise InvalidArgumentError(f"parameter {key!r}: expected 64 bits, got {value}") from error


def encode(response: pb.ModelInferResponse, binary_outputs: Mapping[str, bool]) -> Response:
    """Return the response for a message."""
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        document["id"] = response.id
    parts: list[bytes] = []
    document["outputs"] = [
        encode_output(tensor, raw, parts, binary=binary_outputs.get(tensor.name, binary_outputs[""]))
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    ]
    header = compact(document)
    if not parts:
        return Response(header)
    return Response(
        b"".join([header, *parts]),
        content_type="application/octet-stream",
        headers={LENGTH: str(len(header))},
    )


def encode_output(
    tensor: pb.ModelInferResponse.InferOutputTensor, raw: bytes, parts: list[bytes], *, binary: bool
) -> dict[str, Any]:
    """Return an output as JSON; the bytes of a binary one are appended to `parts`."""
    output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": [*tensor.shape]}
    if "shared_memory_region" in tensor.parameters:
        return output
    if binary:
        parts.append(raw)
        return {**output, "parameters": {"binary_data_size": len(raw)}}
    array = from_raw(f"output {tensor.name!r}", tensor.datatype, tensor.shape, raw)
    if tensor.datatype == BF16.name:
        array = bfloat16_to_float32(array)
    flat = array.ravel().tolist()
    return {
        **output,
        "data": [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in flat],
    }


def text(value: object, what: str) -> str:
    """Return a value that must be a string."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{what}: expected text, got {value!r}")
    return value


def mapping(value: object, what: str) -> dict[str, Any]:
    """Return a copy of a value that must be a JSON object."""
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{what}: expected an object, got {value!r}")
    return dict(value)


def objects(value: object, what: str) -> list[dict[str, Any]]:
    """Return a value that must be a list of JSON objects."""
    if not isinstance(value, list):
        raise InvalidArgumentError(f"{what}: expected a list, got {value!r}")
    return [mapping(each, what) for each in value]
