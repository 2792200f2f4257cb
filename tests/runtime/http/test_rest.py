"""The HTTP port: OIP REST with the binary extension for Triton's client and for curl, metrics, the page."""

import gzip
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]


@pytest.fixture(scope="module")
def running(
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
    models: Path,
    publish: Publish,
    serve: Serve,
) -> Iterator[Any]:
    """A server with an HTTP port that loads on request; all models are loaded."""
    repository = tmp_path_factory.mktemp("models")
    for file in models.glob("*.onnx"):
        publish(repository, file.stem)
    options = ("--http-port", "-1", "--transport", transport, "--model-control-mode", "explicit")
    with serve(repository, *options, "--load-model", "*") as server:
        yield server


@pytest.fixture
def client(running: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(running.http) as client:
        yield client


def test_tritons_client_finds_everything_live_ready_and_described(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classifier")
    assert client.is_model_ready("classifier", "1")
    assert not client.is_model_ready("classifier", "2")
    assert client.get_server_metadata()["name"] == "kerve"
    metadata = client.get_model_metadata("classifier")
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
    config = client.get_model_config("classifier")
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["input"][0]["dims"] == [4]
    index = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    assert index["classifier"] == "READY"


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_tensors_travel_as_binary_and_as_json(
    binary_input: bool, binary_output: bool, algorithm: str | None, client: Any
) -> None:
    for datatype, array in (
        ("fp32", np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)),
        ("int64", np.array([[-(2**63), 2**63 - 1]])),
        ("uint8", np.array([[0, 255]], np.uint8)),
        ("bool", np.array([[True, False]])),
        ("bytes", np.array([["ä", "", "b\n"]], object)),
    ):
        tensor = triton.InferInput("x", list(array.shape), datatype.upper())
        tensor.set_data_from_numpy(array, binary_data=binary_input)
        wanted = triton.InferRequestedOutput("y", binary_data=binary_output)
        answer = client.infer(
            f"echo_{datatype}",
            [tensor],
            outputs=[wanted],
            request_id="7",
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        found = answer.as_numpy("y")
        if datatype == "bytes" and binary_output:
            found = np.array([each.decode() for each in found.ravel()], object).reshape(found.shape)
        np.testing.assert_array_equal(found, array)
        assert answer.get_response()["id"] == "7"


def test_classes_and_errors_come_as_in_triton(client: Any) -> None:
    tensor = triton.InferInput("features", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    wanted = triton.InferRequestedOutput("probabilities", class_count=2)
    assert client.infer("classifier", [tensor], outputs=[wanted]).as_numpy("probabilities").shape == (1, 2)
    with pytest.raises(
        InferenceServerException, match="Request for unknown model: 'foo' is not found"
    ) as caught:
        client.infer("foo", [tensor])
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="unexpected input 'features'") as caught:
        client.infer("pair", [tensor])
    assert caught.value.status() == "400"


def test_models_are_loaded_and_unloaded_over_http(client: Any, models: Path) -> None:
    contents = (models / "pair.onnx").read_bytes()
    client.load_model("sent", config='{"max_batch_size": 3}', files={"file:5/model.onnx": contents})
    assert client.get_model_config("sent")["max_batch_size"] == 3
    assert client.is_model_ready("sent", "5")
    client.unload_model("sent")
    assert not client.is_model_ready("sent")
    with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
        client.load_model("foo")


def test_statistics_and_settings_are_numbers_and_words(client: Any) -> None:
    (stats,) = client.get_inference_statistics("classifier")["model_stats"]
    assert isinstance(stats["inference_stats"]["success"]["ns"], int)
    assert client.get_log_settings()["log_info"] is True
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    for bad in (-1, 2**32):
        with pytest.raises(InferenceServerException, match="'log_verbose_level': invalid value"):
            client.update_log_settings({"log_verbose_level": bad})
    assert client.get_log_settings()["log_verbose_level"] == 0


def ask(
    running: Any, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(f"http://{running.http}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_health_is_told_as_kserves_client_reads_it(running: Any) -> None:
    for path, answer in (
        ("health/live", {"live": True}),
        ("health/ready", {"ready": True}),
        ("models/classifier/ready", {"name": "classifier", "ready": True}),
    ):
        status, _, body = ask(running, f"/v2/{path}")
        assert (status, json.loads(body)) == (200, answer)
        assert b" " not in body  # as Triton writes it, for those who look with grep


def test_a_body_may_be_the_only_input(running: Any) -> None:
    nothing = {"Inference-Header-Content-Length": "0"}
    rows = np.arange(4, dtype=np.float32)
    status, headers, body = ask(running, "/v2/models/classifier/infer", rows.tobytes(), **nothing)
    assert status == 200
    document = json.loads(body[: int(headers["Inference-Header-Content-Length"])])
    found = [(each["shape"], each["parameters"]) for each in document["outputs"]]
    assert found == 2 * [([1, 3], {"binary_data_size": 12})]
    _, headers, body = ask(running, "/v2/models/echo_fp32/infer", rows.tobytes(), **nothing)
    assert body[int(headers["Inference-Header-Content-Length"]) :] == rows.tobytes()
    for model, data, said in (
        ("classifier", bytes(15), "expected 16 bytes for FP32 [1, 4], got 15"),
        ("pair", bytes(16), "needs a model with one input, 'pair' has 2"),
        ("echo_bytes", b"word", "needs an input with one element, 'x' has the shape [batch, width]"),
    ):
        status, _, body = ask(running, f"/v2/models/{model}/infer", data, **nothing)
        assert status == 400
        assert said in json.loads(body)["error"]


def test_text_is_kept_to_its_last_zero(running: Any) -> None:
    texts = ["a\0", "\0", "", "b"]
    body = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "BYTES", "data": texts}]}
    _, _, answer = ask(running, "/v2/models/echo_bytes/infer", json.dumps(body).encode())
    assert json.loads(answer)["outputs"][0]["data"] == texts


def test_half_of_a_surrogate_pair_is_no_text(running: Any) -> None:
    tensor = {"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": ["\U0001f600"]}
    path = "/v2/models/echo_bytes/infer"
    _, _, answer = ask(running, path, json.dumps({"inputs": [tensor]}).encode())
    assert json.loads(answer)["outputs"][0]["data"] == tensor["data"]
    for key, value in (("name", "\ud800"), ("datatype", "\udc00"), ("data", ["\ud83d"])):
        status, _, answer = ask(running, path, json.dumps({"inputs": [{**tensor, key: value}]}).encode())
        assert status == 400
        assert b"surrogates not allowed" in answer
    body = json.dumps({"instances": [["a"]], "signature_name": "\ud800"}).encode()
    assert ask(running, "/v1/models/echo_bytes:predict", body)[0] == 400


def test_a_path_is_decoded_once(transport: str, tmp_path: Path, publish: Publish, serve: Serve) -> None:
    for name in ("a b", "a%20b"):
        publish(tmp_path, "echo_fp32", name=name)
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}'
    with serve(tmp_path, "--http-port", "-1", "--transport", transport) as running:
        for path, name in (("a%20b", "a b"), ("a%2520b", "a%20b")):
            assert json.loads(ask(running, f"/v2/models/{path}")[2])["name"] == name
            assert json.loads(ask(running, f"/v2/models/{path}/infer", body)[2])["model_name"] == name


def test_curl_gets_an_answer(running: Any) -> None:
    body = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]}], "id": "a"}
    )
    done = subprocess.run(
        ["curl", "-sS", "-d", body, f"http://{running.http}/v2/models/echo_fp32/infer"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert answer == {
        "model_name": "echo_fp32",
        "model_version": "1",
        "id": "a",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]}],
    }


GOOD = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "expected a JSON object"),
        (b"{", "expected a JSON object"),
        (b"{" * 100_000, "expected a JSON object"),
        ({"inputs": 1}, "inputs: expected a list"),
        ({"inputs": [1]}, "inputs: expected an object"),
        ({"inputs": [{**GOOD, "shape": "1"}]}, "shape: expected a list of numbers"),
        ({"inputs": [{**GOOD, "shape": [1 << 70]}]}, "shape: expected a list of numbers"),
        ({"inputs": [{**GOOD, "data": [1, [2]]}]}, "data: expected FP32"),
        ({"inputs": [{**GOOD, "data": ["a", "b"]}]}, "data: expected FP32"),
        ({"inputs": [{**GOOD, "data": [1]}]}, "expected 8 bytes"),
        ({"inputs": [{**GOOD, "datatype": "BF16"}]}, "BF16 cannot be given as JSON"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "got neither"),
        ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 8}}]}, "0 bytes are left"),
        ({"inputs": [GOOD], "parameters": {"a": [1]}}, "parameter 'a'"),
        ({"inputs": [GOOD], "id": 7}, "id: expected text"),
    ],
)
def test_what_does_not_fit_is_refused_with_400(body: Any, message: str, running: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, _, answer = ask(running, "/v2/models/echo_fp32/infer", data)
    assert status == 400
    assert message in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("UINT64", [2**64 - 1, 0]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [-1, 2**64 - 1]),
        ("INT64", [2**63, -1]),
        ("INT64", [2**63, 0.5]),
    ],
)
def test_whole_numbers_keep_every_digit_or_are_refused(
    datatype: str, values: list[Any], running: Any
) -> None:
    body = json.dumps({"inputs": [{**GOOD, "datatype": datatype, "data": values}]}).encode()
    status, _, answer = ask(running, f"/v2/models/echo_{datatype.lower()}/infer", body)
    low, high = (0, 2**64) if datatype == "UINT64" else (-(2**63), 2**63)
    if all(low <= value < high for value in values):
        assert json.loads(answer)["outputs"][0]["data"] == values
    else:
        assert status == 400
        assert f"data: expected {datatype}" in json.loads(answer)["error"]


def test_headers_that_lie_are_refused(running: Any) -> None:
    path = "/v2/models/echo_fp32/infer"
    for headers in (
        {"Inference-Header-Content-Length": "99"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "gzip"},
    ):
        assert ask(running, path, b"{}", **headers)[0] == 400
    assert ask(running, path, gzip.compress(b"{}")[:-3], **{"Content-Encoding": "gzip"})[0] == 400
    assert ask(running, "/v3")[0] == 404
    for known, allowed in ((path, "POST"), ("/v2/logging", "GET, HEAD, POST")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                urllib.request.Request(f"http://{running.http}{known}", method="PUT"), timeout=30
            )
        assert (refused.value.code, refused.value.headers["Allow"]) == (405, allowed)


def test_what_is_got_says_nothing_in_a_body(running: Any) -> None:
    """A probe may come with anything, which is not unpacked: it could be a thousand times as large then."""
    request = urllib.request.Request(
        f"http://{running.http}/v2/health/live", b"no gzip", {"Content-Encoding": "gzip"}, method="GET"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_headers_that_grpc_cannot_carry_do_not_matter(running: Any) -> None:
    for name in ("x-request-id", "traceparent", "authorization"):
        assert ask(running, "/v2", None, **{name: "Bearer \xe4"})[0] == 200
    headers = {"Inference-Header-Content-Length": "9" * 5000}
    status, _, answer = ask(running, "/v2/models/echo_fp32/infer", b"{}", **headers)
    assert (status, "expected at most the 2 bytes" in json.loads(answer)["error"]) == (400, True)


def test_metrics_tell_of_every_version(running: Any) -> None:
    body = json.dumps({"inputs": [GOOD]}).encode()
    assert ask(running, "/v2/models/echo_fp32/infer", body)[0] == 200
    status, headers, text = ask(running, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    lines = text.decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    labels = '{model="echo_fp32",version="1"}'
    assert float(values[f"nv_inference_request_success{labels}"]) >= 1
    # as Triton has them: counters without `_total`, failures by reason
    assert "# TYPE nv_inference_request_success counter" in lines
    assert {
        'model="echo_fp32",reason="CANCELED",version="1"',
        'model="echo_fp32",reason="BACKEND",version="1"',
    } <= {name.removeprefix("nv_inference_request_failure{").removesuffix("}") for name in values}
    count = float(values[f"kerve_request_duration_seconds_count{labels}"])
    assert (
        count
        == float(values['kerve_request_duration_seconds_bucket{le="+Inf",model="echo_fp32",version="1"}'])
        >= 1
    )
    assert float(values[f"kerve_model_ready{labels}"]) == 1
    assert "process_resident_memory_bytes" in values
    for part in ("queue", "compute"):
        assert f"kerve_{part}_duration_seconds_sum{labels}" in values


def test_the_page_is_whole_in_itself_and_its_numbers_are_there(running: Any) -> None:
    status, headers, page = ask(running, "/")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"http://" not in page.replace(b"http://www.w3.org/2000/svg", b"")
    models = json.loads(ask(running, "/status.json")[2])["models"]
    (model,) = (each for each in models if each["name"] == "classifier")
    assert (model["state"], model["version"]) == ("READY", 1)
    assert {"succeeded", "waited", "computed", "batch_sizes"} <= model["statistics"].keys()


def test_a_drain_answers_what_http_has_accepted_and_refuses_the_rest(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve, until: Until
) -> None:
    publish(tmp_path, "counter")
    with serve(tmp_path, "--http-port", "-1", "--transport", transport) as running:

        def count(steps: int) -> tuple[int, dict[str, str], bytes]:
            tensor = {"name": "steps", "shape": [], "datatype": "INT64", "data": [steps]}
            return ask(running, "/v2/models/counter/infer", json.dumps({"inputs": [tensor]}).encode())

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(count, 1_000_000)
            running.wait_for("counter", begun=1)
            running.process.terminate()
            until(lambda: ask(running, "/v2/health/ready")[0] == 503, "it drains")
            assert count(1)[0] == 503
            assert slow.result()[0] == 200
        assert running.process.wait(timeout=60) == 0


def test_probes_wait_for_nobody_who_has_models_compute(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    """A pod whose requests take long would be ended by those who look whether it lives."""
    publish(tmp_path, "counter")
    with serve(tmp_path, "--http-port", "-1", "--transport", transport) as running:

        def count(steps: int) -> int:
            tensor = {"name": "steps", "shape": [], "datatype": "INT64", "data": [steps]}
            return ask(running, "/v2/models/counter/infer", json.dumps({"inputs": [tensor]}).encode())[0]

        with ThreadPoolExecutor(120) as pool:
            others = [pool.submit(count, 3_000_000)]
            running.wait_for("counter", begun=1)
            others += [pool.submit(count, 1) for _ in range(119)]
            live, ready = ask(running, "/v2/health/live")[0], ask(running, "/v2/health/ready")[0]
            assert not others[0].done()
            assert (live, ready) == (200, 200)
            assert [each.result() for each in others] == [200] * 120
