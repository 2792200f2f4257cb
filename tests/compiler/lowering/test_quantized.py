"""Layers that Keras has quantized are lowered as they compute now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

RNG = np.random.default_rng(18)


def quantized(
    mode: str, shape: tuple[int, ...], *parts: keras.Layer, dtype: str | None = None
) -> keras.Model:
    model = keras.Sequential([keras.Input(shape, dtype=dtype), *parts])
    model.quantize(mode)
    return model


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_dense_layers_equal_keras(equal_to_keras: Check, mode: str) -> None:
    model = quantized(mode, (8,), layers.Dense(16, activation="relu"), layers.Dense(4))
    equal_to_keras(model, RNG.normal(size=(5, 8)).astype("float32"), rtol=1e-3, atol=1e-3)


def test_eight_bit_floats_need_an_operator_set_that_has_them() -> None:
    with pytest.raises(
        ConversionError, match=r"float8_e4m3fn from .* got --opset 18; compile with --opset 19"
    ):
        lower(quantized("float8", (8,), layers.Dense(4)), opset=18)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_einsum_layers_equal_keras(equal_to_keras: Check, mode: str) -> None:
    model = quantized(mode, (5, 8), layers.EinsumDense("abc,cde->abde", (None, 4, 3), bias_axes="de"))
    equal_to_keras(model, RNG.normal(size=(2, 5, 8)).astype("float32"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("kind", [layers.Embedding, layers.ReversibleEmbedding])
def test_quantized_embeddings_equal_keras(
    equal_to_keras: Check, kind: Callable[..., keras.Layer], mode: str
) -> None:
    model = quantized(mode, (6,), kind(10, 8), layers.Dense(4), dtype="int32")
    equal_to_keras(model, RNG.integers(0, 10, (3, 6)).astype("int32"), rtol=1e-3, atol=1e-3)


def test_a_dense_layer_of_int8_multiplies_integers(equal_to_keras: Check, operators: Count) -> None:
    model = quantized("int8", (8,), layers.Dense(16))
    graph = equal_to_keras(model, RNG.normal(size=(5, 8)).astype("float32"), rtol=1e-3, atol=1e-3)
    assert operators(graph)["MatMulInteger"] == 1
