"""What the runtime must never import, in fresh processes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FORBIDDEN = ("tensorflow", "keras", "tf_keras", "tf2onnx", "onnx", "kerve.compiler")


def modules_after(script: str) -> set[str]:
    """Run a script in a fresh interpreter and return the names of the modules it left behind."""
    tail = "\nimport sys\nprint('MODULES', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script + tail], capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("MODULES"))
    return set(line.split()[1:])


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("import kerve.runtime", id="import"),
        pytest.param("import kerve.runtime.commands.predict, kerve.runtime.commands.inspect", id="commands"),
    ],
)
def test_importing_the_runtime_loads_no_training_framework(script: str) -> None:
    assert modules_after(script).isdisjoint(FORBIDDEN)


def test_serving_loads_no_training_framework(tmp_path: Path, publish: Callable[..., Path]) -> None:
    publish(tmp_path, "classifier")
    script = f"""
import os, signal, sys, threading
from kerve.cli.main import main
from kerve.runtime.client import Client
from kerve.runtime.server import Server

load = Server.load
def load_and_stop(self):
    models = load(self)
    os.kill(os.getpid(), signal.SIGTERM)
    return models
Server.load = load_and_stop
try:
    main(["serve", "--repository", {str(tmp_path)!r}, "--grpc-port", "0", "--http-port", "0"])
except SystemExit as end:
    assert not end.code, end.code
"""
    modules = modules_after(script)
    assert "onnxruntime" in modules
    assert modules.isdisjoint(FORBIDDEN)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = f"""
from kerve.cli.main import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code
"""
    heavy = {"numpy", "grpc", "google.protobuf", "onnxruntime", "rich", *FORBIDDEN}
    assert modules_after(script).isdisjoint(heavy)
