"""ModelStatistics: exact on both transports, so that perf_analyzer's differences add up."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def client(transport: str, tmp_path: Path, publish: Publish, serve: Serve) -> Iterator[Any]:
    publish(tmp_path, "echo_fp32")
    publish(tmp_path, "triples")
    with (
        serve(tmp_path, "--transport", transport) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.address = running.address
        yield client


def ask(client: Any, model: str, rows: int, width: int = 2) -> None:
    tensor = triton.InferInput("x", [rows, width], "FP32")
    tensor.set_data_from_numpy(np.ones((rows, width), np.float32))
    client.infer(model, [tensor])


def statistics(client: Any, model: str) -> Any:
    (found,) = client.get_inference_statistics(model).model_stats
    return found


def test_every_request_and_row_is_counted_once(client: Any) -> None:
    before = statistics(client, "echo_fp32")
    assert (before.inference_count, before.last_inference) == (0, 0)

    def work() -> None:
        with triton.InferenceServerClient(client.address) as own:
            for rows in (1, 2, 3) * 20:
                ask(own, "echo_fp32", rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = statistics(client, "echo_fp32")
    stats = found.inference_stats
    requests, rows = 4 * 60, 4 * 20 * 6
    assert found.inference_count == rows
    assert {
        part.count for part in (stats.success, stats.queue, stats.compute_infer, stats.compute_output)
    } == {requests}
    assert found.execution_count == sum(each.compute_infer.count for each in found.batch_stats) <= requests
    assert sum(each.batch_size * each.compute_infer.count for each in found.batch_stats) == rows
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert 0 < sum(part.ns for part in parts) <= stats.success.ns
    assert found.last_inference > 1_700_000_000_000
    assert stats.fail.count == 0


def test_a_request_that_is_larger_than_a_batch_is_counted_once(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    folder = publish(tmp_path, "echo_fp32")
    (folder.parent / "config.toml").write_text("max_batch_size = 4\n")
    with (
        serve(tmp_path, "--transport", transport) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        ask(client, "echo_fp32", 10)
        found = statistics(client, "echo_fp32")
    stats = found.inference_stats
    assert found.inference_count == 10
    assert found.execution_count == {"wire": 3, "grpcio": 1}[transport]
    counted = (stats.success, stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert [part.count for part in counted] == [1] * 5
    assert stats.compute_infer.ns == sum(each.compute_infer.ns for each in found.batch_stats)


def test_failures_are_counted_apart(client: Any) -> None:
    with pytest.raises(InferenceServerException):
        ask(client, "triples", 1, width=2)
    ask(client, "triples", 1, width=3)
    stats = statistics(client, "triples").inference_stats
    assert (stats.success.count, stats.fail.count) == (1, 1)
    assert stats.fail.ns > 0


def test_all_models_are_told_at_once_and_unknown_ones_are_not_found(client: Any) -> None:
    assert [each.name for each in client.get_inference_statistics().model_stats] == ["echo_fp32", "triples"]
    assert client.get_inference_statistics("triples", "1").model_stats[0].version == "1"
    for model, version in (("foo", ""), ("triples", "2")):
        with pytest.raises(InferenceServerException) as caught:
            client.get_inference_statistics(model, version)
        assert caught.value.status() == "StatusCode.NOT_FOUND"
