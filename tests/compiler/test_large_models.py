"""A model above the 2 GB that one protobuf message can hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

#: Runs alone: what a process took at most is known only for all of its life.
_COMPILE = """
import sys
from pathlib import Path

import keras
from keras import layers, ops

from kerve.compiler import CompileOptions, compile_model


def rows(shape, dtype=None):
    return ops.broadcast_to(ops.expand_dims(ops.sin(ops.arange(shape[0], dtype=dtype)), 1), shape)


def memory(kind):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024


def table():
    inputs = keras.Input((None,), dtype="int32", name="ids")
    vectors = layers.Embedding(1_100_000, 512, embeddings_initializer=rows, name="words")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="scores")(vectors))


def matrices():
    return keras.Sequential([layers.Input((6000,)), layers.Dense(6000, "relu"), layers.Dense(6000)])


model = {"table": table, "matrices": matrices}[sys.argv[2]]()
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = memory("VmRSS")
options = CompileOptions(precision=sys.argv[3], max_drop=1.0)
compile_model(model, repository=sys.argv[1], name="large", options=options)
print(memory("VmHWM") - before, model.count_params() * 4)
"""


def _compiled(folder: Path, model: str, precision: str = "float32") -> tuple[int, int]:
    """Return what compiling took in extra memory, and the size of the model."""
    command = [sys.executable, "-c", _COMPILE, str(folder), model, precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    extra, size = map(int, done.stdout.split())
    return extra, size


def test_a_large_model_is_written_beside_its_graph_in_little_memory(tmp_path: Path) -> None:
    extra, size = _compiled(tmp_path, "table")
    version = tmp_path / "large" / "1"
    assert size > 2**31
    assert (version / "model.onnx").stat().st_size < 1 << 20
    assert (version / "model.onnx.data").stat().st_size > 2**31
    onnx.checker.check_model(str(version / "model.onnx"))
    assert extra < 3 * size, f"compiling took {extra / size:.2f} times the model's size"


@pytest.mark.parametrize("precision", ["float16", "int8", "int4-weights"])
def test_a_large_model_is_reduced_in_little_memory(tmp_path: Path, precision: str) -> None:
    extra, size = _compiled(tmp_path, "matrices", precision)
    assert extra < 3 * size, f"compiling took {extra / size:.2f} times the model's size"
