"""A limit of a model's memory on the CPU: proven when a version is loaded, and kept while it serves."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

Serve = Callable[..., AbstractContextManager[Any]]

# Of the weights of 4 x 3 and of what a batch of 64 rows needs, far below a batch of a million.
LIMIT = 1_000_000
ROWS = 64


def configure(repository: Path, text: str) -> None:
    (repository / "classifier" / "config.toml").write_text(
        f"max_batch_size = 4000000\nbatch_buckets = [{ROWS}]\n{text}"
    )


def features(rows: int) -> triton.InferInput:
    return triton.InferInput("features", [rows, 4], "FP32").set_data_from_numpy(
        np.ones((rows, 4), np.float32)
    )


@pytest.fixture(scope="module")
def running(
    transport: str, serve: Serve, publish: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Any]]:
    repository = tmp_path_factory.mktemp("limited")
    publish(repository, "classifier")
    configure(repository, f"memory_limit = {LIMIT}")
    with serve(
        repository, "--transport", transport, "--model-control-mode", "explicit", "--load-model", "*"
    ) as server:
        yield repository, server


def test_a_request_that_takes_more_is_refused_and_the_next_one_is_answered(running: tuple[Path, Any]) -> None:
    _, server = running
    with triton.InferenceServerClient(server.address) as client:
        for _ in range(2):
            with pytest.raises(InferenceServerException, match=f"memory_limit of {LIMIT} bytes") as raised:
                client.infer("classifier", [features(200_000)])
            assert raised.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
            assert client.infer("classifier", [features(ROWS)]).as_numpy("logits").shape == (ROWS, 3)


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        pytest.param("memory_limit = 100", r"its weights need \d+ bytes; memory_limit is 100", id="weights"),
        pytest.param(
            "memory_limit = 1000", r"needs at least \d+ bytes, .* memory_limit of 1000 bytes", id="a batch"
        ),
        pytest.param(
            "memory_limit = 8000\ninstance_group = [{ count = 100 }]",
            r"needs (\d+) bytes, \d+ for weights and \d+ for each of 100 instances",
            id="instances",
        ),
        pytest.param(
            f"memory_limit = {LIMIT}\nparameters = {{ enable_mem_arena = {{ string_value = '0' }} }}",
            "needs the arena",
            id="no arena",
        ),
        pytest.param("memory_limit = -1", "expected 0 or more, got -1", id="no limit"),
    ],
)
def test_a_load_that_takes_more_is_refused_with_what_it_takes_and_the_one_before_goes_on(
    text: str, needs: str, running: tuple[Path, Any]
) -> None:
    repository, server = running
    with triton.InferenceServerClient(server.address) as client:
        configure(repository, text)
        with pytest.raises(InferenceServerException, match=needs):
            client.load_model("classifier")
        (line,) = client.get_model_repository_index().models
        assert line.state == "READY"
        assert re.search(needs, line.reason)
        assert client.infer("classifier", [features(1)]).as_numpy("logits").shape == (1, 3)
        configure(repository, f"memory_limit = {LIMIT}")
        client.load_model("classifier")
