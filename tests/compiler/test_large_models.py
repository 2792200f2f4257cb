"""A model above the 2 GB that one protobuf message can hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

#: Runs alone: what a process took at most is known only for all of its life.
_COMPILE = """
import sys
from pathlib import Path

import keras
from keras import layers, ops

from kerve.compiler import compile_model


def memory(kind):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024


def rows(shape, dtype=None):
    return ops.broadcast_to(ops.expand_dims(ops.sin(ops.arange(shape[0], dtype=dtype)), 1), shape)


inputs = keras.Input((None,), dtype="int32", name="ids")
vectors = layers.Embedding(1_100_000, 512, embeddings_initializer=rows, name="words")(inputs)
model = keras.Model(inputs, layers.Dense(2, name="scores")(vectors))
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = memory("VmRSS")
compile_model(model, repository=sys.argv[1], name="large")
print(memory("VmHWM") - before, model.count_params() * 4)
"""


def test_a_large_model_is_written_beside_its_graph_in_little_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    extra, size = map(int, done.stdout.split())
    version = tmp_path / "large" / "1"
    assert size > 2**31
    assert (version / "model.onnx").stat().st_size < 1 << 20
    assert (version / "model.onnx.data").stat().st_size > 2**31
    onnx.checker.check_model(str(version / "model.onnx"))
    assert extra < 3 * size, f"compiling took {extra / size:.2f} times the model's size"
