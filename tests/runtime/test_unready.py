"""Versions that the index knows and that do not serve: not ready, which is not the same as not there."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from kerve.runtime import Client, rpc
from kerve.runtime.errors import UnavailableError
from kerve.runtime.protocol import tfs, tfs_tensors
from kerve.tensorflow_serving.apis import predict_pb2

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]


def refusal(running: Any, name: str, version: str, code: grpc.StatusCode) -> str:
    """How a version is refused that does not serve: with this code and one text, by every protocol."""
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    over_http = triton_http.InferInput("x", [1, 2], "FP32")
    over_http.set_data_from_numpy(np.ones((1, 2), np.float32))
    with triton.InferenceServerClient(running.address) as client:
        assert not client.is_model_ready(name, version)
        with pytest.raises(InferenceServerException) as by_triton:
            client.infer(name, [tensor], model_version=version)
        with pytest.raises(InferenceServerException) as described:
            client.get_model_metadata(name, version)
    with (
        triton_http.InferenceServerClient(running.http) as client,
        pytest.raises(InferenceServerException) as by_rest,
    ):
        client.infer(name, [over_http], model_version=version)
    with grpc.insecure_channel(running.address) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.version.value = name, int(version)
        request.inputs["x"].CopyFrom(tfs_tensors.encode_tensor("FP32", np.ones((1, 2), np.float32)))
        with pytest.raises(grpc.RpcError) as by_tensorflow:
            rpc.calls(channel, tfs.PREDICTION_SERVICE)["Predict"](request)
    status = {grpc.StatusCode.UNAVAILABLE: "503", grpc.StatusCode.NOT_FOUND: "404"}[code]
    assert by_triton.value.status() == described.value.status() == str(code)
    assert by_tensorflow.value.code() is code
    assert by_rest.value.status() == status
    texts = {
        by_triton.value.message(),
        described.value.message(),
        by_tensorflow.value.details(),
        by_rest.value.message(),
    }
    assert len(texts) == 1
    return str(texts.pop())


def test_every_protocol_tells_versions_that_are_not_ready_from_those_that_are_not_there(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "echo_fp32", name="m")
    (publish(tmp_path, "echo_fp32", name="m", version=3) / "model.onnx").write_bytes(b"nope")
    (tmp_path / "m" / "config.toml").write_text("[labels]\nnext = 3\n")
    explicit = ("--model-control-mode", "explicit", "--load-model", "*")
    with (
        serve(tmp_path, *explicit, "--http-port", "-1", "--transport", transport) as running,
        Client(running.address) as client,
    ):
        assert client.metadata("m").versions == ("1",)
        failed = "'m' version 3 is not at ready state: it failed to load"
        assert failed in refusal(running, "m", "3", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(UnavailableError, match="label 'next' is not at ready state: it failed to load"):
            client.metadata("m", version="next")
        assert "'m' version 9 is not found" in refusal(running, "m", "9", grpc.StatusCode.NOT_FOUND)
        client.unload("m")
        assert "is not at ready state: it is " in refusal(running, "m", "1", grpc.StatusCode.UNAVAILABLE)
