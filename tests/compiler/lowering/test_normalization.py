"""Normalization layers equal Keras along any axis, and are the one operator that ONNX has for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers
from numpy.typing import NDArray

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(13)


def batch(shape: tuple[int | None, ...], open_sizes: int = 9, rows: int = 3) -> NDArray[Any]:
    sizes = [open_sizes if size is None else size for size in shape]
    return RNG.normal(2.0, 3.0, size=(rows, *sizes)).astype("float32")


@pytest.mark.parametrize(("scale", "center"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        pytest.param((6,), -1, id="features"),
        pytest.param((None, 6), -1, id="sequence"),
        pytest.param((None, None, 6), -1, id="image"),
        pytest.param((6, None, None), 1, id="image-channels-first"),
        pytest.param((4, 6, 3), 2, id="middle-axis"),
        pytest.param((3, 4, 3, 6), 4, id="volume"),
    ],
)
def test_batch_normalization_along_any_axis_equals_keras(
    equal_to_keras: Check,
    single: Single,
    operators: Count,
    shape: tuple[int | None, ...],
    axis: int,
    scale: bool,
    center: bool,
) -> None:
    model = single(layers.BatchNormalization(axis=axis, scale=scale, center=center), shape)
    graph = equal_to_keras(model, batch(shape, 5), batch(shape, 6), predict=scale)
    assert operators(graph)["BatchNormalization"] == 1
    assert set(operators(graph)) <= {"BatchNormalization", "Transpose"}


def test_batch_renormalization_is_batch_normalization_at_inference(
    equal_to_keras: Check, single: Single
) -> None:
    equal_to_keras(single(layers.BatchNormalization(renorm=True), (4, 4, 3)), batch((4, 4, 3)))


class AlwaysTraining(keras.Layer):
    """Calls a layer as in training whatever it is asked for."""

    def __init__(self, inner: keras.Layer) -> None:
        super().__init__()
        self.inner = inner
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return self.inner(inputs, mask=mask, training=True)


@pytest.mark.parametrize("masked", [False, True])
def test_a_model_that_asks_for_the_statistics_of_the_batch_gets_them(
    equal_to_keras: Check, masked: bool
) -> None:
    x = keras.Input((5, 4))
    h = layers.Masking(mask_value=0.0)(x) if masked else x
    model = keras.Model(x, AlwaysTraining(layers.BatchNormalization(name="norm"))(h))
    data = batch((5, 4))
    data[0, 2:] = 0.0
    equal_to_keras(model, data)
    assert any("norm' is called with training=True" in warning for warning in lower(model).warnings)


def test_asking_for_inference_overrides_what_a_functional_model_recorded(
    equal_to_keras: Check, operators: Count
) -> None:
    x = keras.Input((5, 4))
    model = keras.Model(x, layers.BatchNormalization()(x, training=True))
    assert operators(equal_to_keras(model, batch((5, 4))))["BatchNormalization"] == 1
    assert lower(model).warnings == ()


def test_renormalization_by_kept_statistics_is_refused() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, AlwaysTraining(layers.BatchNormalization(renorm=True))(x))
    with pytest.raises(ConversionError, match="call it without training=True"):
        lower(model)


@pytest.mark.parametrize(("scale", "center"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(
    ("shape", "axis", "transposes"),
    [
        pytest.param((6,), -1, 0, id="features"),
        pytest.param((None, 6), -1, 0, id="sequence"),
        pytest.param((4, 5, 6), [1, 2, 3], 0, id="all"),
        pytest.param((4, 5, 6), [-1, -2], 0, id="last-two"),
        pytest.param((6, None, 4), 1, 2, id="first"),
        pytest.param((4, 5, 6), [1, 3], 2, id="apart"),
        pytest.param((6, 5, 6), [1, -1], 2, id="unsorted"),
    ],
)
def test_layer_normalization_over_any_axes_is_one_operator(
    equal_to_keras: Check,
    single: Single,
    operators: Count,
    shape: tuple[int | None, ...],
    axis: Any,
    transposes: int,
    scale: bool,
    center: bool,
) -> None:
    model = single(layers.LayerNormalization(axis=axis, scale=scale, center=center), shape)
    graph = equal_to_keras(model, batch(shape, 5), batch(shape, 6))
    assert operators(graph)["LayerNormalization"] == 1
    assert operators(graph)["Transpose"] == transposes


def test_layer_normalization_of_open_sizes_equals_keras(equal_to_keras: Check) -> None:
    class Normalized(keras.Layer):
        def call(self, inputs: Any) -> Any:
            return keras.ops.layer_normalization(inputs, axis=[1, 2])

    x = keras.Input((None, 4))
    equal_to_keras(keras.Model(x, Normalized()(x)), batch((5, 4)), batch((7, 4)))


def test_layer_normalization_by_deviation_equals_keras(equal_to_keras: Check, single: Single) -> None:
    equal_to_keras(single(layers.LayerNormalization(rms_scaling=True), (5, 4)), batch((5, 4)))


@pytest.mark.parametrize(
    ("opset", "operator"), [(17, "ReduceMean"), (21, "ReduceMean"), (23, "RMSNormalization")]
)
@pytest.mark.parametrize("axis", [-1, [1, 2]], ids=["last", "all"])
def test_root_mean_square_normalization_equals_keras(
    equal_to_keras: Check, single: Single, operators: Count, axis: Any, opset: int, operator: str
) -> None:
    model = single(layers.RMSNormalization(axis=axis, epsilon=1e-3), (5, 4))
    graph = equal_to_keras(model, batch((5, 4)), opset=opset)
    assert operators(graph)[operator] == 1


@pytest.mark.parametrize(
    ("shape", "axis", "groups"),
    [
        pytest.param((None, None, 6), -1, 3, id="image"),
        pytest.param((4, None, 6), -1, 1, id="one-group"),
        pytest.param((4, 5, 6), -1, -1, id="instance"),
        pytest.param((6, 4, 5), 1, 2, id="channels-first"),
        pytest.param((None, 6), -1, 2, id="sequence"),
        pytest.param((6,), -1, 2, id="features"),
        pytest.param((4, 6, 5), 2, 3, id="middle"),
    ],
)
@pytest.mark.parametrize(("scale", "center"), [(True, True), (True, False), (False, True), (False, False)])
def test_group_normalization_equals_keras(
    equal_to_keras: Check,
    single: Single,
    shape: tuple[int | None, ...],
    axis: int,
    groups: int,
    scale: bool,
    center: bool,
) -> None:
    layer = layers.GroupNormalization(groups, axis=axis, scale=scale, center=center)
    equal_to_keras(single(layer, shape), batch(shape, 5), batch(shape, 6))


@pytest.mark.parametrize("axis", [-1, 1, [1, 2], [1, 2, 3]], ids=str)
def test_unit_normalization_equals_keras_for_rows_of_zeros_too(
    equal_to_keras: Check, single: Single, axis: Any
) -> None:
    data = batch((3, 4, 5))
    data[1] = 0.0
    equal_to_keras(single(layers.UnitNormalization(axis=axis), (3, 4, 5)), data)


def test_spectral_normalization_is_its_layer_at_inference(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    model = single(layers.SpectralNormalization(layers.Conv2D(3, 3)), (6, 6, 2))
    assert operators(equal_to_keras(model, batch((6, 6, 2)))) == {"Transpose": 2, "Conv": 1}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_normalizations_compute_in_float32_at_least(equal_to_keras: Check, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    x = keras.Input((6, 4))
    normalized = [
        layers.BatchNormalization()(x),
        layers.LayerNormalization()(x),
        layers.GroupNormalization(2)(x),
        layers.RMSNormalization()(x),
    ]
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 5e-2, "float64": 1e-6}[policy]
    data = batch((6, 4)).astype(x.dtype)
    equal_to_keras(keras.Model(x, normalized), data, rtol=tolerance, atol=tolerance)
