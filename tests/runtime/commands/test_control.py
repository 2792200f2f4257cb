"""kerve models, load, unload, stats and bench, against real servers."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]


def kerve(command: str, address: str, *options: str) -> "subprocess.CompletedProcess[str]":
    program = str(Path(sys.executable).with_name("kerve"))
    line = [program, command, *options, "--address", address]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


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


@pytest.mark.parametrize("load", [("--concurrency", "1", "--concurrency", "4"), ("--rate", "200")])
def test_a_bench_measures_and_draws_and_the_statistics_agree(
    load: tuple[str, ...], tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path / "models", "classifier")
    with serve(tmp_path / "models") as running:
        options = ("classifier", *load, "--batch-size", "3", "--window", "0.2", "--max-windows", "3")
        done = kerve("bench", running.address, *options, "--plot", str(tmp_path / "plot.svg"))
        assert done.returncode == 0, done.stderr
        for word in ("requests/s", "p99", "compute", "rows/batch"):
            assert word in done.stdout
        assert "<polyline" in (tmp_path / "plot.svg").read_text()
        stats = kerve("stats", running.address, "classifier").stdout
        assert "classifier" in stats
        assert "ms" in stats
