"""Inference through a real server: every datatype, raw and typed, by clients that others wrote."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from kerve.runtime.datatypes import DATATYPES

NUMERIC = sorted(DATATYPES.keys() - {"BYTES", "BF16"})
TYPED = {name: each.contents for name, each in DATATYPES.items() if each.contents is not None}
MATRICES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server: Any) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def echo(client: triton.InferenceServerClient) -> Callable[[str, NDArray[Any]], NDArray[Any]]:
    """Sends a matrix through the echo model of its datatype, with Triton's client."""

    def through(datatype: str, array: NDArray[Any]) -> NDArray[Any]:
        tensor = triton.InferInput("x", list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        result: NDArray[Any] = client.infer(f"echo_{datatype.lower()}", [tensor]).as_numpy("y")
        return result

    return through


def request(model: str, name: str, datatype: str, shape: list[int]) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message


@settings(max_examples=60)
@given(data=st.data(), datatype=st.sampled_from(NUMERIC))
def test_numbers_of_every_datatype_and_shape_come_back(
    data: st.DataObject, datatype: str, echo: Callable[..., NDArray[Any]]
) -> None:
    array = data.draw(hnp.arrays(DATATYPES[datatype].dtype, MATRICES))
    np.testing.assert_array_equal(echo(datatype, array), array)


@settings(max_examples=30)
@given(data=st.data(), shape=MATRICES)
def test_text_comes_back(
    data: st.DataObject, shape: tuple[int, ...], echo: Callable[..., NDArray[Any]]
) -> None:
    size = math.prod(shape)
    texts = data.draw(st.lists(st.text(st.characters(codec="utf-8")), min_size=size, max_size=size))
    array = np.array([text.encode() for text in texts] or [], object).reshape(shape)
    assert echo("BYTES", array).reshape(shape).tolist() == array.tolist()


def test_bfloat16_comes_back(echo: Callable[..., NDArray[Any]]) -> None:
    array = np.array([[1.5, -2.0, np.inf]], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(echo("BF16", array), array)


@pytest.mark.parametrize("datatype", sorted(TYPED))
def test_typed_contents_are_answered_raw(datatype: str, stub: Any) -> None:
    values = {"BOOL": [True, False], "BYTES": [b"a", b""], "FP32": [0.5, -1.0], "FP64": [0.1, -1.0]}.get(
        datatype, [1, 2]
    )
    message = request(f"echo_{datatype.lower()}", "x", datatype, [1, 2])
    getattr(message.inputs[0].contents, TYPED[datatype]).extend(values)
    reply = stub.ModelInfer(message)
    assert [tensor.name for tensor in reply.outputs] == ["y"]
    assert list(reply.outputs[0].shape) == [1, 2]
    assert len(reply.raw_output_contents) == 1
    raw = reply.raw_output_contents[0]
    if datatype == "BYTES":
        assert raw == b"\1\0\0\0a\0\0\0\0"
    else:
        assert np.frombuffer(raw, DATATYPES[datatype].dtype).tolist() == values


def test_a_reply_names_model_version_and_request(stub: Any) -> None:
    message = request("echo_fp32", "x", "FP32", [1, 1])
    message.id = "request 7"
    message.raw_input_contents.append(b"\0\0\x80?")
    reply = stub.ModelInfer(message)
    assert (reply.model_name, reply.model_version, reply.id) == ("echo_fp32", "1", "request 7")


def test_only_the_requested_outputs_come_in_the_order_of_the_request(
    client: triton.InferenceServerClient,
) -> None:
    tensor = triton.InferInput("features", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((2, 4), np.float32))
    both = client.infer("classifier", [tensor])
    assert [each.name for each in both.get_response().outputs] == ["probabilities", "logits"]
    wanted = [triton.InferRequestedOutput("logits"), triton.InferRequestedOutput("probabilities")]
    turned = client.infer("classifier", [tensor], outputs=wanted)
    assert [each.name for each in turned.get_response().outputs] == ["logits", "probabilities"]
    np.testing.assert_array_equal(turned.as_numpy("logits"), both.as_numpy("logits"))
    one = client.infer("classifier", [tensor], outputs=wanted[:1])
    assert [each.name for each in one.get_response().outputs] == ["logits"]


def test_rows_of_one_request_are_answered_as_one_by_one(client: triton.InferenceServerClient) -> None:
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)

    def logits(part: NDArray[Any]) -> NDArray[Any]:
        tensor = triton.InferInput("features", list(part.shape), "FP32")
        tensor.set_data_from_numpy(part)
        result: NDArray[Any] = client.infer("classifier", [tensor]).as_numpy("logits")
        return result

    one_by_one = np.concatenate([logits(rows[row : row + 1]) for row in range(7)])
    np.testing.assert_allclose(logits(rows), one_by_one, rtol=1e-6)
    assert logits(rows[:0]).shape == (0, 3)


def test_a_scalar_goes_in_and_comes_out(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", [], "FP64")
    tensor.set_data_from_numpy(np.array(2.5))
    answer = client.infer("scalar", [tensor]).as_numpy("y")
    assert answer.shape == ()
    assert answer == -2.5


STRING = service_pb2.InferParameter(string_param="region")


def pair(left: list[int], right: list[int]) -> Any:
    message = request("pair", "left", "FP32", left)
    message.inputs.add(name="right", datatype="FP32", shape=right)
    message.raw_input_contents.extend(bytes(4 * math.prod(shape)) for shape in (left, right))
    return message


def echo_request(change: Callable[[Any], object] | None = None) -> Any:
    message = request("echo_fp32", "x", "FP32", [1, 2])
    message.raw_input_contents.append(bytes(8))
    if change is not None:
        change(message)
    return message


def classes_of_text() -> Any:
    message = request("echo_bytes", "x", "BYTES", [1, 1])
    message.raw_input_contents.append(bytes(4))
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    return message


def typed(field: str, values: list[Any]) -> Any:
    message = request("echo_fp32", "x", "FP32", [1, 2])
    getattr(message.inputs[0].contents, field).extend(values)
    return message


REFUSED = [
    pytest.param(
        echo_request(lambda m: setattr(m, "model_name", "foo")),
        "NOT_FOUND",
        "Request for unknown model: 'foo' is not found; available: accumulator, classifier, constant",
        id="unknown model",
    ),
    pytest.param(
        classes_of_text(),
        "INVALID_ARGUMENT",
        "class result not available for output 'y' due to unsupported type 'BYTES'",
        id="classes of text",
    ),
    pytest.param(
        echo_request(lambda m: setattr(m, "model_version", "7")),
        "NOT_FOUND",
        "Request for unknown model: 'echo_fp32' version 7 is not found; available: 1",
        id="unknown version",
    ),
    pytest.param(
        echo_request(lambda m: m.inputs[0].shape.append(3)),
        "INVALID_ARGUMENT",
        "input 'x': expected shape [batch, width], got [1, 2, 3]",
        id="rank",
    ),
    pytest.param(
        echo_request(lambda m: setattr(m.inputs[0], "datatype", "INT64")),
        "INVALID_ARGUMENT",
        "input 'x': expected datatype FP32, got INT64",
        id="datatype",
    ),
    pytest.param(
        echo_request(lambda m: setattr(m.inputs[0], "name", "z")),
        "INVALID_ARGUMENT",
        "unexpected input 'z'; model 'echo_fp32' takes: x",
        id="unexpected input",
    ),
    pytest.param(
        service_pb2.ModelInferRequest(model_name="echo_fp32"),
        "INVALID_ARGUMENT",
        "input 'x' is missing; model 'echo_fp32' takes: x",
        id="missing input",
    ),
    pytest.param(
        echo_request(lambda m: m.outputs.add(name="foo")),
        "INVALID_ARGUMENT",
        "unexpected inference output 'foo' for model 'echo_fp32'; it has: y",
        id="unknown output",
    ),
    pytest.param(
        echo_request(lambda m: m.raw_input_contents.__setitem__(0, bytes(100))),
        "INVALID_ARGUMENT",
        "input 'x': expected 8 bytes for FP32 [1, 2], got 100",
        id="length",
    ),
    pytest.param(
        echo_request(lambda m: m.raw_input_contents.append(b"")),
        "INVALID_ARGUMENT",
        "expected one entry of raw_input_contents for each of the 1 inputs, got 2",
        id="too many contents",
    ),
    pytest.param(
        echo_request(lambda m: m.inputs[0].contents.fp32_contents.append(1)),
        "INVALID_ARGUMENT",
        "input 'x': expected either raw_input_contents or fp32_contents, got both",
        id="raw and typed",
    ),
    pytest.param(
        typed("fp64_contents", [1, 2]),
        "INVALID_ARGUMENT",
        "input 'x': expected FP32 in fp32_contents, got fp64_contents",
        id="wrong field",
    ),
    pytest.param(
        typed("fp32_contents", [1]),
        "INVALID_ARGUMENT",
        "input 'x': expected 2 elements for FP32 [1, 2], got 1",
        id="too few elements",
    ),
    pytest.param(
        request("echo_fp16", "x", "FP16", [1, 2]),
        "INVALID_ARGUMENT",
        "input 'x': FP16 has no typed contents; use raw_input_contents",
        id="FP16 typed",
    ),
    pytest.param(
        pair([2, 3], [2, 4]),
        "INVALID_ARGUMENT",
        "input 'right': expected shape [batch, time], got [2, 4]; time is 3 in input 'left'",
        id="symbols disagree",
    ),
    pytest.param(
        echo_request(lambda m: m.parameters["timeout"].MergeFrom(STRING)),
        "INVALID_ARGUMENT",
        "invalid value type for 'timeout' parameter, expected int64_param",
        id="timeout of text",
    ),
    pytest.param(
        echo_request(lambda m: m.inputs[0].parameters["shared_memory_region"].MergeFrom(STRING)),
        "INVALID_ARGUMENT",
        "tensor 'x': expected shared_memory_region and shared_memory_byte_size, got 'region' and 0",
        id="shared memory",
    ),
]


@pytest.mark.parametrize(("message", "code", "details"), REFUSED)
def test_a_bad_request_is_told_what_was_expected_and_the_server_goes_on(
    message: Any, code: str, details: str, stub: Any
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert caught.value.code().name == code
    assert (caught.value.details() or "").startswith(details)
    assert stub.ModelInfer(echo_request()).raw_output_contents == [bytes(8)]


def test_values_that_a_model_cannot_compute_are_the_callers_fault(
    client: triton.InferenceServerClient,
) -> None:
    tensor = triton.InferInput("ids", [1, 1], "INT64")
    tensor.set_data_from_numpy(np.array([[10]]))
    with pytest.raises(InferenceServerException, match=r"within the inclusive range \[-10,9\]") as caught:
        client.infer("lookup", [tensor])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_sequence_without_steps_does_not_end_the_server(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", [1, 0, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 0, 3), np.float32))
    with pytest.raises(InferenceServerException, match=r"shape \[1, 0, 3\]: the model's GRU") as caught:
        client.infer("recurrent", [tensor])
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert client.is_server_live()


def test_a_model_that_fails_is_internal_and_says_nothing_of_itself(
    client: triton.InferenceServerClient,
) -> None:
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("triples", [tensor])
    assert caught.value.status() == "StatusCode.INTERNAL"
    assert caught.value.message() == "the model failed; see the server's log"


@pytest.mark.usefixtures("without_gpu")
def test_cuda_shared_memory_is_refused_clearly_and_there_is_none(
    client: triton.InferenceServerClient,
) -> None:
    extensions = client.get_server_metadata().extensions
    assert "system_shared_memory" in extensions
    assert "cuda_shared_memory" not in extensions
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    with pytest.raises(InferenceServerException, match="does not support CUDA shared memory") as caught:
        client.register_cuda_shared_memory("r", b"", 0, 8)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_a_message_beyond_grpcs_usual_limit_passes(client: triton.InferenceServerClient) -> None:
    array = np.arange(3_000_000, dtype=np.float32).reshape(3, -1)
    tensor = triton.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    np.testing.assert_array_equal(client.infer("echo_fp32", [tensor]).as_numpy("y"), array)
