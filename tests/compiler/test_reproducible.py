"""The same source and options give the same bytes, whatever order Python's sets have in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from kerve.compiler import CompileOptions, compile_model
from kerve.compiler.options import Precision

#: Of each artifact its source and its precision.
_ARTIFACTS: dict[str, tuple[str, Precision]] = {
    "function": ("function", "float32"),
    "exported": ("exported", "float32"),
    "int8": ("model.h5", "int8"),
    "int4": ("model.h5", "int4-weights"),
}
_ELSEWHERE = "import runpy, sys; runpy.run_path(sys.argv[1])['compile_all'](*sys.argv[2:])"


def compile_all(folder: str, repository: str) -> None:
    """Compile the sources in a folder; by this process, though they are files."""
    for name, (source, precision) in _ARTIFACTS.items():
        options = CompileOptions(precision=precision, max_drop=1.0)
        compile_model(
            Path(folder, source), repository=repository, name=name, options=options, custom_objects={}
        )


class _Function(tf.Module):
    """What is converted as a whole: a loop, a table, strings, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        known = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.range(3, dtype=tf.int64))
        self.table = tf.lookup.StaticHashTable(known, -1)

    def serve(self, x: Any, word: Any) -> dict[str, Any]:
        _, looped = tf.while_loop(lambda n, _: n < 3, lambda n, each: (n + 1, tf.nn.softmax(each)), (0, x))
        return {
            "looped": looped,
            "sum": tf.reduce_logsumexp(x, 1),
            "id": self.table.lookup(tf.strings.lower(word)),
        }


def test_artifacts_are_byte_identical_in_any_process(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    module = _Function()
    specs = tf.TensorSpec((None, 4), name="x"), tf.TensorSpec((None,), tf.string, "word")
    signature = tf.function(module.serve).get_concrete_function(*specs)
    tf.saved_model.save(module, str(tmp_path / "function"), signatures=signature)
    x = layers.Input((8, 32), name="x")
    hidden = layers.Dense(64, "gelu")(layers.LSTM(32)(layers.LayerNormalization()(x)))
    model = keras.Model(x, layers.Dense(3, "softmax", name="y")(hidden))
    model.compile(loss="categorical_crossentropy", metrics=["accuracy", "auc"])
    model.save(tmp_path / "model.h5")
    model.export(tmp_path / "exported", verbose=False)
    other = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    arguments = [__file__, str(tmp_path), str(tmp_path / "there")]
    with subprocess.Popen([sys.executable, "-c", _ELSEWHERE, *arguments], env=other) as process:
        compile_all(str(tmp_path), str(tmp_path / "here"))
    assert process.returncode == 0
    files = sorted(
        path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file()
    )
    assert len(files) >= 4 * 4
    assert [
        str(file) for file in files if _bytes(tmp_path / "here" / file) != _bytes(tmp_path / "there" / file)
    ] == []


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
