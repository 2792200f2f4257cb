"""No graph of ours ends the process that loads it, or that runs it: each is loaded and run in another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import onnx
import onnx_ir as ir
from keras import layers

from kerve.compiler.lowering import lower
from kerve.compiler.passes import optimize
from kerve.compiler.passes.shield_kernels import ShieldKernels

_RUN = """
import sys
import numpy as np
import onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 4
for file, *shape in (each.split(",") for each in sys.argv[1:]):
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    try:
        session.run(None, {session.get_inputs()[0].name: np.ones([int(size) for size in shape], np.float32)})
        print("answered")
    except Exception as error:
        print("refused")
"""


_EMPTY: list[Any] = [
    lambda x: layers.GRU(2)(x),
    lambda x: layers.GRU(2)(x[:, 1:]),
    lambda x: layers.Bidirectional(layers.GRU(2))(x[:, 1:]),
    lambda x: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])(x),
    lambda x: layers.GroupNormalization(2)(x),
]
_HALF: list[Any] = [
    lambda x: layers.Dense(4)(layers.GRU(2, return_sequences=True)(x)),
    lambda x: layers.Dense(4)(layers.LSTM(2, return_sequences=True)(x)),
    lambda x: layers.Dense(4)(keras.ops.transpose(x, (1, 0, 2))),
    lambda x: layers.MultiHeadAttention(2, 3)(*[layers.GRU(4, return_sequences=True)(x)] * 2),
]


def _written(folder: Path, function: Callable[[Any], Any], number: int) -> Path:
    x = keras.Input((None, 4))
    model = optimize(lower(keras.Model(x, function(x))).model)
    file = folder / f"{number}.onnx"
    onnx.save(ir.to_proto(model), file)
    return file


def _answers(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_sequences_without_steps_are_refused(tmp_path: Path) -> None:
    files = [_written(tmp_path, each, number) for number, each in enumerate(_EMPTY)]
    few = (0, 1, 1, 0, 0)  # of one step a slice leaves none
    assert _answers(*(f"{file},2,{steps},4" for file, steps in zip(files, few, strict=True))) == [
        "refused"
    ] * len(files)
    assert _answers(*(f"{file},2,4,4" for file in files)) == ["answered"] * len(files)


def test_a_transpose_before_a_product_in_half_precision_is_loaded(tmp_path: Path) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        files = [_written(tmp_path, each, number) for number, each in enumerate(_HALF)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert _answers(*(f"{file},2,3,4" for file in files)) == ["answered"] * len(files)


def test_what_has_its_shield_gets_no_second(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    steps = e.input("steps", "batch", 4)
    gru = e.op.GRU(steps, e.weight(1, 6, 4), e.weight(1, 6, 2), hidden_size=2, _outputs=2)
    counts = optimized(e.model(gru[1]), ShieldKernels(), ShieldKernels())
    assert counts["Reshape"] == 1


def test_sizes_that_are_known_need_none(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    gru = e.op.GRU(e.input(3, "batch", 4), e.weight(1, 6, 4), e.weight(1, 6, 2), hidden_size=2, _outputs=2)
    assert optimized(e.model(gru[1]), ShieldKernels())["Reshape"] == 0
