"""Convolution layers and operations equal Keras in every padding, stride, dilation, group and layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from keras import layers
from numpy.typing import NDArray

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(11)


def batch(shape: tuple[int | None, ...], open_sizes: int = 9, rows: int = 3) -> NDArray[Any]:
    sizes = [open_sizes if size is None else size for size in shape]
    return RNG.normal(size=(rows, *sizes)).astype("float32")


def image(rank: int, channels: int, data_format: str, size: int | None = None) -> tuple[int | None, ...]:
    spatial = (size,) * rank
    return (channels, *spatial) if data_format == "channels_first" else (*spatial, channels)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("layer", "rank"),
    [
        pytest.param(layers.Conv1D, 1, id="conv1d"),
        pytest.param(layers.Conv2D, 2, id="conv2d"),
        pytest.param(layers.Conv3D, 3, id="conv3d"),
        pytest.param(layers.Conv1DTranspose, 1, id="conv1d_transpose"),
        pytest.param(layers.Conv2DTranspose, 2, id="conv2d_transpose"),
        pytest.param(layers.Conv3DTranspose, 3, id="conv3d_transpose"),
    ],
)
def test_a_strided_convolution_of_any_size_equals_keras(
    equal_to_keras: Check, single: Single, layer: Any, rank: int, padding: str, data_format: str
) -> None:
    shape = image(rank, 3, data_format)
    model = single(layer(5, 3, strides=2, padding=padding, data_format=data_format), shape)
    equal_to_keras(model, batch(shape, 6), batch(shape, 7), predict=True)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_convolution_of_images_equals_keras(
    equal_to_keras: Check, single: Single, data: st.DataObject
) -> None:
    draw = data.draw
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    strides, dilation = draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), (1, 1)
    if draw(st.booleans()):
        strides, dilation = dilation, strides
    groups = draw(st.sampled_from([1, 2, 3]))
    shape = draw(st.sampled_from([(None, None, 6), (13, 11, 6), (None, 12, 6)]))
    layer = layers.Conv2D(
        filters=groups * draw(st.integers(1, 2)),
        kernel_size=kernel,
        strides=strides,
        dilation_rate=dilation,
        groups=groups,
        padding=draw(st.sampled_from(["valid", "same"])),
        use_bias=draw(st.booleans()),
        activation=draw(st.sampled_from([None, "relu"])),
    )
    equal_to_keras(single(layer, shape), batch(shape, draw(st.integers(12, 15)), rows=2))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_transposed_convolution_equals_keras(
    equal_to_keras: Check, single: Single, data: st.DataObject
) -> None:
    draw = data.draw
    stride = draw(st.integers(1, 3))
    padding = draw(st.sampled_from(["valid", "same"]))
    kernel = draw(st.integers(1, 5))
    output_padding = draw(st.sampled_from([None, *range(stride)]))
    if padding == "same" and kernel % 2 == 0 and output_padding == 0:
        output_padding = None  # TensorFlow cannot compute it: the output would be smaller than a stride
    shape = draw(st.sampled_from([(None, 2), (5, 2)]))
    layer = layers.Conv1DTranspose(
        3,
        kernel,
        strides=stride,
        padding=padding,
        output_padding=output_padding,
        dilation_rate=draw(st.integers(1, 2)) if stride == 1 else 1,
    )
    equal_to_keras(single(layer, shape), batch(shape, draw(st.integers(3, 6)), rows=2))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("make", "rank"),
    [
        pytest.param(lambda **kw: layers.DepthwiseConv1D(3, depth_multiplier=2, **kw), 1, id="depthwise1d"),
        pytest.param(
            lambda **kw: layers.DepthwiseConv2D((3, 2), depth_multiplier=2, **kw), 2, id="depthwise2d"
        ),
        pytest.param(
            lambda **kw: layers.SeparableConv1D(4, 3, depth_multiplier=2, **kw), 1, id="separable1d"
        ),
        pytest.param(lambda **kw: layers.SeparableConv2D(4, (3, 2), **kw), 2, id="separable2d"),
    ],
)
def test_depthwise_and_separable_convolutions_equal_keras(
    equal_to_keras: Check,
    single: Single,
    make: Any,
    rank: int,
    padding: str,
    strides: int,
    dilation: int,
    data_format: str,
) -> None:
    shape = image(rank, 4, data_format)
    layer = make(padding=padding, strides=strides, dilation_rate=dilation, data_format=data_format)
    equal_to_keras(single(layer, shape), batch(shape, 13, rows=2))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 3)])
def test_causal_padding_sees_nothing_of_the_future(
    equal_to_keras: Check, single: Single, operators: Count, strides: int, dilation: int, data_format: str
) -> None:
    shape = image(1, 3, data_format)
    layer = layers.Conv1D(
        6, 3, strides=strides, dilation_rate=dilation, padding="causal", data_format=data_format
    )
    graph = equal_to_keras(single(layer, shape), batch(shape, 8), batch(shape, 9))
    assert operators(graph)["Pad"] == 0


def test_a_convolution_layer_is_one_conv_between_transposes(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    model = single(layers.Conv2D(4, 3, padding="same", activation="relu"), (8, 8, 3))
    graph = equal_to_keras(model, batch((8, 8, 3)), predict=True)
    assert operators(graph) == {"Transpose": 2, "Conv": 1, "Relu": 1}


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda **options: layers.Conv1D(4, 3, **options), id="conv"),
        pytest.param(lambda **options: layers.DepthwiseConv1D(3, **options), id="depthwise"),
        pytest.param(lambda **options: layers.SeparableConv1D(4, 3, **options), id="separable"),
        pytest.param(lambda **options: layers.Conv1DTranspose(4, 3, **options), id="transposed"),
    ],
)
def test_a_bias_in_channels_first_goes_along_the_width_where_it_is_as_long(
    equal_to_keras: Check, single: Single, make: Callable[..., keras.Layer], opened: bool
) -> None:
    """Keras's addition takes it for a bias in channels last there; a model was trained with what it does."""
    model = single(make(padding="same", data_format="channels_first"), (4, None if opened else 4))
    for width in (4, 6) if opened else (4,):
        equal_to_keras(model, batch((4, width)))


def test_a_separable_convolution_is_two_convs_with_nothing_between(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    model = single(layers.SeparableConv2D(4, 3), (8, 8, 3))
    assert operators(equal_to_keras(model, batch((8, 8, 3)))) == {"Transpose": 2, "Conv": 2}


def test_a_kernel_with_low_rank_adapters_is_entered_with_them(equal_to_keras: Check, single: Single) -> None:
    layer = layers.Conv2D(4, 3)
    model = single(layer, (8, 8, 3))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(RNG.normal(size=layer.lora_kernel_b.shape))
    equal_to_keras(model, batch((8, 8, 3)))


def test_a_subclass_with_its_own_convolution_is_not_taken_for_its_parent(
    equal_to_keras: Check, single: Single
) -> None:
    class Standardized(layers.Conv2D):
        """A convolution that standardizes its kernel, as Keras's guide writes it."""

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            mean, variance = keras.ops.moments(kernel, axes=(0, 1, 2), keepdims=True)
            return super().convolution_op(inputs, (kernel - mean) / keras.ops.sqrt(variance + 1e-5))

    model = single(Standardized(4, 3, padding="same"), (6, 7, 3))
    equal_to_keras(model, batch((6, 7, 3)))


class Applied(keras.Layer):
    """A layer that applies an operation to its inputs and, as constants, to arrays of its own."""

    def __init__(self, operation: Any, *constants: NDArray[Any], **options: Any) -> None:
        super().__init__()
        self.operation, self.constants, self.options = operation, constants, options

    def call(self, inputs: list[Any]) -> Any:
        return self.operation(*inputs, *self.constants, **self.options)


@pytest.mark.parametrize(
    ("operation", "kernels"),
    [
        pytest.param(keras.ops.conv, [(3, 3, 4, 6)], id="conv"),
        pytest.param(keras.ops.depthwise_conv, [(3, 3, 4, 2)], id="depthwise"),
        pytest.param(keras.ops.separable_conv, [(3, 3, 4, 2), (1, 1, 8, 5)], id="separable"),
        pytest.param(keras.ops.conv_transpose, [(3, 3, 5, 4)], id="transposed"),
    ],
)
def test_an_operation_takes_kernels_given_and_kernels_computed(
    equal_to_keras: Check, operation: Any, kernels: list[tuple[int, ...]]
) -> None:
    arrays = [RNG.normal(size=shape).astype("float32") for shape in kernels]
    x = keras.Input((9, 9, 4))
    computed = [keras.Input(shape=shape[1:], batch_size=shape[0]) for shape in kernels]
    given_ = Applied(operation, *arrays, padding="same")([x])
    model = keras.Model([x, *computed], [given_, Applied(operation, strides=2)([x, *computed])])
    equal_to_keras(model, [batch((9, 9, 4)), *arrays], batched=False)


def test_shared_kernels_are_stored_once(equal_to_keras: Check) -> None:
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = keras.Input((8, 8, 3))
    graph = equal_to_keras(keras.Model(x, shared(shared(x))), batch((8, 8, 3)))
    assert [name for name in graph.graph.initializers if "kernel" in name] == ["shared/kernel:conv"]


@pytest.mark.parametrize("policy", ["float64", "mixed_bfloat16", "mixed_float16"])
def test_convolutions_in_other_types_run(equal_to_keras: Check, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2DTranspose(4, 3, strides=2),
        ]
    )
    tolerance = {"float64": 1e-5, "mixed_float16": 1e-2, "mixed_bfloat16": 5e-2}[policy]
    equal_to_keras(model, batch((8, 8, 3)).astype(model.inputs[0].dtype), rtol=tolerance, atol=tolerance)


def test_what_computes_in_float32_for_want_of_a_kernel_is_said(single: Single) -> None:
    keras.config.set_dtype_policy("float64")
    (warning,) = lower(single(layers.Conv2D(4, 3, name="wide"), (8, 8, 3))).warnings
    assert warning == (
        "layer 'wide': Conv computes in float32, because ONNX Runtime has no float64 kernel of it on a CPU"
    )


@pytest.mark.parametrize("name", ["conv", "depthwise_conv"])
def test_a_kernel_of_open_size_is_refused_where_it_decides_the_padding(name: str) -> None:
    image, kernel = keras.Input((8, 8, 3)), keras.Input(batch_shape=(None, 2, 3, 2))
    outputs = getattr(keras.ops, name)(image, kernel, padding="same", data_format="channels_last")
    with pytest.raises(ConversionError, match="kernel of dynamic size"):
        lower(keras.Model([image, kernel], outputs))
