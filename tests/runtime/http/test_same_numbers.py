"""Whatever a tensor holds, it is the same over REST and over gRPC, bit by bit, on both transports."""

import http.client
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Echo = Callable[..., NDArray[Any]]

LENGTH = "Inference-Header-Content-Length"
# bfloat16 stands as its bits.
DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT64": np.int64,
    "UINT16": np.uint16,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
# NumPy, which reads what the wire leaves to Python, takes zeros at a text's end for padding.
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=4)
SHAPES = st.tuples(st.integers(0, 3), st.integers(0, 3))
TENSORS = st.sampled_from([*DTYPES]).flatmap(
    lambda datatype: st.tuples(
        st.just(datatype),
        arrays.arrays(
            DTYPES[datatype], SHAPES, elements=TEXT if datatype == "BYTES" else None, fill=st.nothing()
        ),
    )
)


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    """A server of models that answer with what they get."""
    folder = tmp_path_factory.mktemp("models")
    for datatype in DTYPES:
        publish(folder, f"echo_{datatype.lower()}")
    with serve(folder, "--transport", transport, "--http-port", "-1") as server:
        yield server


@pytest.fixture(scope="module")
def over_rest(running: Any) -> Iterator[Echo]:
    """Sends an array, and returns what comes back: as JSON or as binary, each way."""
    with closing(http.client.HTTPConnection(running.http, timeout=60)) as connection:

        def echo(
            array: NDArray[Any], datatype: str, *, binary: tuple[bool, bool], nested: bool
        ) -> NDArray[Any]:
            tensor: dict[str, Any] = {"shape": array.shape, "name": "x", "datatype": datatype}
            raw = contents(array)
            if binary[0]:
                tensor["parameters"] = {"binary_data_size": len(raw)}
            else:
                tensor = {"data": (array if nested else array.ravel()).tolist(), **tensor}
            text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": binary[1]}}).encode()
            headers = {LENGTH: str(len(text))} if binary[0] else {}
            connection.request(
                "POST", f"/v2/models/echo_{datatype.lower()}/infer", text + raw * binary[0], headers
            )
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            length = int(answer.headers.get(LENGTH, len(body)))
            (output,) = json.loads(body[:length])["outputs"]
            assert (output["datatype"], output["shape"]) == (datatype, [*array.shape])
            if binary[1]:
                return from_contents(body[length:], array)
            flat = output["data"]
            if datatype == "BF16":
                flat = (np.array(flat, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            return np.array(flat, array.dtype).reshape(array.shape)

        yield echo


@pytest.fixture(scope="module")
def over_grpc(running: Any) -> Iterator[Callable[[NDArray[Any], str], bytes]]:
    """Sends an array, and returns the raw contents that come back."""
    with grpc.insecure_channel(running.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def echo(array: NDArray[Any], datatype: str) -> bytes:
            request = pb.ModelInferRequest(
                model_name=f"echo_{datatype.lower()}", raw_input_contents=[contents(array)]
            )
            request.inputs.add(name="x", datatype=datatype, shape=array.shape)
            (found,) = stub.ModelInfer(request).raw_output_contents
            return bytes(found)

        yield echo


def contents(array: NDArray[Any]) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    elements = [each.encode() for each in array.ravel()]
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


def from_contents(raw: bytes, like: NDArray[Any]) -> NDArray[Any]:
    if like.dtype != object:
        return np.frombuffer(raw, like.dtype).reshape(like.shape)
    found = np.empty(like.shape, object)
    found.ravel()[:] = [each.decode() for each in deserialize_bytes_tensor(raw)] if raw else []
    return found


@settings(max_examples=150)
@given(tensor=TENSORS, binary=st.tuples(st.booleans(), st.booleans()), nested=st.booleans())
def test_what_goes_in_comes_out(
    tensor: tuple[str, NDArray[Any]],
    binary: tuple[bool, bool],
    nested: bool,
    over_rest: Echo,
    over_grpc: Callable[[NDArray[Any], str], bytes],
) -> None:
    datatype, array = tensor
    if datatype == "BF16":  # which cannot be given in JSON
        binary = (True, binary[1])
    found = over_rest(array, datatype, binary=binary, nested=nested)
    expected = over_grpc(array, datatype)
    assert expected == contents(array)
    if array.dtype.kind == "f" and np.isnan(array).any():  # there are many, of which JSON has one
        np.testing.assert_array_equal(found, array)
    elif datatype == "BF16" and not binary[1] and np.isnan(as_float32(array)).any():
        np.testing.assert_array_equal(as_float32(found), as_float32(array))
    else:
        assert contents(found) == expected


def as_float32(bfloat16: NDArray[Any]) -> NDArray[Any]:
    return (bfloat16.astype(np.uint32) << 16).view(np.float32)
