"""TraceSetting through Triton's clients, and the files that come of it, on both transports."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]


@pytest.fixture
def traced(transport: str, tmp_path: Path, publish: Publish, serve: Serve) -> Iterator[Any]:
    """A server with a file for traces, of which it is told nothing else yet."""
    with served(tmp_path, transport, publish, serve) as client:
        yield client


@pytest.fixture(scope="module")
def unchanged(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    """The same server for all the tests that change nothing."""
    with served(tmp_path_factory.mktemp("unchanged"), transport, publish, serve) as client:
        yield client


@contextmanager
def served(folder: Path, transport: str, publish: Publish, serve: Serve) -> Iterator[Any]:
    for name in ("classifier", "pair"):
        publish(folder / "models", name)
    options = ("--transport", transport, "--http-port", "-1")
    config = ("--trace-config", f"triton,file={folder / 'trace.json'}", "--trace-config", "rate=1")
    with (
        serve(folder / "models", *options, *config) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.running, client.file = running, folder / "trace.json"
        yield client


def infer(client: Any, request_id: str, width: int = 4) -> None:
    tensor = triton.InferInput("features", [1, width], "FP32")
    tensor.set_data_from_numpy(np.ones((1, width), np.float32))
    client.infer("classifier", [tensor], request_id=request_id)


def settings(response: Any) -> dict[str, list[str]]:
    return {key: list(setting.value) for key, setting in response.settings.items()}


def ids(file: Path) -> list[str]:
    entries = json.loads(file.read_text()) if file.exists() else []
    return [entry["request_id"] for entry in entries if "request_id" in entry]


def test_requests_are_traced_from_when_it_is_asked_for(traced: Any, until: Until) -> None:
    found = settings(traced.get_trace_settings())
    assert found == {
        "trace_level": ["OFF"],
        "trace_rate": ["1"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
        "trace_file": [str(traced.file)],
        "trace_mode": ["triton"],
    }
    infer(traced, "before")
    found = settings(traced.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}))
    assert found["trace_level"] == ["TIMESTAMPS"]
    infer(traced, "first")
    with pytest.raises(InferenceServerException):
        infer(traced, "refused", width=3)
    until(lambda: len(ids(traced.file)) == 2, "two traces are written")
    infer(traced, "second")
    until(lambda: len(ids(traced.file)) == 3, "three traces are written")
    traced.update_trace_settings(settings={"trace_level": None})
    infer(traced, "after")
    assert traced.running.stop() == 0
    assert ids(traced.file) == ["first", "refused", "second"]
    entries = json.loads(traced.file.read_text())
    assert (entries[0]["model_name"], entries[0]["model_version"]) == ("classifier", 1)
    moments = {each["name"]: each["ns"] for each in entries[1]["timestamps"]}
    order = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START"]
    order += ["COMPUTE_END", "REQUEST_END"]
    assert list(moments) == order
    assert list(moments.values()) == sorted(moments.values())
    assert "COMPUTE_START" not in {each["name"] for each in entries[3]["timestamps"]}


def test_rate_and_count_say_which_and_how_many(traced: Any, until: Until) -> None:
    changes = {"trace_level": "TIMESTAMPS", "trace_rate": "3", "trace_count": "2"}
    traced.update_trace_settings(settings=changes)
    for number in range(12):
        infer(traced, str(number))
    until(lambda: settings(traced.get_trace_settings())["trace_count"] == ["0"], "no trace is left to make")
    assert ids(traced.file) == ["2", "5"]
    traced.update_trace_settings(settings={"trace_count": "1"})
    for number in range(12, 18):
        infer(traced, str(number))
    until(lambda: len(ids(traced.file)) == 3, "one more is written")
    assert traced.running.stop() == 0
    assert ids(traced.file) == ["2", "5", "14"]


def test_what_ended_before_a_change_is_counted_as_the_settings_were(traced: Any) -> None:
    traced.update_trace_settings(settings={"trace_level": "TIMESTAMPS"})
    for number in range(6):
        infer(traced, f"before {number}")
    traced.update_trace_settings(settings={"trace_rate": "2"})
    for number in range(4):
        infer(traced, f"after {number}")
    traced.update_trace_settings(settings={"trace_level": None})
    assert ids(traced.file) == [*(f"before {number}" for number in range(6)), "after 1", "after 3"]


def test_every_so_many_traces_have_a_file(traced: Any, until: Until) -> None:
    traced.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"], "log_frequency": "2"})
    for number in range(5):
        infer(traced, str(number))
    files = [traced.file.with_name(f"trace.json.{number}") for number in range(2)]
    until(lambda: files[1].exists(), "the second file is there")
    assert traced.running.stop() == 0
    assert [ids(file) for file in (*files, traced.file)] == [["0", "1"], ["2", "3"], ["4"]]


def test_a_model_may_have_settings_of_its_own(traced: Any, until: Until) -> None:
    traced.update_trace_settings("classifier", {"trace_level": ["TIMESTAMPS"]})
    assert settings(traced.get_trace_settings("classifier"))["trace_level"] == ["TIMESTAMPS"]
    assert settings(traced.get_trace_settings("pair"))["trace_level"] == ["OFF"]
    infer(traced, "own")
    until(lambda: ids(traced.file) == ["own"], "it is written")
    traced.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"], "trace_rate": "7"})
    assert settings(traced.get_trace_settings("classifier"))["trace_rate"] == ["7"]
    traced.update_trace_settings("classifier", {"trace_level": ["OFF"]})
    assert settings(traced.get_trace_settings("pair"))["trace_level"] == ["TIMESTAMPS"]
    traced.update_trace_settings("classifier", {"trace_level": None})
    assert settings(traced.get_trace_settings("classifier"))["trace_level"] == ["TIMESTAMPS"]


def test_http_reads_and_changes_the_same(traced: Any) -> None:
    with triton_http.InferenceServerClient(traced.running.http) as client:
        found = client.update_trace_settings(settings={"trace_rate": 5, "trace_level": ["TIMESTAMPS"]})
        assert (found["trace_rate"], found["trace_level"]) == ("5", ["TIMESTAMPS"])
        assert client.get_trace_settings("pair")["trace_rate"] == "5"
    assert settings(traced.get_trace_settings())["trace_rate"] == ["5"]


@pytest.mark.parametrize(
    ("changes", "told", "code"),
    [
        ({"trace_level": ["LOUD"]}, "expected OFF or TIMESTAMPS, got 'LOUD'", "INVALID_ARGUMENT"),
        ({"trace_level": ["TENSORS"]}, "TENSORS is not supported", "UNIMPLEMENTED"),
        ({"trace_rate": "0"}, "trace_rate: expected a number, 1 at least, got '0'", "INVALID_ARGUMENT"),
        ({"trace_count": "many"}, "expected a number, -1 at least, got 'many'", "INVALID_ARGUMENT"),
        ({"log_frequency": "-1"}, "expected a number, 0 at least", "INVALID_ARGUMENT"),
        ({"trace_file": "/tmp/x"}, "it is set at the start", "UNIMPLEMENTED"),
        ({"trace_foo": "1"}, "unknown trace setting 'trace_foo'", "INVALID_ARGUMENT"),
    ],
)
def test_a_change_that_cannot_be_is_refused_with_all_that_came_with_it(
    changes: dict[str, Any], told: str, code: str, unchanged: Any
) -> None:
    before = settings(unchanged.get_trace_settings())
    with pytest.raises(InferenceServerException, match=told) as caught:
        unchanged.update_trace_settings(settings={"log_frequency": "9", **changes})
    assert caught.value.status() == f"StatusCode.{code}"
    assert settings(unchanged.get_trace_settings()) == before


def test_without_a_file_nothing_can_be_traced(server: Any) -> None:
    with triton.InferenceServerClient(server.address) as client:
        assert settings(client.get_trace_settings())["trace_level"] == ["OFF"]
        with pytest.raises(InferenceServerException, match="there is no file to write traces to"):
            client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})
        with pytest.raises(InferenceServerException, match="'foo' is not found"):
            client.get_trace_settings("foo")
