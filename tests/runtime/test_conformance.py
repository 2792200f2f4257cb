"""Every RPC of Triton's service, by its own clients: gRPC and REST, on both transports.

docs/reference/conformance.md says which test covers which RPC of which protocol; here are those that need
no more of a server than that it runs.
"""

import functools
import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException, shared_memory

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

MODELS = ("classifier", "pair", "scalar", "counter", "echo_bytes", "echo_fp16", "echo_bf16", "echo_fp32")
LABELS = 'output { name: "logits" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt" }\n'
ROWS = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    for model in MODELS:
        publish(repository, model)
    (repository / "classifier" / "config.pbtxt").write_text(LABELS)
    (repository / "classifier" / "labels.txt").write_text("cat\ndog\n")
    options = ("--transport", transport, "--http-port", "-1", "--model-control-mode", "explicit")
    with serve(repository, *options, "--load-model", "*") as server:
        yield server


class Client:
    """One of Triton's clients; what it returns as JSON, which the two write alike."""

    def __init__(self, module: Any, address: str) -> None:
        self.module = module
        self.own = module.InferenceServerClient(address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    @property
    def is_http(self) -> bool:
        return bool(self.module is triton_http)

    def read(self, method: str, *arguments: Any, **options: Any) -> Any:
        as_json = {} if self.is_http else {"as_json": True}
        return getattr(self.own, method)(*arguments, **options, **as_json)

    def tensor(self, name: str, array: Any, datatype: str) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    def classify(self, **options: Any) -> Any:
        return self.own.infer("classifier", [self.tensor("features", ROWS, "FP32")], **options)

    def refused(self, code: int, name: str) -> Any:
        """Expects an error of either protocol."""
        return pytest.raises(InferenceServerException, match=rf"^\[({code}|StatusCode\.{name})\] ")


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, running: Any) -> Iterator[Client]:
    grpc = request.param == "grpc"
    client = Client(triton_grpc if grpc else triton_http, running.address if grpc else running.http)
    with client.own:
        yield client


def test_server_and_models_are_live_ready_and_described(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classifier")
    assert client.is_model_ready("classifier", "1")
    assert not client.is_model_ready("classifier", "2")
    assert not client.is_model_ready("what")
    server = client.read("get_server_metadata")
    assert server["name"] == "kerve"
    assert {"classification", "sequence", "statistics", "trace", "logging"} <= set(server["extensions"])
    model = client.read("get_model_metadata", "classifier")
    assert (model["versions"], model["platform"]) == (["1"], "onnxruntime_onnx")
    assert [each["name"] for each in (*model["inputs"], *model["outputs"])] == ["features", "logits"]
    config = client.read("get_model_config", "classifier")
    config = config if client.is_http else config["config"]
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["output"][0]["label_filename"] == "labels.txt"
    for method in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
        with client.refused(404, "NOT_FOUND"):
            client.read(method, "what")
        with client.refused(404, "NOT_FOUND"):
            client.read(method, "classifier", "2")


def test_an_answer_is_that_of_the_request(client: Client) -> None:
    answer = client.classify(request_id="mine", model_version="")
    response = answer.get_response() if client.is_http else None
    identity = response["id"] if response else answer.get_response().id
    version = response["model_version"] if response else answer.get_response().model_version
    assert (identity, version) == ("mine", "1")
    logits = answer.as_numpy("logits")
    options = (
        {"priority": 1, "timeout": 10_000_000},
        {"parameters": {"whose": "ours", "count": 3, "share": 0.5, "yes": True}},
        {"headers": {"x-request-id": "7"}},
        {"outputs": [client.module.InferRequestedOutput("logits")] * 2},
    )
    for each in options:
        np.testing.assert_array_equal(client.classify(**each).as_numpy("logits"), logits)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_messages_may_be_compressed(algorithm: str, client: Client) -> None:
    names = ("request", "response") if client.is_http else ("",)
    for name in names:
        option = {f"{name}_compression_algorithm".lstrip("_"): algorithm}
        assert client.classify(**option).as_numpy("logits").shape == (2, 3)


def test_the_best_classes_come_with_their_labels(client: Client) -> None:
    def best(model: str, tensor: Any, output: str, count: int) -> Any:
        wanted = client.module.InferRequestedOutput(output, class_count=count)
        return client.infer(model, [tensor], outputs=[wanted]).as_numpy(output)

    features = client.tensor("features", ROWS, "FP32")
    found = best("classifier", features, "logits", 9)
    assert found.shape == (2, 3)
    assert {text.decode().split(":", 1)[1] for text in found[0]} == {"0:cat", "1:dog", "2"}
    assert best("classifier", client.tensor("features", ROWS[:0], "FP32"), "logits", 9).shape == (0, 3)
    assert best("scalar", client.tensor("x", np.array(1.5), "FP64"), "y", 1).tolist() == [b"-1.500000:0"]
    half = client.tensor("x", np.array([[1.5, 2]], np.float16), "FP16")
    assert best("echo_fp16", half, "y", 1).tolist() == [[b"2.000000:1"]]
    words = client.tensor("x", np.array([[b"a", b"b"]], object), "BYTES")
    with pytest.raises(InferenceServerException, match="unsupported type 'BYTES'"):
        best("echo_bytes", words, "y", 1)


@pytest.mark.parametrize(
    ("model", "array", "datatype"),
    [
        pytest.param("echo_fp32", np.zeros((0, 4), np.float32), "FP32", id="no rows"),
        pytest.param("echo_fp32", np.zeros((3, 0), np.float32), "FP32", id="no columns"),
        pytest.param("echo_bytes", np.zeros((0, 4), object), "BYTES", id="no rows of text"),
        pytest.param("echo_bytes", np.array([[b"", b"\0", "ü".encode()]], object), "BYTES", id="text"),
        pytest.param("echo_fp16", np.array([[1.5, np.inf]], np.float16), "FP16", id="half"),
        pytest.param("echo_bf16", np.array([[1.5, -2]], ml_dtypes.bfloat16), "BF16", id="bfloat16"),
        pytest.param("echo_fp32", np.array([[1, 2], [3, 4]], np.float32).T, "FP32", id="transposed"),
    ],
)
def test_tensors_of_every_kind_come_back(model: str, array: Any, datatype: str, client: Client) -> None:
    found = client.infer(model, [client.tensor("x", array, datatype)]).as_numpy("y")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_long_message_is_cut_to_what_trailers_hold(running: Any) -> None:
    name = 10_000 * "ä"
    with triton_grpc.InferenceServerClient(running.address) as client:
        for call in (client.get_model_metadata, functools.partial(client.infer, inputs=[])):
            with pytest.raises(InferenceServerException) as caught:
                call(name)
            assert caught.value.message().endswith("ä...")
            assert 2000 < len(caught.value.message().encode()) <= 2048 + len("...")


def test_a_scalar_has_no_dimensions(client: Client) -> None:
    found = client.infer("scalar", [client.tensor("x", np.array(1.5), "FP64")]).as_numpy("y")
    assert (found.shape, found) == ((), -1.5)


def test_what_does_not_fit_is_an_invalid_argument(client: Client) -> None:
    features = client.tensor("features", ROWS, "FP32")
    output = client.module.InferRequestedOutput("what")
    cases: tuple[tuple[str, list[Any], Mapping[str, Any], str], ...] = (
        ("classifier", [features], {"outputs": [output]}, "unexpected inference output 'what' for model"),
        ("classifier", [features, features], {}, "input 'features' is given twice"),
        ("classifier", [], {}, "input 'features' is missing"),
        ("classifier", [client.tensor("features", ROWS[:, 1:], "FP32")], {}, r"expected shape \[batch, 4\]"),
        (
            "classifier",
            [client.tensor("features", ROWS.astype(np.float64), "FP64")],
            {},
            "expected datatype FP32",
        ),
        ("pair", [features], {}, "unexpected input 'features'"),
    )
    for model, inputs, options, message in cases:
        with client.refused(400, "INVALID_ARGUMENT") as caught:
            client.infer(model, inputs, **options)
        caught.match(message)
    for version in ("2", "what"):
        with client.refused(404, "NOT_FOUND"):
            client.classify(model_version=version)


def test_a_deadline_ends_a_request(running: Any) -> None:
    with triton_grpc.InferenceServerClient(running.address) as client:
        steps = triton_grpc.InferInput("steps", [], "INT64")
        steps.set_data_from_numpy(np.array(1_000_000))
        for options in ({"client_timeout": 0.05}, {"client_timeout": 0.05, "timeout": 10_000_000}):
            with pytest.raises(InferenceServerException) as caught:
                client.infer("counter", [steps], **options)
            assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_requests_of_a_stream_are_answered_in_their_order(running: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client = Client(triton_grpc, running.address)
    with client.own:
        client.start_stream(lambda result, error: answers.put(error or result), compression_algorithm="gzip")
        for number, model in enumerate(("echo_fp32", "what", "echo_fp32")):
            inputs = [client.tensor("x", np.full((1, 2), number, np.float32), "FP32")]
            client.async_stream_infer(model, inputs, request_id=str(number), enable_empty_final_response=True)
        first, wrong, last = (answers.get(timeout=60) for _ in range(3))
        client.stop_stream()
    assert "Request for unknown model: 'what' is not found" in str(wrong)
    assert [each.get_response().id for each in (first, last)] == ["0", "2"]
    assert last.as_numpy("y").tolist() == [[2, 2]]
    assert last.get_response().parameters["triton_final_response"].bool_param


def test_statistics_add_up(client: Client) -> None:
    def read() -> tuple[int, ...]:
        (found,) = client.read("get_inference_statistics", "echo_fp16")["model_stats"]
        stats = found.get("inference_stats", {})
        counts = [int(stats.get(name, {}).get("count", 0)) for name in ("success", "fail", "queue")]
        return (*counts, int(found.get("inference_count", 0)))

    before = read()
    for rows in (1, 3):
        client.infer("echo_fp16", [client.tensor("x", np.ones((rows, 2), np.float16), "FP16")])
    assert np.subtract(read(), before).tolist() == [2, 0, 2, 4]
    every = client.read("get_inference_statistics")["model_stats"]
    assert {each["name"] for each in every} >= set(MODELS)


def test_models_are_listed_loaded_and_unloaded(models: Path, client: Client) -> None:
    def states() -> dict[str, str]:
        listed = client.read("get_model_repository_index")
        listed = listed if client.is_http else listed["models"]
        return {each["name"]: each.get("state", "") for each in listed}

    assert states()["pair"] == "READY"
    client.unload_model("pair", unload_dependents=True)
    assert not client.is_model_ready("pair")
    with client.refused(503, "UNAVAILABLE"):
        client.infer("pair", [client.tensor("left", ROWS, "FP32")])
    client.load_model("pair", config='{"max_batch_size": 5}')
    assert states()["pair"] == "READY"
    file = {"file:7/model.onnx": (models / "pair.onnx").read_bytes()}
    client.load_model("sent", config="{}", files=file)
    assert client.is_model_ready("sent", "7")
    client.unload_model("sent")
    with client.refused(404, "NOT_FOUND"):
        client.load_model("what")
    with client.refused(404, "NOT_FOUND"):
        client.unload_model("what")
    with client.refused(400, "INVALID_ARGUMENT"):
        client.load_model("pair", config="{")


def test_system_shared_memory_is_registered_told_and_forgotten(client: Client) -> None:
    handle = shared_memory.create_shared_memory_region("region", "/kerve_conformance", 64)
    try:
        shared_memory.set_shared_memory_region(handle, [ROWS])
        client.register_system_shared_memory("region", "/kerve_conformance", 64)
        status = client.read("get_system_shared_memory_status")
        (told,) = status if client.is_http else status["regions"].values()
        assert (told["key"], int(told["byte_size"])) == ("/kerve_conformance", 64)
        tensor = client.module.InferInput("features", [2, 4], "FP32")
        tensor.set_shared_memory("region", 32)
        output = client.module.InferRequestedOutput("logits")
        output.set_shared_memory("region", 24, offset=32)
        client.infer("classifier", [tensor], outputs=[output])
        found = shared_memory.get_contents_as_numpy(handle, np.float32, [2, 3], offset=32)
        np.testing.assert_array_equal(found, client.classify().as_numpy("logits"))
        client.unregister_system_shared_memory("region")
        assert not client.read("get_system_shared_memory_status")
    finally:
        shared_memory.destroy_shared_memory_region(handle)


@pytest.mark.usefixtures("without_gpu")
def test_cuda_shared_memory_is_unimplemented_and_there_is_none(client: Client) -> None:
    with client.refused(501, "UNIMPLEMENTED"):
        client.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 64)
    assert not client.read("get_cuda_shared_memory_status")
    client.unregister_cuda_shared_memory()


def test_trace_and_log_settings_are_read_and_changed(client: Client) -> None:
    def value(setting: Any) -> Any:
        return setting if client.is_http else next(iter(setting.values()), None)

    def settings(found: Any) -> dict[str, Any]:
        found = found if client.is_http else found["settings"]
        return {name: value(setting) for name, setting in found.items()}

    rate = settings(client.read("update_trace_settings", settings={"trace_rate": "50"}))["trace_rate"]
    assert rate in ("50", ["50"])
    model = settings(client.read("update_trace_settings", "pair", settings={"trace_rate": "9"}))
    assert model["trace_rate"] in ("9", ["9"])
    assert settings(client.read("get_trace_settings"))["trace_rate"] in ("50", ["50"])
    client.update_trace_settings("pair", settings={"trace_rate": None})
    client.update_trace_settings(settings={"trace_rate": None})
    with client.refused(501, "UNIMPLEMENTED"):
        client.update_trace_settings(settings={"trace_level": ["TENSORS"]})
    assert settings(client.read("update_log_settings", {"log_verbose_level": 1}))["log_verbose_level"] == 1
    assert settings(client.read("get_log_settings"))["log_info"] is True
    client.update_log_settings({"log_verbose_level": 0})
    with client.refused(400, "INVALID_ARGUMENT"):
        client.update_log_settings({"log_what": True})
