"""TensorFlow Serving's own client stubs on both transports. Needs the package tensorflow-serving-api."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]


class Api:
    """The stubs of a channel, and the messages."""

    def __init__(self, channel: grpc.Channel) -> None:
        import tensorflow as tf
        from tensorflow_serving.apis import (
            classification_pb2,
            get_model_metadata_pb2,
            get_model_status_pb2,
            inference_pb2,
            model_management_pb2,
            model_service_pb2_grpc,
            predict_pb2,
            prediction_service_pb2_grpc,
            regression_pb2,
        )

        self.tf: Any = tf
        self.classification: Any = classification_pb2
        self.metadata: Any = get_model_metadata_pb2
        self.status: Any = get_model_status_pb2
        self.inference: Any = inference_pb2
        self.management: Any = model_management_pb2
        self.predict: Any = predict_pb2
        self.regression: Any = regression_pb2
        self.prediction: Any = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(channel)

    def ask(self, name: str, inputs: dict[str, Any], **spec: Any) -> Any:
        request = self.predict.PredictRequest()
        request.model_spec.name = name
        for key, value in spec.items():
            if key == "version":
                request.model_spec.version.value = value
            else:
                setattr(request.model_spec, key, value)
        for key, value in inputs.items():
            request.inputs[key].CopyFrom(self.tf.make_tensor_proto(value))
        return self.prediction.Predict(request, timeout=30)

    def example(self, **features: Any) -> Any:
        kinds = {float: "float_list", int: "int64_list", bytes: "bytes_list"}
        example = self.tf.train.Example()
        for name, values in features.items():
            getattr(example.features.feature[name], kinds[type(values[0])]).value.extend(values)
        return example


@pytest.fixture(scope="module")
def api(
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
    models: Path,
    publish: Publish,
    serve: Serve,
) -> Iterator[Api]:
    pytest.importorskip("tensorflow_serving.apis.predict_pb2")  # proto/ has a namespace of that name
    repository = tmp_path_factory.mktemp("models")
    for file in models.glob("*.onnx"):
        publish(repository, file.stem)
    publish(repository, "classifier", version=2)
    (repository / "classifier" / "config.toml").write_text("labels = { stable = 1 }\n[version_policy.all]\n")
    options = ("--transport", transport, "--model-control-mode", "explicit", "--load-model", "*")
    with serve(repository, *options) as running, grpc.insecure_channel(running.address) as channel:
        yield Api(channel)


ROWS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array([[1.5, -2]], np.float32), id="fp32"),
        pytest.param(np.array([[1.5, -2]], np.float64), id="fp64"),
        pytest.param(np.array([[1.5, -2]], np.float16), id="fp16"),
        pytest.param(np.array([[-128, 127]], np.int8), id="int8"),
        pytest.param(np.array([[0, 65535]], np.uint16), id="uint16"),
        pytest.param(np.array([[-(2**63), 2**63 - 1]]), id="int64"),
        pytest.param(np.array([[0, 2**64 - 1]], np.uint64), id="uint64"),
        pytest.param(np.array([[True, False]]), id="bool"),
        pytest.param(np.array([[b"a", b""]], object), id="bytes"),
    ],
)
def test_tensors_of_every_datatype_come_back(array: Any, request: pytest.FixtureRequest, api: Api) -> None:
    response = api.ask(f"echo_{request.node.callspec.id.rpartition('-')[2]}", {"x": array})
    np.testing.assert_array_equal(api.tf.make_ndarray(response.outputs["y"]), array)


def test_versions_labels_and_signatures_choose(api: Api) -> None:
    for spec, version in (({}, 2), ({"version": 1}, 1), ({"version_label": "stable"}, 1)):
        response = api.ask("classifier", {"features": ROWS}, signature_name="serving_default", **spec)
        assert response.model_spec.version.value == version
        assert set(response.outputs) == {"probabilities", "logits"}
    for spec, code, text in (
        ({"version": 7}, grpc.StatusCode.NOT_FOUND, "version 7 is not found; available: 1, 2, stable"),
        ({"version_label": "next"}, grpc.StatusCode.NOT_FOUND, "label 'next' is not found; available: 1, 2"),
        ({"signature_name": "train"}, grpc.StatusCode.INVALID_ARGUMENT, "'train' is not known"),
    ):
        with pytest.raises(grpc.RpcError, match=text) as caught:
            api.ask("classifier", {"features": ROWS}, **spec)
        assert caught.value.code() is code


def test_a_tensor_that_does_not_fit_is_refused(api: Api) -> None:
    for inputs, text in (
        ({"features": ROWS[:, :3]}, r"expected shape \[batch, 4\], got \[2, 3\]"),
        ({"features": ROWS.astype(np.float64)}, "expected datatype FP32, got FP64"),
        ({"features": ROWS.astype(np.complex64)}, "got tensorflow.DataType 8"),
        ({}, "input 'features' is missing"),
    ):
        with pytest.raises(grpc.RpcError, match=text) as caught:
            api.ask("classifier", inputs)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_examples_are_classified_and_regressed(api: Api) -> None:
    request = api.classification.ClassificationRequest()
    request.model_spec.name = "classifier"
    for row in ROWS.tolist():
        request.input.example_list.examples.append(api.example(features=row))
    expected = api.tf.make_ndarray(api.ask("classifier", {"features": ROWS}).outputs["probabilities"])
    response = api.prediction.Classify(request)
    found = [[each.score for each in row.classes] for row in response.result.classifications]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert response.model_spec.version.value == 2

    regress = api.regression.RegressionRequest()
    regress.model_spec.name = "echo_fp32"
    regress.input.example_list_with_context.context.CopyFrom(api.example(x=[2.5]))
    regress.input.example_list_with_context.examples.append(api.example(x=[1.5]))
    regress.input.example_list_with_context.examples.append(api.tf.train.Example())
    assert [each.value for each in api.prediction.Regress(regress).result.regressions] == [1.5, 2.5]

    multi = api.inference.MultiInferenceRequest()
    multi.input.CopyFrom(request.input)
    multi.tasks.add(method_name="tensorflow/serving/classify").model_spec.name = "classifier"
    (result,) = api.prediction.MultiInference(multi).results
    assert len(result.classification_result.classifications) == 2

    request.input.example_list.examples.append(api.example(other=[1.0]))
    with pytest.raises(grpc.RpcError, match="example 2: feature 'features' is missing") as caught:
        api.prediction.Classify(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_metadata_is_a_signature(api: Api) -> None:
    request = api.metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "classifier"
    response = api.prediction.GetModelMetadata(request)
    signatures = api.metadata.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    definition = signatures.signature_def["serving_default"]
    assert definition.method_name == "tensorflow/serving/predict"
    assert [each.size for each in definition.inputs["features"].tensor_shape.dim] == [-1, 4]
    request.metadata_field[:] = ["graph"]
    with pytest.raises(grpc.RpcError, match="expected signature_def, got graph"):
        api.prediction.GetModelMetadata(request)


def test_states_are_told_and_the_list_of_models_is_replaced(api: Api) -> None:
    request = api.status.GetModelStatusRequest()
    request.model_spec.name = "classifier"
    found = api.models.GetModelStatus(request).model_version_status
    assert [(each.version, each.state) for each in found] == [(2, 30), (1, 30)]
    reload = api.management.ReloadConfigRequest()
    model = reload.config.model_config_list.config.add(name="classifier", base_path="")
    model.model_version_policy.specific.versions.append(1)
    model.version_labels["canary"] = 1
    # every other model stays, so that the tests beside this one find it
    index = [
        f"echo_{each}"
        for each in ("fp32", "fp64", "fp16", "int8", "uint16", "int64", "uint64", "bool", "bytes")
    ]
    for name in index:
        reload.config.model_config_list.config.add(name=name)
    assert api.models.HandleReloadConfigRequest(reload).status.error_code == 0
    assert api.ask("classifier", {"features": ROWS}, version_label="canary").model_spec.version.value == 1
    with pytest.raises(grpc.RpcError):
        api.ask("classifier", {"features": ROWS}, version=2)
    with pytest.raises(grpc.RpcError):
        api.ask("pair", {"left": ROWS, "right": ROWS})
    with pytest.raises(grpc.RpcError) as nothing:  # which would unload everything
        api.models.HandleReloadConfigRequest(type(reload)())
    assert nothing.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expected model_config_list, got nothing" in str(nothing.value.details())
    reload.config.model_config_list.config.add(name="pair", base_path="/etc")
    status = api.models.HandleReloadConfigRequest(reload).status
    assert status.error_code == 3
    assert "base_path" in status.error_message
    request.model_spec.name = "foo"
    with pytest.raises(grpc.RpcError) as caught:
        api.models.GetModelStatus(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
