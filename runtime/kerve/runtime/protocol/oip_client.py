"""Open Inference Protocol v2 on the client: encodes requests, decodes responses and signatures."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.datatypes import (
    BF16,
    BYTES,
    DATATYPES,
    Array,
    bfloat16_to_float32,
    float32_to_bfloat16,
)
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.tensors import from_raw, from_typed, object_array, to_raw
from kerve.runtime.signature import Dimension, Signature, TensorSpec

__all__ = ["decode_metadata", "decode_response", "encode_request", "to_tensor"]


def to_tensor(spec: TensorSpec, value: ArrayLike) -> Array:
    """Convert a value to the input's datatype.

    Allows NumPy's "same_kind" casts (float64 to FP32, uint8 to FP32), casts between integers that change no
    value, and text to UTF-8. Raises InvalidArgumentError otherwise.
    """
    array = np.asarray(value)
    if spec.datatype == BYTES.name:
        return text_tensor(spec, array)
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        array = bfloat16_to_float32(array.view(np.uint16))
    if spec.datatype == BF16.name:
        return float32_to_bfloat16(cast(spec, array, np.dtype(np.float32)))
    return cast(spec, array, DATATYPES[spec.datatype].dtype)


def cast(spec: TensorSpec, array: Array, dtype: np.dtype[Any]) -> Array:
    """Cast the array; raises InvalidArgumentError if that would change its meaning."""
    if array.dtype == dtype:
        return array
    integers = array.dtype.kind in "iu" and dtype.kind in "iu"
    if not integers and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InvalidArgumentError(
            f"input {spec.name!r}: expected {spec.datatype}, got an array of {array.dtype}"
        )
    result = array.astype(dtype)
    if integers and not np.array_equal(result, array):
        raise InvalidArgumentError(
            f"input {spec.name!r}: a value of the {array.dtype} does not fit {spec.datatype}"
        )
    return result


def text_tensor(spec: TensorSpec, array: Array) -> Array:
    """Return an array of strings or bytes as an object array of bytes."""
    elements = array.ravel().tolist()
    if not all(isinstance(element, str | bytes) for element in elements):
        raise InvalidArgumentError(
            f"input {spec.name!r}: expected strings or bytes, got an array of {array.dtype}"
        )
    encoded = [element.encode() if isinstance(element, str) else element for element in elements]
    return object_array(encoded).reshape(array.shape)


def encode_request(
    name: str,
    version: str,
    signature: Signature,
    tensors: Mapping[str, Array],
    *,
    outputs: Collection[str] | None,
    parameters: Mapping[str, bool | int | float | str] | None,
) -> pb.ModelInferRequest:
    """Return the message for tensors that already have the inputs' datatypes."""
    message = pb.ModelInferRequest(model_name=name, model_version=version)
    for tensor, array in tensors.items():
        datatype = signature.input(tensor).datatype
        message.inputs.add(name=tensor, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(to_raw(array, datatype))
    for output in outputs or ():
        message.outputs.add(name=output)
    for key, value in (parameters or {}).items():
        setattr(message.parameters[key], PARAMETER_FIELDS[type(value)], value)
    return message


PARAMETER_FIELDS: Mapping[type, str] = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


def decode_response(message: pb.ModelInferResponse) -> dict[str, Array]:
    """Return the outputs of a response, raw or typed; BF16 as float32, BYTES as an object array of bytes."""
    outputs = {}
    for position, tensor in enumerate(message.outputs):
        label, datatype = f"output {tensor.name!r}", tensor.datatype
        if message.raw_output_contents:
            array = from_raw(label, datatype, tensor.shape, message.raw_output_contents[position])
        else:
            values = getattr(tensor.contents, DATATYPES[datatype].contents or "")
            array = from_typed(label, datatype, tensor.shape, values)
        outputs[tensor.name] = bfloat16_to_float32(array) if datatype == BF16.name else array
    return outputs


def decode_metadata(message: pb.ModelMetadataResponse) -> Signature:
    """Return the signature in a model's metadata.

    The names added by kerve's servers are used if present. A model of another server counts as batched if
    the first dimension of all its tensors is dynamic.
    """
    properties = message.properties
    inputs = decode_specs(message.inputs, properties)
    outputs = decode_specs(message.outputs, properties)
    if "batched" in properties:
        return Signature(inputs, outputs, json.loads(properties["batched"]) is True)
    free = all(spec.shape and not isinstance(spec.shape[0], int) for spec in (*inputs, *outputs))
    return Signature(inputs, outputs, free)


def decode_specs(
    tensors: Iterable[pb.ModelMetadataResponse.TensorMetadata], properties: Mapping[str, str]
) -> tuple[TensorSpec, ...]:
    """Return the tensors in a model's metadata."""
    return tuple(
        TensorSpec(
            tensor.name,
            tensor.datatype,
            decode_shape(tensor, properties),
            labels=tuple(json.loads(properties.get(f"labels/{tensor.name}", "[]"))),
        )
        for tensor in tensors
    )


def decode_shape(
    tensor: pb.ModelMetadataResponse.TensorMetadata, properties: Mapping[str, str]
) -> tuple[Dimension, ...]:
    """Return a shape, with the names of its dynamic dimensions if the server provides them."""
    named = properties.get(f"shape/{tensor.name}")
    if named is not None:
        return tuple(json.loads(named))
    return tuple(size if size >= 0 else None for size in tensor.shape)


def row_bytes(tensors: Mapping[str, Array]) -> int:
    """Return the approximate size in bytes of one row of a batch in a request."""
    sizes = [max(1, array.itemsize) * math.prod(array.shape[1:]) for array in tensors.values()]
    return max(1, sum(sizes))
