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
from kerve.compiler.passes import optimize

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


def _bytes(graph: ir.Model) -> int:
    arrays = (value.const_value for value in graph.graph.initializers.values())
    return sum(array.nbytes for array in arrays if array is not None)


def _own_bytes(layer: keras.Layer) -> int:
    return sum(variable.value.numpy().nbytes for variable in layer.variables)


@pytest.mark.parametrize("block_size", [-1, 32])
def test_weights_of_four_bits_take_four_bits(equal_to_keras: Check, block_size: int) -> None:
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(500, 128),
            layers.Dense(201, activation="relu"),
            layers.EinsumDense("abc,cde->abde", (None, 5, 40)),
        ]
    )
    model.quantize("int4", config=keras.quantizers.Int4QuantizationConfig(block_size=block_size))
    ids = RNG.integers(0, 500, (3, 6)).astype("int32")
    graph = optimize(equal_to_keras(model, ids, rtol=1e-3, atol=1e-3))
    assert _bytes(graph) < 1.05 * _own_bytes(model)


@pytest.mark.parametrize("mode", ["gptq", "awq"])
@pytest.mark.parametrize("kind", ["dense", "einsum"])
def test_weights_that_were_calibrated_take_four_bits(equal_to_keras: Check, mode: str, kind: str) -> None:
    policy = f"{mode}/4/32_from_float32"
    layer = {
        "dense": lambda: layers.Dense(151, dtype=policy),
        "einsum": lambda: layers.EinsumDense("ab,bcd->acd", (3, 51), dtype=policy),
    }[kind]()
    model = keras.Sequential([keras.Input((128,)), layer])
    ranges = {"quantized_kernel": 256, "kernel_zero": 16, "g_idx": 4}
    for name, end in ranges.items():
        getattr(layer, name).assign(RNG.integers(0, end, getattr(layer, name).shape))
    layer.kernel_scale.assign(RNG.uniform(0.01, 0.1, layer.kernel_scale.shape))
    setattr(layer, f"is_{mode}_calibrated", True)
    graph = optimize(equal_to_keras(model, RNG.normal(size=(5, 128)).astype("float32"), atol=1e-3))
    kept = [variable for variable in layer.variables if variable is not layer.__dict__.get("_kernel")]
    assert _bytes(graph) < 1.05 * sum(variable.value.numpy().nbytes for variable in kept)


def test_so_it_is_where_keras_knows_no_axis_of_groups(
    equal_to_keras: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Keras 3.12, which gives the function four arguments and takes no more."""
    dense = keras.src.layers.core.dense
    original = dense.dequantize_with_sz_map
    monkeypatch.setattr(
        dense, "dequantize_with_sz_map", lambda w, scale, zero, of: original(w, scale, zero, of)
    )
    test_weights_that_were_calibrated_take_four_bits(equal_to_keras, "gptq", "dense")
