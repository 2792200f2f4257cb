"""A tensor alone as the body of a request: Triton's "raw binary request" (extension_binary_data.md).

The header `Inference-Header-Content-Length: 0` says that there is no JSON before it. What that would have
said follows from the model's metadata: it has one input, of which one dimension at most is open, and of a
batch it is one row.
"""

from math import prod

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.datatypes import BYTES, DATATYPES
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.http.wsgi import Request

__all__ = ["LENGTH", "decode", "is_raw"]

LENGTH = "Inference-Header-Content-Length"


def is_raw(request: Request) -> bool:
    """Whether a request is a tensor alone."""
    return request.headers.get(LENGTH.lower(), "") == "0"


def decode(
    body: bytes, version: str, model: pb.ModelMetadataResponse
) -> tuple[pb.ModelInferRequest, dict[str, bool]]:
    """Return the message that a body stands for, all of whose outputs are wanted as binary.

    InvalidArgumentError where it cannot be told what the bytes are.
    """
    if len(model.inputs) != 1:
        names = ", ".join(each.name for each in model.inputs)
        raise InvalidArgumentError(
            f"{LENGTH}: 0 says that the body is the only input of {model.name!r}, which takes "
            f"{names or 'none'}; say in JSON which it is"
        )
    (described,) = model.inputs
    dims = list(described.shape)
    if dims and model.properties.get("batched") == "true":
        dims[0] = 1
    if described.datatype == BYTES.name:
        shape, contents = one_text(dims), len(body).to_bytes(4, "little") + body
    else:
        shape, contents = numbers(dims, len(body), DATATYPES[described.datatype].dtype.itemsize), body
    if shape is None:
        raise InvalidArgumentError(
            f"input {described.name!r}: expected one row of {described.datatype} {[*described.shape]}, got "
            f"{len(body)} bytes; say in JSON what they are"
        )
    message = pb.ModelInferRequest(
        model_name=model.name, model_version=version, raw_input_contents=[contents]
    )
    message.inputs.add(name=described.name, datatype=described.datatype, shape=shape)
    return message, {"": True}


def one_text(dims: list[int]) -> list[int] | None:
    """Return the shape of a single text; None where more are wanted."""
    return dims if all(size == 1 for size in dims) else None


def numbers(dims: list[int], size: int, itemsize: int) -> list[int] | None:
    """Return the shape of so many bytes; None where they have none, or not only one."""
    rest = prod(each for each in dims if each >= 0) * itemsize
    match dims.count(-1):
        case 0:
            return dims if size == rest else None
        case 1 if rest and size % rest == 0:
            return [size // rest if each < 0 else each for each in dims]
        case _:
            return None
