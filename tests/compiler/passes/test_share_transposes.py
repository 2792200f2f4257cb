"""Matrices that are read both ways are in the file once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from keras import layers

from kerve.compiler import CompileOptions, compile_model
from kerve.compiler.options import Precision
from kerve.compiler.passes.share_transposes import ShareTransposes, SplitTransposes

_WORDS, _WIDTH = 700, 16


def _language_model() -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.ReversibleEmbedding(_WORDS, _WIDTH, name="table")
    hidden = layers.Dense(_WIDTH, "gelu", name="hidden")(table(ids))
    return keras.Model(ids, layers.Identity(name="scores")(table(hidden, reverse=True)))


def _tables(file: Path) -> list[ir.Value]:
    constants = ir.load(file).graph.initializers.values()
    return [each for each in constants if each.const_value and each.const_value.size == _WORDS * _WIDTH]


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_tied_table_is_kept_once_and_turned_as_the_model_is_loaded(
    precision: Precision, tmp_path: Path
) -> None:
    options = CompileOptions(precision=precision)
    file = (
        compile_model(_language_model(), repository=tmp_path, name="m", options=options).path / "model.onnx"
    )
    assert len(_tables(file)) == 1
    session = ort.SessionOptions()
    session.optimized_model_filepath = str(tmp_path / "run.onnx")
    session.log_severity_level = 4
    ort.InferenceSession(file, session, providers=["CPUExecutionProvider"])
    assert "Transpose" not in {node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node}


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int4-weights"])
def test_integers_have_scales_for_each_way(precision: Precision, tmp_path: Path) -> None:
    options = CompileOptions(precision=precision, max_drop=9.0)
    file = (
        compile_model(_language_model(), repository=tmp_path, name="m", options=options).path / "model.onnx"
    )
    assert {each.dtype for each in _tables(file)} <= {ir.DataType.INT8, ir.DataType.INT4}
    assert len(_tables(file)) == 2


def test_matrices_that_differ_in_one_element_stay_apart(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    table = np.random.default_rng(0).normal(size=(200, 50)).astype(np.float32)
    other = table.T.copy()
    other[3, 7] += 1.0
    x = e.op.MatMul(e.input("batch", 200), e.constant(table, "table"))
    model = e.model(e.op.MatMul(x, e.constant(other, "other")))
    optimized(model, ShareTransposes())
    assert list(model.graph.initializers) == ["table", "other"]


def test_what_is_shared_can_be_split(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    table = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    x = e.op.MatMul(e.input("batch", 128), e.constant(table, "table"))
    model = e.model(e.op.MatMul(x, e.constant(table.T.copy(), "other")))
    assert ShareTransposes()(model.clone()).modified
    optimized(model, ShareTransposes(), SplitTransposes())
    assert list(model.graph.initializers) == ["table", "table:transposed"]
