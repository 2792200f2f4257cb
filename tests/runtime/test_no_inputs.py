"""A model without inputs is asked over every protocol, and by the commands, as any other is."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerve.runtime import Client

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    publish(repository, "constant")
    publish(repository, "constant", name="cached")
    (repository / "cached" / "config.toml").write_text("response_cache = { enable = true }")
    options = ("--http-port", "-1", "--cache-size", "1000000")
    with serve(repository, *options, "--transport", transport) as server:
        yield server


def test_tritons_clients_ask_it(triton_client: Any) -> None:
    for model in ("constant", "cached", "cached"):
        answer = triton_client.infer(model, [])
        np.testing.assert_array_equal(answer.as_numpy("y"), [4, 2])


@pytest.mark.parametrize(
    ("path", "body", "key", "answer"),
    [
        ("v1/models/constant:predict", {"inputs": {}}, "outputs", [4, 2]),
        ("v2/models/constant/infer", {}, "outputs", None),
        ("v2/models/constant/infer", {"inputs": []}, "outputs", None),
    ],
)
def test_rest_asks_it(path: str, body: Any, key: str, answer: Any, running: Any) -> None:
    data = json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{running.http}/{path}", data, 60) as got:
        found = json.load(got)[key]
    assert (found if answer else found[0]["data"]) == [4, 2]


def test_our_client_and_kerve_bench_ask_it(running: Any) -> None:
    with Client(running.address) as client:
        np.testing.assert_array_equal(client.infer("constant", {})["y"], [4, 2])
    command = [
        str(Path(sys.executable).with_name("kerve")),
        "bench",
        "constant",
        "--address",
        running.address,
    ]
    quick = ("--concurrency", "2", "--window", "0.1", "--max-windows", "3")
    done = subprocess.run([*command, *quick], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
