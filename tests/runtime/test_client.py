"""kerve.runtime.Client against a real server, and its conversions."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import ArrayLike

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime import Client, InvalidArgumentError, NotFoundError, UnavailableError
from kerve.runtime.protocol.oip_client import decode_metadata, to_tensor
from kerve.runtime.signature import Signature, TensorSpec

FEATURES = np.random.default_rng(2).normal(size=(23, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_a_model_is_described_with_the_names_of_its_dimensions(client: Client) -> None:
    info = client.metadata("classifier")
    assert (info.name, info.versions, info.platform) == ("classifier", ("1",), "onnxruntime_onnx")
    assert info.signature == Signature(
        (TensorSpec("features", "FP32", ("batch", 4)),),
        (
            TensorSpec("probabilities", "FP32", ("batch", 3)),
            TensorSpec("logits", "FP32", ("batch", 3)),
        ),
        batched=True,
    )


def test_liveness_and_readiness_are_told(client: Client) -> None:
    assert client.live()
    assert client.ready()
    assert client.ready("classifier", version="1")
    assert not client.ready("classifier", version="9")


def test_infer_answers_every_output_by_name(client: Client) -> None:
    answer = client.infer("classifier", {"features": FEATURES})
    assert {name: array.shape for name, array in answer.items()} == {
        "probabilities": (23, 3),
        "logits": (23, 3),
    }
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert list(client.infer("classifier", FEATURES, ["logits"])) == ["logits"]


def test_predict_answers_in_kind(client: Client) -> None:
    array = client.predict("classifier", FEATURES, ["logits"])
    assert isinstance(array, np.ndarray)
    by_name = client.predict("classifier", {"features": FEATURES}, ["logits"])
    np.testing.assert_array_equal(by_name["logits"], array)
    assert client.predict("classifier", FEATURES).keys() == {"probabilities", "logits"}


@pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 24])
def test_a_batch_in_parts_gives_the_answer_of_the_whole(batch_size: int, client: Client) -> None:
    whole = client.predict("classifier", FEATURES, ["logits"])
    parts = client.predict("classifier", FEATURES, ["logits"], batch_size=batch_size)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_a_large_batch_is_split_by_itself(client: Client) -> None:
    large = np.arange(12_000_000, dtype=np.float32).reshape(-1, 3)  # 48 MB
    np.testing.assert_array_equal(client.predict("echo_fp32", large), large)


def test_a_batch_without_rows_is_answered(client: Client) -> None:
    assert client.predict("classifier", FEATURES[:0], ["logits"]).shape == (0, 3)


def test_a_model_without_a_batch_dimension_is_answered(client: Client) -> None:
    assert client.predict("scalar", 2.5) == -2.5


def test_text_goes_in_as_str_and_comes_out_as_bytes(client: Client) -> None:
    answer = client.predict("echo_bytes", np.array([["a", "\u00e9"]]))
    assert answer.tolist() == [[b"a", "\u00e9".encode()]]


def test_bfloat16_comes_out_as_float32(client: Client) -> None:
    answer = client.predict("echo_bf16", np.array([[1.0, 1.001]]))
    assert answer.dtype == np.float32
    assert answer.tolist() == [[1.0, 1.0]]


def test_lists_and_wider_numbers_are_converted(client: Client) -> None:
    assert client.predict("echo_fp32", [[1, 2]]).dtype == np.float32
    assert client.predict("echo_int32", np.array([[1, 2]], np.int64)).dtype == np.int32


@pytest.mark.parametrize(
    ("datatype", "value", "expected"),
    [
        pytest.param("FP32", np.array([1.5], "float64"), np.array([1.5], "float32"), id="float64"),
        pytest.param("FP32", np.array([255], "uint8"), np.array([255], "float32"), id="pixels"),
        pytest.param("FP16", [True], np.array([1], "float16"), id="bool"),
        pytest.param(
            "INT8", np.array([-128, 127], "int64"), np.array([-128, 127], "int8"), id="int64 that fits"
        ),
        pytest.param(
            "BF16", np.array([1.0], "float64"), np.array([0x3F80], "uint16"), id="bfloat16 from float64"
        ),
        pytest.param(
            "BF16",
            np.array([1.0], ml_dtypes.bfloat16),
            np.array([0x3F80], "uint16"),
            id="bfloat16 of ml_dtypes",
        ),
        pytest.param(
            "FP32",
            np.array([1.5], ml_dtypes.bfloat16),
            np.array([1.5], "float32"),
            id="float32 from ml_dtypes",
        ),
        pytest.param("UINT8", [255], np.array([255], "uint8"), id="signed to unsigned"),
        pytest.param("BOOL", [True], np.array([True]), id="booleans"),
        pytest.param("BYTES", np.array([b"a"]), np.array([b"a"], object), id="fixed width"),
    ],
)
def test_a_value_becomes_the_models_datatype(datatype: str, value: ArrayLike, expected: Any) -> None:
    tensor = to_tensor(TensorSpec("x", datatype, ("n",)), value)
    assert tensor.dtype == expected.dtype
    np.testing.assert_array_equal(tensor, expected)


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        pytest.param("INT64", [1.5], "expected INT64, got an array of float64", id="float to integer"),
        pytest.param("FP32", [1j], "expected FP32, got an array of complex128", id="complex"),
        pytest.param("FP32", ["1"], "expected FP32, got an array of <U1", id="text"),
        pytest.param("INT8", [128], "a value of the int64 does not fit INT8", id="too large"),
        pytest.param(
            "UINT8", np.array([-1], "int8"), "a value of the int8 does not fit UINT8", id="negative"
        ),
        pytest.param("INT64", np.array([2**64 - 1]), "a value of the uint64 does not fit INT64", id="uint64"),
        pytest.param("BYTES", [1], "expected strings or bytes, got an array of int64", id="number for text"),
    ],
)
def test_a_value_that_would_change_is_refused(datatype: str, value: ArrayLike, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        to_tensor(TensorSpec("x", datatype, ("n",)), value)
    assert str(caught.value) == f"input 'x': {message}"


def test_an_array_for_several_inputs_is_refused(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="has several inputs; pass a dict of: left, right"):
        client.predict("pair", FEATURES)


def test_errors_have_the_class_of_their_status(client: Client) -> None:
    with pytest.raises(NotFoundError, match="version 4 is not found; available: 1"):
        client.predict("classifier", FEATURES, version="4")
    with pytest.raises(InvalidArgumentError, match=r"expected shape \[batch, 4\], got \[23, 3\]"):
        client.predict("classifier", FEATURES[:, :3])
    with pytest.raises(InvalidArgumentError, match="unexpected inference output 'foo' for model"):
        client.predict("classifier", FEATURES, ["foo"])
    with pytest.raises(InvalidArgumentError, match="input 'features' is missing"):
        client.predict("classifier", {})


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(UnavailableError, match=r"no server answers at 127.0.0.1:1"),
    ):
        client.ready()


def test_a_server_of_another_make_is_described_without_names() -> None:
    message = pb.ModelMetadataResponse(name="m")
    message.inputs.add(name="x", datatype="FP32", shape=[-1, 4])
    message.outputs.add(name="y", datatype="FP32", shape=[-1])
    signature = decode_metadata(message)
    assert signature.inputs[0].shape == (None, 4)
    assert signature.batched
    message.outputs.add(name="z", datatype="FP32", shape=[1])
    assert not decode_metadata(message).batched
