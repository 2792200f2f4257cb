"""The access log: one line for each request, whoever asks, on both transports."""

import hashlib
import json
import queue
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from kerve.runtime.observation.access import record
from kerve.runtime.observation.observer import CallObservation

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]
Lines = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    """A server that logs every request as JSON."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "classifier")
    (folder / "classifier" / "config.toml").write_text("max_batch_size = 8\n")
    publish(folder, "echo_bytes")
    publish(folder, "triples")
    options = ("--transport", transport, "--http-port", "-1", "--access-log", "--log-format", "json")
    with serve(folder, *options) as server:
        yield server


@pytest.fixture
def lines(running: Any, until: Until) -> Lines:
    """Returns the lines of the requests with an id, once there are so many."""

    def wait(request_id: str, count: int = 1) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            written = running.log.read_text()
            complete = [json.loads(each) for each in written[: written.rfind("\n") + 1].splitlines()]
            return [each for each in complete if each.get("request_id") == request_id]

        until(lambda: len(found()) >= count, f"there are {count} lines of request {request_id!r}")
        return found()

    return wait


def tensor(module: Any, rows: int, width: int = 4) -> Any:
    made = module.InferInput("features", [rows, width], "FP32")
    made.set_data_from_numpy(np.ones((rows, width), np.float32))
    return made


def test_a_request_has_one_line_with_all_that_is_known_of_it(running: Any, lines: Lines) -> None:
    with triton.InferenceServerClient(running.address) as client:
        client.infer("classifier", [tensor(triton, 5)], request_id="one")
    (line,) = lines("one")
    assert line["logger"] == "kerve.access"
    assert line["method"] == "inference.GRPCInferenceService/ModelInfer"
    assert (line["model"], line["version"], line["rows"], line["batch"]) == ("classifier", "1", 5, 5)
    assert line["code"] == "OK"
    assert 0 <= line["queue_ms"] <= line["total_ms"]
    assert 0 < line["compute_ms"] <= line["total_ms"]
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", line["peer"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_an_id_may_come_with_the_metadata(running: Any, lines: Lines) -> None:
    with triton.InferenceServerClient(running.address) as client:
        client.infer("classifier", [tensor(triton, 1)], headers={"x-request-id": "from-metadata"})
        client.infer(
            "classifier", [tensor(triton, 1)], request_id="mine", headers={"x-request-id": "the proxy's"}
        )
    assert lines("from-metadata")
    assert lines("mine")


def test_a_request_without_an_id_gets_one(running: Any, until: Until) -> None:
    before = len(running.log.read_text())
    with triton.InferenceServerClient(running.address) as client:
        for _ in range(2):
            client.infer("echo_bytes", [triton.InferInput("x", [0, 1], "BYTES").set_data_from_numpy(EMPTY)])

    def made() -> list[str]:
        written = running.log.read_text()[before:]
        return re.findall(r'"request_id": "([0-9a-f]{16})"', written)

    until(lambda: len(made()) == 2, "both have a line")
    assert len(set(made())) == 2


EMPTY = np.empty((0, 1), object)


@pytest.mark.parametrize(
    ("model", "width", "code", "version"),
    [
        pytest.param("classifier", 3, "INVALID_ARGUMENT", "", id="wrong shape"),
        pytest.param("nobody", 4, "NOT_FOUND", "", id="unknown model"),
    ],
)
def test_a_refused_request_has_its_line(
    model: str, width: int, code: str, version: str, running: Any, lines: Lines
) -> None:
    request_id = f"refused {model}"
    with triton.InferenceServerClient(running.address) as client, pytest.raises(InferenceServerException):
        client.infer(model, [tensor(triton, 1, width)], request_id=request_id)
    (line,) = lines(request_id)
    assert (line["model"], line["code"], line["version"]) == (model, code, version)
    assert line["queue_ms"] is None
    assert line["total_ms"] > 0


@pytest.mark.parametrize(
    ("method", "code"),
    [("ModelInfer", "INTERNAL"), ("ModelMetadata", "INTERNAL"), ("ModelGuess", "UNIMPLEMENTED")],
)
def test_what_is_no_request_has_its_line(method: str, code: str, running: Any, lines: Lines) -> None:
    with grpc.insecure_channel(running.address) as channel:
        call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with suppress(grpc.RpcError):
            call(b"\xff\xff", metadata=(("x-request-id", f"garbage for {method}"),))
    (line,) = lines(f"garbage for {method}")
    assert line["code"] == code


def test_every_request_of_a_stream_has_its_line(running: Any, lines: Lines) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(running.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, width in enumerate((4, 3, 4)):
            client.async_stream_infer("classifier", [tensor(triton, 2, width)], request_id=f"stream {number}")
        errors = [answers.get(timeout=60)[1] for _ in range(3)]
        client.stop_stream()
    assert [error is None for error in errors] == [True, False, True]
    found = [lines(f"stream {number}") for number in range(3)]
    assert [[each["code"] for each in of_one] for of_one in found] == [["OK"], ["INVALID_ARGUMENT"], ["OK"]]
    assert {each[0]["method"] for each in found} == {"inference.GRPCInferenceService/ModelStreamInfer"}
    assert found[0][0]["rows"] == 2


def test_a_request_over_http_has_one_line_with_its_own_peer(running: Any, lines: Lines) -> None:
    with triton_http.InferenceServerClient(running.http) as client:
        client.infer("classifier", [tensor(triton_http, 4)], request_id="over http")
    (line,) = lines("over http")
    assert (line["model"], line["rows"], line["code"]) == ("classifier", 4, "OK")
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", line["peer"])


def test_the_log_says_which_request_failed(running: Any, lines: Lines, until: Until) -> None:
    odd = triton.InferInput("x", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
    with triton.InferenceServerClient(running.address) as client, pytest.raises(InferenceServerException):
        client.infer("triples", [odd], request_id="odd")
    assert lines("odd")[0]["code"] == "INTERNAL"
    errors = [json.loads(line) for line in running.log.read_text().splitlines() if '"error"' in line]
    assert ["odd"] in [each.get("request_ids") for each in errors]


def test_a_client_cannot_say_that_it_is_another(running: Any, lines: Lines) -> None:
    with triton.InferenceServerClient(running.address) as client:
        headers = {"kerve-peer": "ipv4:10.0.0.1:1"}
        client.infer("classifier", [tensor(triton, 1)], request_id="liar", headers=headers)
    assert lines("liar")[0]["peer"].startswith("ipv4:127.0.0.1:")


def test_nor_can_one_of_http(running: Any, lines: Lines) -> None:
    claims = {
        "kerve-peer": "ipv4:10.0.0.1:1",
        "Forwarded": 'for="10.0.0.1:1"',
        "X-Forwarded-For": "10.0.0.1",
        "Connection": "forwarded, keep-alive",
    }
    with triton_http.InferenceServerClient(running.http) as client:
        client.infer("classifier", [tensor(triton_http, 1)], request_id="liar's request", headers=claims)
        client.get_model_metadata("classifier", headers={**claims, "X-Request-Id": "liar's question"})
    for request_id in ("liar's request", "liar's question"):
        assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", lines(request_id)[0]["peer"])


def test_other_calls_have_lines_too(running: Any, lines: Lines) -> None:
    with triton.InferenceServerClient(running.address) as client:
        client.get_model_metadata("classifier", headers={"x-request-id": "description"})
        with pytest.raises(InferenceServerException):
            client.get_model_config("nobody", headers={"x-request-id": "nobody's"})
    (line,) = lines("description")
    assert line["method"] == "inference.GRPCInferenceService/ModelMetadata"
    assert (line["model"], line["code"]) == ("classifier", "OK")
    assert lines("nobody's")[0]["code"] == "NOT_FOUND"
    request = urllib.request.Request(f"http://{running.http}/v2", headers={"X-Request-Id": "v2"})
    urllib.request.urlopen(request, timeout=60).read()
    assert [each["method"] for each in lines("v2")] == ["inference.GRPCInferenceService/ServerMetadata"]


@pytest.mark.parametrize(
    ("verb", "path", "body", "model", "code"),
    [
        ("GET", "/v1/models/classifier", None, "classifier", "OK"),
        ("GET", "/v1/models/classifier/versions/7/metadata", None, "classifier", "NOT_FOUND"),
        ("GET", "/metrics", None, "", "OK"),
        ("GET", "/", None, "", "OK"),
        ("GET", "/v2/nowhere", None, "", "NOT_FOUND"),
        ("DELETE", "/v2", None, "", "UNIMPLEMENTED"),
        ("POST", "/v2/models/classifier/infer", b"{", "classifier", "INVALID_ARGUMENT"),
        ("POST", "/v1/models/nobody:predict", b"{}", "nobody", "NOT_FOUND"),
    ],
)
def test_what_only_http_answers_has_one_line(
    verb: str, path: str, body: bytes | None, model: str, code: str, running: Any, lines: Lines
) -> None:
    headers = {"X-Request-Id": f"{verb} {path}"}
    request = urllib.request.Request(f"http://{running.http}{path}", body, headers, method=verb)
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=60).read()
    (line,) = lines(headers["X-Request-Id"])
    assert (line["method"], line["model"], line["code"]) == (f"{verb} {path}", model, code)
    assert re.fullmatch(r"ipv4:127\.0\.0\.1:\d+", line["peer"])


def test_nobody_can_write_a_line_of_the_log(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "triples")
    forged = "one\n2026-01-01T00:00:00.000Z ERROR all is lost\x1b[2J"
    odd = triton.InferInput("x", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
    with serve(tmp_path, "--transport", transport, "--http-port", "-1", "--access-log") as running:
        with triton.InferenceServerClient(running.address) as client:
            with pytest.raises(InferenceServerException):
                client.infer("triples", [odd], request_id=forged)
            with pytest.raises(InferenceServerException):
                client.get_model_metadata("no code=OK")
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{running.http}/v2/a%0A2026%20ERROR", timeout=60)
        assert running.stop() == 0
        written = running.log.read_text()
    assert 'request_id="one\\n2026-01-01T' in written
    assert "(request one\\n2026-01-01T" in written  # of the error itself
    assert 'method="GET /v2/a\\n2026 ERROR"' in written
    assert 'model="no code=OK"' in written
    assert not re.search(r"\x1b|^2026(-01-01| ERROR)", written, re.MULTILINE)


def test_tensorflow_servings_calls_have_lines(running: Any, lines: Lines) -> None:
    with grpc.insecure_channel(running.address) as channel:
        call: Any = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError):
            call(b"\x0a\x0c\x0a\x0aclassifier", metadata=(("x-request-id", "predict"),))
    (line,) = lines("predict")
    assert line["method"] == "tensorflow.serving.PredictionService/Predict"
    assert (line["model"], line["code"]) == ("classifier", "INVALID_ARGUMENT")


def test_lines_are_for_people_too_and_only_where_they_are_asked_for(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "classifier")
    for options, expected in ((("--access-log",), 20), ((), 0)):
        with serve(tmp_path, "--transport", transport, *options) as running:
            with triton.InferenceServerClient(running.address) as client:
                for number in range(20):
                    client.infer("classifier", [tensor(triton, 1)], request_id=f"r-{number}")
            assert running.stop() == 0
            found = re.findall(
                r"INFO request request_id=r-(\d+) .* model=classifier version=1 rows=1 batch=1 code=OK ",
                running.log.read_text(),
            )
        assert found == [str(number) for number in range(expected)]


def test_who_is_not_let_in_has_a_line(transport: str, tmp_path: Path, publish: Publish, serve: Serve) -> None:
    publish(tmp_path / "models", "classifier")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{hashlib.sha256(b'good').hexdigest()} infer\n")
    options = ("--transport", transport, "--tokens", str(tokens), "--access-log")
    with serve(tmp_path / "models", *options) as running:
        with triton.InferenceServerClient(running.address) as client:
            headers = {"x-request-id": "stranger"}
            with pytest.raises(InferenceServerException):
                client.infer("classifier", [tensor(triton, 1)], headers=headers)
        assert running.stop() == 0
        (line,) = re.findall(r"request_id=stranger .*", running.log.read_text())
    assert "code=UNAUTHENTICATED" in line
    assert "good" not in running.log.read_text()


def test_a_traced_request_whose_caller_sends_no_trace_context_has_its_line() -> None:
    """Requests are traced by share, too; what a caller calls a traceparent may be anything."""
    for given, trace in (("x", None), (f"00-{'a' * 32}-{'b' * 16}-01", "a" * 32)):
        observation = CallObservation("/m", "ipv4:127.0.0.1:1", "one", given, "", sampled=True)
        assert vars(record(observation))["fields"].get("trace_id") == trace
