"""Triton's raw binary requests: the body is the only input, and its length determines the shape.

`Inference-Header-Content-Length: 0` means that there is no JSON ("Raw Binary Request" in Triton's document on
the binary tensor data extension). A batched model gets one row; BYTES are one element without its length.
"""

from math import prod

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.datatypes import BYTES, DATATYPES
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.http.infer import LENGTH
from kerve.runtime.http.wsgi import Request
from kerve.runtime.protocol.tensors import object_array, to_raw
from kerve.runtime.signature import Signature, TensorSpec, show_shape

__all__ = ["decode", "is_raw"]


def is_raw(request: Request) -> bool:
    """Return whether a request has no JSON."""
    return request.headers.get(LENGTH.lower()) == "0"


def decode(request: Request, signature: Signature, model: str, version: str) -> pb.ModelInferRequest:
    """Return the message in a request; raises InvalidArgumentError if the shape cannot be determined."""
    if len(signature.inputs) != 1:
        raise InvalidArgumentError(
            f"{LENGTH}: 0: a request without JSON needs a model with one input, {model!r} has "
            f"{len(signature.inputs)}"
        )
    (spec,) = signature.inputs
    shape = shape_of(spec, len(request.body), batched=signature.batched)
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    message.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    body = request.body
    if spec.datatype == BYTES.name:
        body = to_raw(object_array([body]), BYTES.name)
    message.raw_input_contents.append(body)
    return message


def shape_of(spec: TensorSpec, size: int, *, batched: bool) -> list[int]:
    """Return the shape of an input of `size` bytes; whether they fill it is checked on decoding."""
    shape = (1, *spec.shape[1:]) if batched else spec.shape
    fixed = [each for each in shape if isinstance(each, int)]
    free = len(shape) - len(fixed)
    if spec.datatype == BYTES.name:
        possible, wanted = not free and prod(fixed) == 1, "one element"
    else:
        possible, wanted = free <= 1, "at most one free dimension"
    if not possible:
        raise InvalidArgumentError(
            f"{LENGTH}: 0: a request without JSON needs an input with {wanted}, {spec.name!r} has the shape "
            f"{show_shape(spec.shape)}"
        )
    row = prod(fixed) * DATATYPES[spec.datatype].dtype.itemsize
    length = -(-size // row) if row else 0
    return [each if isinstance(each, int) else length for each in shape]
