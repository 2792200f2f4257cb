"""What is computed in float16, and what is not."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

FEATURES = np.random.default_rng(0).standard_normal((16, 8), np.float32)

Lower = Callable[[keras.Model], Any]


class Running(keras.layers.Layer):
    """A cell of nobody's: what it saw so far, weighted."""

    state_size = 8
    output_size = 8

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight((8, 8))

    def call(self, x: keras.KerasTensor, states: list[keras.KerasTensor]) -> tuple[object, list[object]]:
        state = keras.ops.tanh(states[0] @ self.kernel + x)
        return state, [state]


def types(model: ir.Model, operator: str) -> list[str]:
    """Return the types of the results of an operator."""
    return [str(node.outputs[0].dtype) for node in model.graph if node.op_type == operator]


def chain(*between: layers.Layer, before: tuple[layers.Layer, ...] = ()) -> keras.Model:
    """Two Dense layers, with something before the first and something between the two."""
    return keras.Sequential(
        [
            layers.Input((8,), name="features"),
            *before,
            layers.Dense(8, name="first"),
            *between,
            layers.Dense(4, name="last"),
        ]
    )


def test_products_and_what_is_between_them_are_float16(float32: Lower) -> None:
    reduced = float32(chain(layers.ReLU(), layers.LayerNormalization())).reduced("float16", features=FEATURES)
    assert set(types(reduced.model, "MatMul")) == {"FLOAT16"}
    assert types(reduced.model, "Relu") == ["FLOAT16"]
    assert types(reduced.model, "LayerNormalization") == ["FLOAT16"]


def test_values_are_converted_once_each_way(float32: Lower) -> None:
    reduced = float32(chain(layers.ReLU(), layers.LayerNormalization())).reduced("float16", features=FEATURES)
    assert reduced.operators["Cast"] == 2


def test_weights_keep_their_names_and_take_half_the_space(float32: Lower) -> None:
    model = float32(chain())
    reduced = model.reduced("float16", features=FEATURES)
    before, after = model.model.graph.initializers, reduced.model.graph.initializers
    assert {name for name in after if name.endswith("kernel")} == {
        name for name in before if name.endswith("kernel")
    }
    for name in after:
        assert after[name].const_value.nbytes * 2 == before[name].const_value.nbytes


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(layers.Lambda(lambda x: keras.ops.exp(x)), id="exponents"),
        pytest.param(layers.Lambda(lambda x: x - keras.ops.mean(x, axis=-1, keepdims=True)), id="sums"),
        pytest.param(layers.Lambda(lambda x: x / (1.0 + keras.ops.abs(x))), id="quotients"),
        pytest.param(layers.Lambda(lambda x: keras.ops.where(x > 0.1, x, 0.0)), id="comparisons"),
        pytest.param(layers.Lambda(lambda x: x + keras.ops.log(x * x + 1e-7)), id="logarithms"),
    ],
)
def test_operators_that_need_digits_or_range_stay_in_float32(layer: layers.Layer, float32: Lower) -> None:
    reduced = float32(chain(layer)).reduced("float16", features=FEATURES)
    for operator in ("Exp", "ReduceMean", "Div", "Log"):
        assert set(types(reduced.model, operator)) <= {"FLOAT"}
    for node in reduced.model.graph:
        if node.op_type == "Greater":
            assert {value.dtype.name for value in node.inputs} == {"FLOAT"}


def test_a_constant_that_float16_cannot_hold_stays(float32: Lower) -> None:
    model = chain(layers.Lambda(lambda x: keras.ops.minimum(x + 1e-30, 1e9)))
    reduced = float32(model).reduced("float16", features=FEATURES)
    assert set(types(reduced.model, "Min")) == {"FLOAT"}
    constants = [value.const_value for value in reduced.model.graph.initializers.values()]
    assert all(np.isfinite(tensor.numpy()).all() for tensor in constants)


def test_values_beyond_float16_stay_in_float32(float32: Lower) -> None:
    model = chain(layers.ReLU(), layers.Rescaling(1e-6))
    model.get_layer("first").kernel.assign(model.get_layer("first").kernel * 1e6)
    large = float32(model)
    answer = large.reduced("float16", features=FEATURES).answer({"features": FEATURES})["last"]
    np.testing.assert_allclose(answer, large.answer({"features": FEATURES})["last"], rtol=1e-2, atol=1e-3)


def test_what_comes_before_the_first_product_takes_values_of_any_size(
    float32: Lower,
) -> None:
    model = float32(chain(before=(layers.Normalization(mean=[4e5] * 8, variance=[1e10] * 8),)))
    far = FEATURES * 1e5 + 4e5
    answer = model.reduced("float16", features=FEATURES).answer({"features": far})["last"]
    np.testing.assert_allclose(answer, model.answer({"features": far})["last"], rtol=1e-2, atol=1e-3)


def test_a_loop_stays_in_float32_and_reads_what_it_did(float32: Lower) -> None:
    inputs = layers.Input((None, 8), name="steps")
    recurrent = layers.RNN(Running())(layers.Dense(8)(inputs))
    model = float32(keras.Model(inputs, layers.Dense(2, name="last")(recurrent)))
    assert any(node.op_type in ("Loop", "Scan") for node in model.model.graph)
    steps = np.random.default_rng(0).standard_normal((5, 7, 8), np.float32)
    reduced = model.reduced("float16", steps=steps)
    want, got = (each.answer({"steps": steps})["last"] for each in (model, reduced))
    np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-3)


def test_a_model_that_is_float16_already_is_left_as_it_is(float32: Lower) -> None:
    policy = keras.DTypePolicy("mixed_float16")
    inputs = layers.Input((8,), name="features")
    hidden = layers.Dense(8, activation="relu", dtype=policy)(inputs)
    model = float32(keras.Model(inputs, layers.Dense(4, dtype=policy, name="last")(hidden)))
    reduced = model.reduced("float16", features=FEATURES)
    assert reduced.operators["Cast"] == sum(node.op_type == "Cast" for node in model.model.graph)
