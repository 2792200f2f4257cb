"""The forms that ONNX Runtime takes as integers: what it makes of them is looked at."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

IMAGES = np.random.default_rng(0).standard_normal((16, 16, 16, 3), np.float32)
TOKENS = np.random.default_rng(0).standard_normal((16, 7, 32), np.float32)

Lower = Callable[[keras.Model], Any]


def test_a_convolutional_net_runs_on_integers_from_end_to_end(float32: Lower) -> None:
    inputs = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.ReLU()(x + layers.Conv2D(8, 1)(y))
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x)))
    run = float32(keras.Model(inputs, x)).reduced("int8", image=IMAGES).run_operators
    assert run["QLinearConv"] == 3
    assert run["QLinearAdd"] == run["QLinearGlobalAveragePool"] == 1
    assert run["MatMulIntegerToFloat"] == 1
    assert not {"Conv", "FusedConv", "Relu", "Clip", "Gemm", "MatMul", "Add"} & set(run)


def test_sums_are_integers_before_more_poolings_than_calls_can_be_nested(float32: Lower) -> None:
    inputs = layers.Input((4, 4, 3), name="image")
    x = layers.Conv2D(4, 1)(inputs)
    x = layers.Add()([x, layers.Conv2D(4, 1)(x)])
    for _ in range(600):
        x = layers.MaxPooling2D(2, 1, padding="same")(x)
    outputs = layers.Conv2D(2, 1)(x)
    run = float32(keras.Model(inputs, outputs)).reduced("int8", image=IMAGES[:, :4, :4]).run_operators
    assert run["QLinearAdd"] == 1


def test_swish_and_its_gates_run_on_integers(float32: Lower) -> None:
    inputs = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, activation="swish")(inputs)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    outputs = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(x * gate))
    run = float32(keras.Model(inputs, outputs)).reduced("int8", image=IMAGES).run_operators
    assert run["QLinearConv"] == 3
    assert run["QLinearSigmoid"] == run["QLinearMul"] == 2


def test_dense_layers_of_sequences_keep_their_sums_in_float32(float32: Lower) -> None:
    inputs = layers.Input((7, 32), name="tokens")
    x = layers.Dense(64, activation="gelu")(inputs)
    outputs = layers.LayerNormalization()(inputs + layers.Dense(32)(x))
    reduced = float32(keras.Model(inputs, outputs)).reduced("int8", tokens=TOKENS)
    assert reduced.run_operators["MatMulIntegerToFloat"] == 2
    assert reduced.operators["QuantizeLinear"] == 2


@pytest.mark.parametrize("bias", [pytest.param(True, id="bias"), pytest.param(False, id="no bias")])
def test_a_clamp_whose_result_is_not_rounded_leaves_its_product_on_integers(
    bias: bool, float32: Lower
) -> None:
    inputs = layers.Input((32,), name="rows")
    dense = layers.Dense(16, activation="relu", use_bias=bias, bias_initializer="ones")
    outputs = layers.LayerNormalization()(dense(inputs))
    reduced = float32(keras.Model(inputs, outputs)).reduced("int8", rows=TOKENS[:, 0])
    assert reduced.run_operators["QGemm" if bias else "MatMulIntegerToFloat"] == 1


def test_a_convolution_that_is_an_output_is_rounded_too(float32: Lower) -> None:
    inputs = layers.Input((16, 16, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="features", data_format="channels_last")(inputs))
    reduced = float32(model).reduced("int8", image=IMAGES)
    assert reduced.run_operators["QLinearConv"] == 1
    assert [value.name for value in reduced.model.graph.outputs] == ["features"]


def test_what_leads_to_no_product_is_not_rounded(float32: Lower) -> None:
    inputs = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3)(inputs)
    outputs = layers.GlobalAveragePooling2D()(x + layers.Conv2D(4, 3)(inputs))
    reduced = float32(keras.Model(inputs, outputs)).reduced("int8", image=IMAGES)
    assert reduced.operators["QuantizeLinear"] == 3  # the image, and what the two convolutions give


def test_a_large_bias_fits_its_32_bits(float32: Lower) -> None:
    inputs = layers.Input((16, 16, 3), name="image")
    convolution = layers.Conv2D(2, 1, name="features")
    model = keras.Model(inputs, convolution(inputs))
    convolution.kernel.assign(convolution.kernel * [[[[1e-12, 1.0]]]])
    convolution.bias.assign([3.0, -2.0])
    original = float32(model)
    answer = original.reduced("int8", image=IMAGES).answer({"image": IMAGES})["features"]
    np.testing.assert_allclose(answer, original.answer({"image": IMAGES})["features"], atol=0.06)


def test_a_kernel_that_two_layers_share_serves_both(float32: Lower) -> None:
    a, b = layers.Input((16, 16, 3), name="a"), layers.Input((16, 16, 3), name="b")
    shared = layers.Conv2D(4, 3, activation="relu")
    model = keras.Model([a, b], layers.GlobalAveragePooling2D()(shared(a) + shared(b)))
    original = float32(model)
    given = {"a": IMAGES, "b": IMAGES * 3.0}
    reduced = original.reduced("int8", **given)
    name = original.model.graph.outputs[0].name
    np.testing.assert_allclose(reduced.answer(given)[name], original.answer(given)[name], atol=0.05)


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int4-weights"])
def test_embedding_tables_are_looked_up_in_bytes(precision: str, float32: Lower) -> None:
    inputs = layers.Input((None,), dtype="int32", name="ids")
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(500, 32)(inputs)))
    model = float32(keras.Model(inputs, outputs))
    ids = np.random.default_rng(0).integers(0, 500, (16, 9)).astype(np.int32)
    reduced = model.reduced(precision, ids=ids)
    tables = [value for value in reduced.model.graph.initializers.values() if 500 in value.shape]
    assert [table.dtype.name for table in tables] == ["INT8"]


def test_dynamic_ranges_are_found_once_for_all_that_read_a_value(float32: Lower) -> None:
    inputs = layers.Input((7, 32), name="tokens")
    model = keras.Model(inputs, [layers.Dense(8)(inputs), layers.Dense(8)(inputs), layers.Dense(8)(inputs)])
    reduced = float32(model).reduced("int8-dynamic", tokens=TOKENS)
    assert reduced.operators["DynamicQuantizeLinear"] == 1
    assert reduced.operators["MatMulInteger"] == 3


def test_dynamic_lstm_runs_on_integers(float32: Lower) -> None:
    inputs = layers.Input((None, 32), name="tokens")
    outputs = layers.Dense(3)(layers.Bidirectional(layers.LSTM(16))(inputs))
    reduced = float32(keras.Model(inputs, outputs)).reduced("int8-dynamic", tokens=TOKENS)
    assert reduced.run_operators["DynamicQuantizeLSTM"] == 1
    assert reduced.run_operators["DynamicQuantizeMatMul"] == 1


def test_dynamic_convolutions_have_a_scale_per_channel(float32: Lower) -> None:
    inputs = layers.Input((16, 16, 3), name="image")
    convolution = layers.DepthwiseConv2D(3, name="features")
    model = keras.Model(inputs, convolution(inputs))
    convolution.kernel.assign(convolution.kernel * np.array([1e-3, 1.0, 1e3], np.float32)[:, None])
    original = float32(model)
    want = original.answer({"image": IMAGES})["features"]
    got = original.reduced("int8-dynamic", image=IMAGES).answer({"image": IMAGES})["features"]
    error = np.sqrt(np.square(got - want).mean((0, 1, 2)) / np.square(want).mean((0, 1, 2)))
    assert error.max() < 0.05


@pytest.mark.parametrize("shape", [pytest.param((48,), id="rows"), pytest.param((7, 48), id="sequences")])
def test_four_bits_are_multiplied_by_directly(shape: tuple[int, ...], float32: Lower) -> None:
    inputs = layers.Input(shape, name="x")
    x = layers.Dense(40, activation="relu", use_bias=False)(inputs)
    x = layers.Dense(40, activation="relu", bias_initializer="ones")(x)
    x = layers.Dense(40, activation="tanh", bias_initializer="ones")(x)
    outputs = layers.Dense(3, bias_initializer="ones")(x)
    reduced = float32(keras.Model(inputs, outputs)).reduced(
        "int4-weights", x=np.zeros((2, *shape), np.float32)
    )
    assert reduced.run_operators["MatMulNBits"] == 4
    assert not {"DequantizeLinear", "MatMul", "Gemm", "FusedGemm"} & set(reduced.run_operators)
