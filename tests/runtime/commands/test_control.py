"""kerve models, load, unload, stats and bench, against real servers."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]


def kerve(command: str, address: str, *options: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("kerve"))
    line = [program, command, *options, "--address", address]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=wide)


def test_models_are_listed_loaded_and_unloaded(tmp_path: Path, publish: Publish, serve: Serve) -> None:
    publish(tmp_path, "pair")
    (publish(tmp_path, "scalar", name="bad") / "model.onnx").write_bytes(b"nope")
    with serve(tmp_path, "--model-control-mode", "explicit") as running:
        assert "not loaded" in kerve("models", running.address).stdout
        done = kerve("load", running.address, "pair")
        assert (done.returncode, done.stdout) == (0, "pair is loaded (version 1)\n"), done.stderr
        done = kerve("load", running.address, "bad")
        assert done.returncode == 1
        assert "is not an ONNX model" in done.stderr
        listed = kerve("models", running.address).stdout
        for word in ("pair", "READY", "bad", "UNAVAILABLE", "is not an ONNX model"):
            assert word in listed
        assert "bad" not in kerve("models", running.address, "--ready").stdout
        assert kerve("unload", running.address, "pair").stdout == "pair is unloaded\n"
        assert kerve("unload", running.address, "foo").returncode == 1


@pytest.mark.parametrize(
    ("address", "exit_code", "said"),
    [
        ("", 2, "--address: expected the host and port of a server, got nothing"),
        ("http://127.0.0.1:8000", 2, "expected HOST:PORT of the server's gRPC port, got the URL 'http://"),
        ("nobody.invalid", 1, "no server answers at nobody.invalid, expected HOST:PORT of a gRPC port"),
    ],
)
def test_an_address_of_no_server_is_told_as_such(address: str, exit_code: int, said: str) -> None:
    done = kerve("models", address)
    assert done.returncode == exit_code
    assert said in done.stderr


@pytest.fixture(scope="module")
def classifier(publish: Publish, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    publish(repository, "classifier")
    with serve(repository) as running:
        yield running


@pytest.mark.parametrize(
    ("load", "by"),
    [
        pytest.param(("--concurrency", "1", "--concurrency", "4"), "kerve-wire", id="in flight"),
        pytest.param(("--rate", "200"), "kerve-wire", id="at random"),
        pytest.param(("--concurrency", "4"), "Python", id="in flight, by Python"),
        pytest.param(("--rate", "200"), "Python", id="at random, by Python"),
    ],
)
def test_a_bench_measures_and_draws_and_the_statistics_agree(
    load: tuple[str, ...], by: str, tmp_path: Path, classifier: Any
) -> None:
    if by == "kerve-wire":
        pytest.importorskip("kerve_wire")
    # names of gRPC's own are for gRPC
    address = classifier.address if by == "kerve-wire" else f"ipv4:{classifier.address}"
    options = ("classifier", *load, "--batch-size", "3", "--window", "0.2", "--max-windows", "3")
    done = kerve("bench", address, *options, "--plot", str(tmp_path / "plot.svg"))
    assert done.returncode == 0, done.stderr
    for word in ("requests/s", "p99", "compute", "rows/batch", f"load from {by}"):
        assert word in done.stdout
    rates = re.findall(r"│ (?:\d concurrent|200/s)\s+│\s+([\d,]+)\s+│", done.stdout)
    assert len(rates) == len(load) // 2
    assert all(float(rate.replace(",", "")) > 0 for rate in rates)
    assert "<polyline" in (tmp_path / "plot.svg").read_text()
    stats = kerve("stats", classifier.address, "classifier").stdout
    assert "classifier" in stats
    assert "ms" in stats


def test_a_bench_sends_the_token(publish: Publish, serve: Serve, tmp_path: Path) -> None:
    publish(tmp_path / "models", "classifier")
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{hashlib.sha256(b'secret').hexdigest()} infer,read somebody\n")
    with serve(tmp_path / "models", "--tokens", str(tokens)) as running:
        options = ("classifier", "--concurrency", "2", "--window", "0.1", "--max-windows", "1")
        done = kerve("bench", running.address, *options, "--token", "secret")
        assert done.returncode == 0, done.stderr
        assert re.search(r"│ 0\s+│$", done.stdout, re.MULTILINE), "none has failed"


def test_a_bench_that_may_not_ask_says_so(publish: Publish, serve: Serve, tmp_path: Path) -> None:
    publish(tmp_path / "models", "echo_fp32")
    (tmp_path / "tokens").write_text(hashlib.sha256(b"eye").hexdigest() + " read\n")
    with serve(tmp_path / "models", "--tokens", str(tmp_path / "tokens")) as running:
        done = kerve("bench", running.address, "echo_fp32", "--token", "eye")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the token does not permit this call; it needs the permission infer\n"
