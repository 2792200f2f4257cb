"""Artifacts whose files were changed after they were compiled."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kerve.compiler import CompileOptions, compile_model, verify_model
from kerve.compiler.errors import VerificationError


def _model() -> keras.Model:
    return keras.Sequential([keras.layers.Input((6,), name="x"), keras.layers.Dense(4, name="logits")])


def _change_one_weight(file: Path) -> None:
    model = onnx.load(file)
    weights = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(weights).copy()
    values.flat[values.argmax()] -= 1
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, file)


def test_a_weight_that_was_changed_within_the_errors_of_int8_is_noticed(tmp_path: Path) -> None:
    model = _model()
    options = CompileOptions(precision="int8", max_drop=1.0)
    artifact = compile_model(model, repository=tmp_path, name="m", options=options)
    verify_model(model, artifact.path).require_equal()
    _change_one_weight(artifact.path / "model.onnx")
    comparison = verify_model(model, artifact.path)
    assert comparison.altered == ["model.onnx"]
    with pytest.raises(VerificationError, match=r"model\.onnx: missing or changed since the compile"):
        comparison.require_equal()


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    model = _model()
    model.compile(loss="mse")
    artifact = compile_model(model, repository=tmp_path, name="m")
    (artifact.path / "evaluate.onnx").unlink()
    with pytest.raises(VerificationError, match=r"evaluate\.onnx: missing"):
        verify_model(model, artifact.path).require_equal()


def test_a_changed_weight_that_shows_is_named_by_its_layer(tmp_path: Path) -> None:
    model = _model()
    artifact = compile_model(model, repository=tmp_path, name="m", data=np.ones((2, 6), np.float32))
    _change_one_weight(artifact.path / "model.onnx")
    with pytest.raises(VerificationError, match="the first layer that differs is 'logits'"):
        verify_model(model, artifact.path).require_equal()
