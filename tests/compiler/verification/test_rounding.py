"""Differences that rounding explains, and those that it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest

from kerve.compiler import VerificationError, compile_model
from kerve.compiler.verification import Dataset, verify
from kerve.compiler.verification.rounding import LEEWAY, rounding


def cancelling(size: float) -> keras.Model:
    """A model whose output, of the order of 1, is the difference of sums of the order of 20 times `size`."""
    rng = np.random.default_rng(0)
    x = keras.Input((4096,), name="x")
    plus, minus = keras.layers.Dense(8, use_bias=False), keras.layers.Dense(8, use_bias=False)
    model = keras.Model(x, keras.layers.Subtract(name="y")([plus(x), minus(keras.ops.roll(x, 1, axis=1))]))
    kernel = rng.normal(0.0, size, (4096, 8)).astype("float32")
    plus.set_weights([kernel])
    nearly = np.roll(kernel, 1, axis=0) + rng.normal(0.0, 0.01, (4096, 8))
    minus.set_weights([nearly.astype("float32")])
    return model


def test_an_answer_may_differ_by_what_rounding_does_to_it(tmp_path: Path) -> None:
    artifact = compile_model(cancelling(2.0), repository=tmp_path, name="model")
    *_, remark = artifact.manifest.warnings
    assert re.fullmatch(r"output 'y': rounding alone .* tolerance was [0-9.e-]+ instead of 1e-05", remark)
    tolerances = {check.atol for check in artifact.manifest.verification.checks}
    assert len(tolerances) == 1
    assert 1e-5 < tolerances.pop() < 1e-3


def test_a_wrong_weight_is_not_rounding(tmp_path: Path) -> None:
    model = cancelling(2.0)
    artifact = compile_model(model, repository=tmp_path, name="model")
    path = artifact.path / "model.onnx"
    graph = ir.load(path)
    weight = max(graph.graph.initializers.values(), key=lambda value: value.const_value.size)  # type: ignore[union-attr]
    array = weight.const_value.numpy().copy()  # type: ignore[union-attr]
    array[5, :] *= 1.01
    weight.const_value = ir.tensor(array, name=weight.name)
    ir.save(graph, path)

    def reference(inputs: Any) -> dict[str, Any]:
        return {"y": model(inputs["x"]).numpy()}

    assert not verify(graph, path, reference).passed


def test_where_rounding_decides_nothing_is_proven(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"rounding alone changes it .* cannot be verified"):
        compile_model(cancelling(1e4), repository=tmp_path, name="model")
    assert not any(tmp_path.iterdir())


def test_a_model_with_all_its_digits_hardly_moves(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((16,), name="x"), keras.layers.Dense(4, "tanh", name="y")])
    artifact = compile_model(model, repository=tmp_path, name="model")
    data = Dataset("seeded", {"x": np.ones((3, 16), np.float32)}, {})
    assert LEEWAY * rounding(artifact.path / "model.onnx", [data.inputs])["y"] < 1e-5


def test_what_is_rounded_to_eight_bits_may_take_another_step(tmp_path: Path) -> None:
    layers = keras.layers.Dense(64, "gelu"), keras.layers.Dense(8, name="y")
    model = keras.Sequential([keras.Input((4000, 64), name="x"), *layers])
    layers[1].quantize("int8")
    artifact = compile_model(model, repository=tmp_path, name="model")
    worst = max(check.max_abs_error for check in artifact.manifest.verification.checks)
    assert worst < 0.1
    assert {check.atol for check in artifact.manifest.verification.checks} == {0.01}


def test_digits_that_a_small_output_has_lost_are_told_of(tmp_path: Path) -> None:
    bias = keras.initializers.Constant(-13.0)
    dense = keras.layers.Dense(1, "sigmoid", bias_initializer=bias, name="y")
    model = keras.Sequential([keras.Input((8,), name="x"), dense])
    (remark,) = compile_model(model, repository=tmp_path, name="rare").manifest.warnings
    assert re.match(r"output 'y': its values are at most [0-9.e-]+ and differ by .* log_sigmoid", remark)
    many = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(20_000, "softmax", name="y")])
    assert not compile_model(many, repository=tmp_path, name="many").manifest.warnings


def test_what_rounding_decides_among_small_numbers_is_told_of_and_not_refused(tmp_path: Path) -> None:
    x = keras.Input((4096,), name="x")
    plus, minus = keras.layers.Dense(8, use_bias=False), keras.layers.Dense(8, use_bias=False)
    model = keras.Model(x, keras.layers.Subtract(name="y")([plus(x), minus(keras.ops.roll(x, 1, axis=1))]))
    kernel = np.random.default_rng(0).normal(0.0, 0.5, (4096, 8)).astype("float32")
    plus.set_weights([kernel])
    minus.set_weights([np.roll(kernel, 1, axis=0)])
    artifact = compile_model(model, repository=tmp_path, name="model")
    assert any("so it cannot be verified" in warning for warning in artifact.manifest.warnings)
