"""Layers that only TensorFlow can follow: traced as a whole, converted by tf2onnx, completed by handlers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tensorflow as tf
from keras import ops
from tf2onnx import optimizer
from tf2onnx.optimizer import identity_optimizer

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.passes import optimize

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)

_KERNEL = np.random.default_rng(1).normal(size=(1, 2, 1, 3, 4)).astype(np.float32)


class _OnlyTensorFlow(keras.Layer):
    """A layer whose code refuses anything that is not a tensor of TensorFlow."""

    def __init__(self, function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        self.dense = keras.layers.Dense(6, activation="gelu")

    def build(self, _: Any) -> None:
        self.dense.build((None, 4, 6))

    def call(self, x: Any) -> Any:
        if not all(isinstance(leaf, tf.Tensor) for leaf in keras.tree.flatten(x)):
            raise TypeError("give me a tensor of TensorFlow")
        return self.function(self, x)


def _computed(x: Any, *numbers: int) -> Any:
    """Return numbers that nobody but the graph knows."""
    return tf.cast(x[0, 0, : len(numbers)] * 0.0, tf.int32) + list(numbers)


def _normalized(x: Any) -> Any:
    """Return the layer normalization of what has eight channels."""
    mean, variance = tf.nn.moments(x, [-1], keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + 1e-3) * tf.range(1.0, 9.0) + tf.range(8.0)


def _halfway(x: Any, step: float) -> Any:
    """Quantize what lies between two numbers that a tensor in eight bits holds."""
    between = (tf.round(x * 50) + 0.5) * step
    return tf.quantization.fake_quant_with_min_max_vars(between, -128 * step, 127 * step) / step


def _pooled_in_a_branch(x: Any, y: Any) -> Any:
    """Pool in a branch that alone needs the second of two tensors: Grappler moves it there, and loses ranks."""
    pair = tf.cond(tf.shape(x)[1] > 2, lambda: (tf.nn.avg_pool1d(x, 2, 2, "SAME"), y), lambda: (x * 0, x))
    return tf.concat(pair, axis=1)


def _model(function: Callable[..., Any], *inputs: keras.KerasTensor) -> keras.Model:
    given = list(inputs) or [keras.Input((4, 6))]
    return keras.Model(given, _OnlyTensorFlow(function)(given if len(given) > 1 else given[0]))


@pytest.mark.parametrize("function", [
    pytest.param(lambda s, x: tf.nn.relu(x) + 1, id="plain"),
    pytest.param(lambda s, x: s.dense(x), id="exact gelu"),
    pytest.param(lambda s, x: tf.math.erfc(x) + tf.math.lgamma(tf.abs(x) + 0.1), id="erfc and lgamma"),
    pytest.param(lambda s, x: tf.math.log1p(tf.abs(x)) + tf.math.expm1(x), id="log1p and expm1"),
    pytest.param(lambda s, x: tf.math.erfinv(tf.tanh(x) * 0.9), id="erfinv"),
    pytest.param(lambda s, x: tf.math.xlogy(x, tf.abs(x)) + tf.math.bessel_i0(x), id="xlogy and bessel"),
    pytest.param(lambda s, x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v + s.dense(v)), [0, x])[1], id="loop"),
    pytest.param(lambda s, x: tf.cond(tf.reduce_sum(x) > 0, lambda: tf.math.erfc(x), lambda: x - 1), id="branch"),
    pytest.param(lambda s, x: sum(tf.cond(tf.size(x) > 0, lambda: (s.dense(x),) * 2, lambda: (x, x))), id="a branch's value twice"),
    pytest.param(lambda s, x: _pooled_in_a_branch(tf.exp(x), tf.sin(x)), id="a branch that pools"),
    pytest.param(lambda s, x: ops.argmax(x, axis=-1), id="argmax"),
    pytest.param(lambda s, x: tf.einsum("bhc, bHc -> bhH", x, x), id="capitals"),
    pytest.param(lambda s, x: tf.einsum("...hc,cd->...hd", x, tf.ones([6, 2])), id="einsum of what lies before"),
    pytest.param(lambda s, x: tf.linalg.inv(x[:, :3, :3]), id="inverse"),
    pytest.param(lambda s, x: tf.linalg.solve(x[:, :3, :3], x[:, :3]), id="solve"),
    pytest.param(lambda s, x: tf.image.extract_patches(x[..., None], [1, 2, 2, 1], [1, 1, 2, 1], [1, 3, 2, 1], "SAME"), id="patches"),
    pytest.param(lambda s, x: tf.extract_volume_patches(x[..., None, None], [1, 2, 3, 1, 1], [1, 2, 3, 1, 1], "VALID"), id="volumes"),
    pytest.param(lambda s, x: tf.image.hsv_to_rgb(tf.image.rgb_to_hsv(tf.abs(x[None, ..., :3]))), id="colours"),
    pytest.param(lambda s, x: tf.raw_ops.Bucketize(input=x, boundaries=[-1.0, 0.0, 1.0]), id="buckets"),
    pytest.param(lambda s, x: tf.math.in_top_k([1, 2, 5], x[:, 0], 2), id="in top k"),
    pytest.param(lambda s, x: ops.conv(x, np.ones((3, 3, 2), "float32"), 1, "same"), id="grouped convolution"),
    pytest.param(lambda s, x: tf.function(tf.nn.conv3d, jit_compile=True)(tf.reshape(x, [-1, 2, 2, 1, 6]), _KERNEL, [1] * 5, "SAME"), id="grouped convolution of volumes"),
    pytest.param(
        lambda s, x: tf.nn.conv2d_transpose(x[..., None], np.ones((2, 1, 2, 1), "float32"), [3, 12, 12, 2], (3, 2), "SAME"),
        id="kernels smaller than strides",
    ),
    pytest.param(
        lambda s, x: tf.bitwise.bitwise_and(tf.int32.min, tf.bitcast(tf.concat([x, -tf.zeros_like(x)], 1), tf.int32)), id="sign bits"
    ),
    pytest.param(lambda s, x: tf.cast(tf.cast(x, tf.dtypes.experimental.float8_e4m3fn), tf.float32), id="float8"),
    pytest.param(lambda s, x: tf.concat([x[:, -9::-1], x[:, -2::-1], x[:, -1:0:-2]], 1), id="backwards"),
    pytest.param(lambda s, x: tf.one_hot(tf.cast(x[0, 0] * 3, tf.int32), 5, axis=1), id="one hot of a row"),
    pytest.param(lambda s, x: tf.quantization.fake_quant_with_min_max_args(x, 0.5, 2.0, 4), id="quantized"),
    pytest.param(lambda s, x: tf.quantization.fake_quant_with_min_max_vars(x, -1.5, -0.2, 4, True), id="narrowly"),
    pytest.param(lambda s, x: _halfway(x, 0.1) + _halfway(x, 0.0375), id="quantized halfway between numbers"),
    pytest.param(lambda s, x: tf.linalg.set_diag(x, x[:, :, 0], k=tf.cast(x[0, 0, :1] * 0, tf.int32)), id="diagonal"),
    pytest.param(lambda s, x: tf.compat.v1.nn.fused_batch_norm(x[None], *np.ones([4, 6], "float32"), is_training=False), id="normalized, with mean and variance"),
    pytest.param(lambda s, x: tf.raw_ops.FusedBatchNormV3(x=x[None], scale=x[0, 0], offset=x[0, 1], mean=x[0, 2], variance=x[0, 3] ** 2, is_training=False)[1] * 2, id="what it was normalized by"),
    pytest.param(lambda s, x: tf.RaggedTensor.from_row_splits(x[0, :, :5], _computed(x, 0, 3, 3, 4)).to_tensor(), id="ragged vectors"),
    pytest.param(lambda s, x: tf.RaggedTensor.from_row_splits(x[0], _computed(x, 0, 3, 3, 4)).to_tensor(1.5, shape=[5, 2, None]), id="ragged to a shape"),
    pytest.param(lambda s, x: tf.RaggedTensor.from_nested_row_splits(x[0], [_computed(x, 0, 2, 2, 3), _computed(x, 0, 1, 3, 4)]).to_tensor(7.0), id="ragged in ragged"),
    pytest.param(lambda s, x: tf.RaggedTensor.from_nested_value_rowids(x[0], [_computed(x, 0, 2), _computed(x, 0, 0, 1, 1)], [3, 2]).to_tensor(7.0), id="ragged by row"),
    pytest.param(lambda s, x: tf.strings.to_number(tf.strings.as_string(tf.cast(x, tf.int32))), id="texts to numbers"),
    pytest.param(lambda s, x: tf.math.bincount(tf.cast(tf.abs(x[0]) * 3, tf.int32), axis=-1, maxlength=4), id="counted"),
    pytest.param(lambda s, x: tf.math.bincount(tf.cast(tf.abs(x[0]) * 3, tf.int32), axis=-1, binary_output=True), id="occurring"),
    pytest.param(lambda s, x: tf.math.bincount(tf.cast(tf.abs(x[0]) * 3, tf.int32), x[1], axis=-1), id="weighed in rows"),
    pytest.param(lambda s, x: tf.math.bincount(tf.cast(tf.abs(x[0]) * 3, tf.int32), x[1], maxlength=2), id="weighed"),
    pytest.param(lambda s, x: tf.raw_ops.ImageProjectiveTransformV3(images=x[..., None], transforms=[[0.8, -0.5, 1.0, 0.4, 0.9, -0.7, 0.01, 0.0]], output_shape=[3, 8], fill_value=0.5, interpolation="BILINEAR", fill_mode="REFLECT"), id="turned"),
    pytest.param(lambda s, x: tf.cast(tf.cast(tf.cast(x, tf.int32), tf.bool), tf.float32), id="rounded before it is judged"),
    pytest.param(lambda s, x: tf.reshape(y := tf.reshape(x, [-1, tf.shape(x)[2]]), [tf.shape(y)[0], 1, tf.shape(y)[1]]), id="reshaped twice"),
    pytest.param(lambda s, x: tf.where(x > 0, tf.math.log(x), 1.0 / tf.nn.relu(x + 9.0)), id="what is not chosen is not finite"),
    pytest.param(lambda s, x: tf.stack([(i := tf.cast(x * 5, tf.int32)) // 3, i % 3, i // -3, i % -3]), id="integers divided"),
    pytest.param(lambda s, x: tf.cast((i := tf.cast(tf.clip_by_value(x * 99, -128, 127), tf.int8)) // 100 + i % -100, tf.int32), id="small integers divided"),
    pytest.param(lambda s, x: tf.stack([x % 0.7, tf.truncatemod(x, 0.7), tf.truncatediv(x, 0.7)]), id="fractions divided"),
    pytest.param(lambda s, x: tf.where(x > 0, 2**24 + 1, 2**24) > 2**24, id="integers compared"),
    pytest.param(lambda s, x: tuple(tf.math.top_k(tf.where(x > 0, 2**24 + 1, 2**24), 2)), id="greatest integers"),
    pytest.param(lambda s, x: tf.math.unsorted_segment_sum(x[0], _computed(x, 0, -1, 3, 3), 5), id="segments"),
    pytest.param(lambda s, x: tf.math.unsorted_segment_max(x[0], _computed(x, 0, -1, 3, 3), 5), id="greatest of segments"),
    pytest.param(lambda s, x: tf.math.unsorted_segment_mean(x[0], tf.reshape(_computed(x, *range(6)) % 4 - 1, [1, 6]) + tf.zeros([4, 1], tf.int32), 3), id="segments of elements"),
    pytest.param(lambda s, x: tf.math.segment_min(x[0], _computed(x, 0, 0, 2, 2)), id="a segment without rows"),
    pytest.param(lambda s, x: tf.math.segment_mean(x[0], _computed(x, 0, 2, 2, 2)), id="means of segments"),
    pytest.param(lambda s, x: tf.sparse.segment_sqrt_n(x[0], [3, 1, 3], _computed(x, 0, 2, 2), num_segments=4), id="segments of picked rows"),
    pytest.param(lambda s, x: tf.scatter_nd(_computed(x, 1, 3, 1, 1)[:, None], x[0], [5, 6]), id="scattered to one place"),
    pytest.param(lambda s, x: tf.linalg.band_part(1.0 / tf.nn.relu(x), _computed(x, 1)[0], 0), id="a band"),
    pytest.param(lambda s, x: tf.linalg.diag(x[:1, 0]) + tf.linalg.diag(x[:1, 1, 1:], k=-1), id="the diagonal of one row"),
    pytest.param(lambda s, x: tf.slice(x, [0, 1, 2], [tf.shape(x)[0], -1, 3]), id="all that is left"),
    pytest.param(lambda s, x: tf.linalg.solve(x[:, :3, :3], x[:, :3], adjoint=True) + tf.linalg.inv(x[:, :3, 3:], adjoint=True) @ x[:, :3], id="adjoint"),
    pytest.param(lambda s, x: tf.searchsorted(tf.sort(x[0]), x[1]) + tf.searchsorted(tf.sort(x[0]), x[0], side="right"), id="searched"),
    pytest.param(lambda s, x: tf.math.invert_permutation(tf.argsort(x[0, 0])), id="a permutation inverted"),
    pytest.param(lambda s, x: tf.nn.l2_loss(x) + tf.math.reduce_euclidean_norm(x, 1) + tf.math.multiply_no_nan(1.0 / tf.nn.relu(x), tf.nn.relu(x))[:, 0], id="norms"),
    pytest.param(lambda s, x: tf.nn.sparse_softmax_cross_entropy_with_logits([0, 5, 2, 2], x[0] * 999), id="crossentropy of large logits"),
    pytest.param(lambda s, x: tf.image.adjust_saturation(tf.abs(x[None, ..., :3]), 1.5), id="saturated"),
    pytest.param(lambda s, x: tf.math.real(tf.complex(x, x + 1) * tf.complex(2.0, 3.0) / tf.complex(x, x * x)), id="complex products"),
    pytest.param(lambda s, x: tf.signal.dct(x) + tf.signal.idct(x, norm="ortho"), id="cosines"),
    pytest.param(lambda s, x: tf.abs(tf.signal.ifft(tf.signal.fft(tf.cast(x, tf.complex64)) * tf.constant([1 + 0j, 2 + 0j, 2j, 1 + 0j, 0j, 0j], tf.complex64))), id="filtered"),
    pytest.param(lambda s, x: tf.transpose(_normalized(tf.nn.conv2d(x[..., None], np.ones((4, 6, 1, 8), "float32"), 4, "VALID")), [0, 3, 1, 2]), id="maps of one pixel"),
    pytest.param(lambda s, x: tf.where(x > 0, x > 1, x < -1), id="chosen truths"),
    pytest.param(lambda s, x: tf.zeros([tf.shape(x)[0], 2]), id="only the size of the input"),
    pytest.param(lambda s, x: tf.ones([2, 2]), id="nothing of the input"),
    pytest.param(lambda s, x: x, id="the input itself"),
    pytest.param(lambda s, x: {"b": tf.nn.relu(x), "a": (x, tf.cast(x > 0, tf.int32))}, id="structures"),
])  # fmt: skip
def test_a_traced_layer_equals_keras(equal_to_keras: Check, function: Any) -> None:
    equal_to_keras(_model(function), _X, batched=False, traced=True)


@pytest.mark.parametrize("function", [
    pytest.param(lambda s, x: tf.abs(tf.signal.rfft(x)), id="magnitude"),
    pytest.param(lambda s, x: tf.math.real(tf.signal.rfft(x)) * tf.math.imag(tf.signal.rfft(x)), id="parts"),
    pytest.param(lambda s, x: tf.math.angle(tf.math.conj(tf.signal.rfft(x + 2.0))), id="angle"),
    pytest.param(lambda s, x: tf.abs(tf.signal.stft(tf.reshape(x, [-1, 24]), 8, 4, 8)), id="spectrogram"),
    pytest.param(lambda s, x: tf.math.real(tf.signal.ifft(tf.signal.fft(tf.complex(x, x * 0)))), id="there and back"),
    pytest.param(lambda s, x: tf.signal.irfft(tf.signal.rfft(x)), id="real there and back"),
    pytest.param(lambda s, x: tf.abs(tf.signal.rfft2d(x, [3, 8])), id="real image"),
    pytest.param(lambda s, x: tf.signal.irfft2d(tf.signal.rfft2d(x)), id="real image there and back"),
    pytest.param(lambda s, x: tf.math.imag(tf.signal.ifft2d(tf.math.conj(tf.signal.fft2d(tf.complex(x, x + 1))))), id="image there and back"),
])  # fmt: skip
def test_complex_numbers_may_exist_inside(equal_to_keras: Check, function: Any) -> None:
    equal_to_keras(_model(function), _X, atol=1e-4, traced=True)


def test_several_inputs_of_several_types(equal_to_keras: Check) -> None:
    model = _model(
        lambda s, xs: tf.where(xs[2][:, None], tf.gather(xs[0], xs[1], batch_dims=1), 0.0),
        keras.Input((6,), name="values"),
        keras.Input((2,), dtype="int32", name="places"),
        keras.Input((), dtype="bool", name="chosen"),
    )
    call = [_X[:, 0], np.array([[0, 5], [1, 1], [3, 2]], np.int32), np.array([True, False, True])]
    equal_to_keras(model, call, traced=True)


def test_open_sizes_and_half_precision(equal_to_keras: Check) -> None:
    inputs = keras.Input((None, 6), dtype="float16")
    model = keras.Model(
        inputs, _OnlyTensorFlow(lambda s, x: tf.nn.softmax(x, axis=1), dtype="float16")(inputs)
    )
    half = _X.astype(np.float16)
    equal_to_keras(model, half, half[:, :2], rtol=2e-3, atol=1e-3, traced=True)


def test_holes_in_kernels_over_open_sizes(equal_to_keras: Check) -> None:
    kernel = np.random.default_rng(1).normal(size=(3, 2, 6, 2)).astype(np.float32)
    layer = _OnlyTensorFlow(lambda _, x: tf.nn.conv2d(x, kernel, 1, "SAME", dilations=(2, 3)))
    inputs = keras.Input((None, None, 6))
    equal_to_keras(keras.Model(inputs, layer(inputs)), _X[:, None].repeat(5, 1))


def test_a_loop_in_bfloat16(equal_to_keras: Check) -> None:
    def function(_: Any, x: Any) -> Any:
        half = tf.cast(x, tf.bfloat16)
        _, half = tf.while_loop(lambda i, v: i < 2, lambda i, v: (i + 1, tf.sin(v) * 2), [0, half])
        return tf.cast(half, tf.float32)

    equal_to_keras(_model(function), _X, rtol=2e-2, atol=2e-2, traced=True)


@pytest.mark.parametrize("draw", [
    pytest.param(lambda shape: tf.random.stateless_uniform(shape, [1, 2], 3, 9, tf.int32), id="integers"),
    pytest.param(lambda shape: tf.random.stateless_gamma(shape, [1, 2], 4.0), id="gamma"),
    pytest.param(lambda shape: tf.random.truncated_normal(shape, 1.0, 2.0), id="truncated"),
])  # fmt: skip
def test_what_traced_code_draws_is_drawn_anew(draw: Callable[..., Any]) -> None:
    model = _model(lambda s, x: tf.cast(draw(tf.shape(x)), tf.float32))
    lowered = lower(model)
    assert any("draws random numbers" in warning for warning in lowered.warnings)
    session = ort.InferenceSession(ir.to_proto(lowered.model).SerializeToString())
    feed = {session.get_inputs()[0].name: np.tile(_X, (20, 1, 1))}
    many = np.concatenate([session.run(None, feed)[0] for _ in range(2)])
    assert np.abs(many[:60] - many[60:]).max() > 1
    expected = np.asarray(draw([120, 4, 6]), np.float64)
    assert abs(many.mean() - expected.mean()) < 0.2
    assert abs(many.std() - expected.std()) < 0.2


@pytest.mark.parametrize("looped", [False, True])
def test_one_of_several_branches_is_chosen(looped: bool, equal_to_keras: Check) -> None:
    def choose(number: Any, x: Any) -> Any:
        return tf.switch_case(number, [lambda: x + 1.0, lambda: x * 2.0, lambda: -x])

    def function(_: Any, x: Any) -> Any:
        number = tf.cast(tf.reduce_sum(x), tf.int32)  # often none of the three: the last one
        if not looped:
            return choose(number, x)
        return tf.while_loop(lambda i, v: i < 4, lambda i, v: (i + 1, choose(i, v)), [tf.constant(0), x])[1]

    calls = [np.full((2, 3), total / 6, np.float32) for total in (-1.5, 0.5, 1.5, 2.5, 9.5)]
    equal_to_keras(_model(function, keras.Input((3,))), *calls, batched=False, traced=True)


def test_a_branch_that_is_never_taken_is_not_written(equal_to_keras: Check, operators: Count) -> None:
    model = _model(lambda s, x: tf.cond(tf.rank(x) != 3, lambda: tf.exp(x), lambda: tf.transpose(x)))
    counted = operators(equal_to_keras(model, _X, batched=False, traced=True))
    assert not {"If", "Exp"} & set(counted)


def test_what_is_drawn_twice_is_drawn_apart() -> None:
    model = _model(lambda s, x: tf.random.normal(tf.shape(x)) - tf.random.normal(tf.shape(x)))
    session = ort.InferenceSession(ir.to_proto(optimize(lower(model).model)).SerializeToString())
    assert session.run(None, {session.get_inputs()[0].name: _X})[0].std() > 0.5


def test_a_generator_is_named() -> None:
    generator = tf.random.Generator.from_seed(1)
    model = _model(lambda s, x: x + generator.uniform(tf.shape(x)))
    with pytest.raises(
        ConversionError, match=r"draws from the random generator .* exported in training mode"
    ):
        lower(model)


@pytest.mark.parametrize("opset", [17, 18, 21, 23])
def test_every_opset(equal_to_keras: Check, opset: int) -> None:
    equal_to_keras(_model(lambda s, x: tf.reduce_max(s.dense(x), axis=1)), _X, opset=opset, traced=True)


def test_an_operator_without_any_form_is_named() -> None:
    model = _model(lambda s, x: tf.linalg.svd(x, compute_uv=False))
    with pytest.raises(
        ConversionError, match=r"\(_OnlyTensorFlow\): no ONNX operator stands for TensorFlow's Svd"
    ):
        lower(model)


def test_an_order_of_axes_that_depends_on_the_inputs_is_refused() -> None:
    with pytest.raises(ConversionError, match="cannot transpose axes in an order that is computed"):
        lower(_model(lambda s, x: tf.transpose(x, _computed(x, 0, 2, 1))))


def test_a_namesake_of_an_operator_of_onnx_is_named() -> None:
    layer = _OnlyTensorFlow(lambda _, texts: tf.strings.bytes_split(texts).to_tensor())
    inputs = keras.Input((), dtype="string")
    with pytest.raises(ConversionError, match="no ONNX operator stands for TensorFlow's StringSplit"):
        lower(keras.Model(inputs, layer(inputs)))


def test_of_operators_that_have_a_purpose_a_way_out_is_told() -> None:
    model = _model(lambda s, x: s.dense(x) + tf.reduce_sum(tf.cast(tf.io.decode_jpeg(""), tf.float32)))
    with pytest.raises(ConversionError, match=r"DecodeJpeg \(decoding images\); choose or save a signature"):
        lower(model)


def test_what_a_handler_does_not_take_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = Lowering.handler

    def refuse(*_: Any) -> None:
        raise ValueError("the sizes must be fully-defined")

    monkeypatch.setattr(
        Lowering, "handler", lambda g, name: refuse if name == "tensorflow.FFT2D" else handler(g, name)
    )
    inputs = keras.Input((4, 4))
    layer = _OnlyTensorFlow(lambda s, x: tf.abs(tf.signal.fft2d(tf.complex(x, x))))
    with pytest.raises(ConversionError, match=r"TensorFlow's FFT2D: the sizes must be fully-defined"):
        lower(keras.Model(inputs, layer(inputs)))


def test_what_tf2onnx_gives_up_halfway_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*_: Any, **__: Any) -> None:
        raise ValueError("no such kernel")

    monkeypatch.setattr("tf2onnx.onnx_opset.nn.conv_convert_inputs", give_up)  # it is a Conv by then
    with pytest.raises(ConversionError, match=r"fails to convert TensorFlow's Conv2D \(ValueError: no such"):
        lower(_model(lambda _, x: tf.nn.conv2d(x[..., None], _KERNEL[0, ..., :1, :], 1, "SAME")))


def test_an_optimizer_of_tf2onnx_that_fails_halfway_is_left_out(
    equal_to_keras: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(identity_optimizer.IdentityOptimizer):
        def _optimize(self, graph: Any) -> Any:
            graph.reset_nodes([])
            raise ValueError("nothing is left of it")

    monkeypatch.setitem(optimizer._optimizers, "failing", Failing)
    equal_to_keras(_model(lambda _, x: tf.cumsum(tf.identity(x), axis=1)), _X, traced=True)


def test_a_complex_result_is_refused() -> None:
    inputs = keras.Input((8,))
    layer = _OnlyTensorFlow(lambda s, x: tf.signal.rfft(x))
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises(ConversionError, match="its result is complex"):
        lower(model)


def test_complex_numbers_between_layers_are_traced_with_those_who_take_them(equal_to_keras: Check) -> None:
    inputs = keras.Input((2, 8))
    spectrum = _OnlyTensorFlow(lambda s, x: tf.transpose(tf.signal.rfft(x - 1.0), [0, 2, 1])[:, 1:])(inputs)
    turned = _OnlyTensorFlow(lambda s, x: tf.concat([x, x + x], -1))(spectrum)
    outputs = _OnlyTensorFlow(lambda s, x: tf.math.angle(x) + tf.abs(x))(turned)
    x = np.random.default_rng(3).normal(size=(3, 2, 8)).astype("float32")
    equal_to_keras(keras.Model(inputs, keras.layers.Dense(2)(outputs)), x, traced=True)


def test_a_list_that_a_loop_of_unknown_length_fills_is_refused() -> None:
    class Fills(keras.Layer):
        def call(self, x: Any) -> Any:
            kept = [x[:, 0]]
            for step in range(1, ops.shape(x)[1]):
                kept.append(x[:, step] * 2.0)  # noqa: PERF401  as authors write it
            return ops.concatenate(kept, axis=-1)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    inputs = keras.Input((None, 1))
    told = r"layer 'fills' .* perhaps in a Python list, and used after it; collect with keras\.ops\.scan"
    with pytest.raises(ConversionError, match=told):
        lower(keras.Model(inputs, Fills(name="fills")(inputs)))


def test_two_conversions_of_a_traced_model_are_identical() -> None:
    model = _model(
        lambda s, x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, s.dense(v)), [0, x])[1]
    )
    first, second = (ir.to_proto(lower(model).model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_traced_nodes_carry_the_name_of_their_layer() -> None:
    model = _model(lambda s, x: tf.nn.relu(x) * 3)
    names = {node.metadata_props["kerve.layer"] for node in lower(model).model.graph}
    assert names == {model.layers[1].name}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("function", [
    pytest.param(lambda s, x: tf.math.atan(x), id="arctangent"),
    pytest.param(lambda s, x: tf.nn.depthwise_conv2d(x[..., None], tf.ones((2, 2, 1, 2), x.dtype), [1] * 4, "VALID"), id="convolution"),
])  # fmt: skip
def test_what_is_traced_computes_in_a_type_that_has_a_kernel(
    equal_to_keras: Check, function: Callable[..., Any], dtype: str
) -> None:
    inputs = keras.Input((4, 6))
    hidden = keras.layers.Activation("linear", dtype=dtype)(inputs)
    outputs = _OnlyTensorFlow(function, dtype=dtype)(hidden)
    model = keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(outputs))
    tolerance = 1e-4 if dtype == "float64" else 4e-2
    equal_to_keras(model, _X, traced=True, rtol=tolerance, atol=tolerance)


_BOXES = np.array(
    [[0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], [-0.2, 0.3, 1.2, 0.5], [0.9, 0.9, 0.1, 0.1]], "float32"
)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(4, 6), (1, 3)], ids=str)
def test_boxes_are_cropped_and_resized(
    equal_to_keras: Check, single: Callable[..., keras.Model], method: str, size: tuple[int, int]
) -> None:
    class Crop(keras.Layer):
        def call(self, images: Any) -> Any:
            count = tf.shape(images)[0]
            boxes, which = tf.tile(_BOXES, [count, 1]), tf.repeat(tf.range(count), len(_BOXES))
            return tf.image.crop_and_resize(images, boxes, which, size, method, extrapolation_value=-1.0)

    images = np.random.default_rng(3).normal(size=(3, 5, 7, 2)).astype("float32")
    equal_to_keras(single(Crop(), (5, 7, 2)), images, batched=False)


@pytest.mark.parametrize("places", [{"half_pixel_centers": True}, {"align_corners": True}, {}], ids=str)
@pytest.mark.parametrize("method", ["Bilinear", "NearestNeighbor", "Bicubic"])
def test_images_are_resized_in_every_way_that_tensorflow_knew(
    equal_to_keras: Check, method: str, places: dict[str, bool]
) -> None:
    def resized(images: Any, *size: int) -> Any:
        return getattr(tf.raw_ops, f"Resize{method}")(images=images, size=size, **places)

    def function(_: Any, images: Any) -> Any:
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        parts = [resized(images, *size) for size in ((9, 9), (3, 17), (2 * height, 3 * width), (1, 1))]
        return [tf.cast(part, tf.float32) for part in parts]

    images = np.random.default_rng(3).normal(size=(3, 5, 7, 2)).astype("float32")
    for shape in ((5, 7, 2), (None, None, 2)):
        inputs = keras.Input(shape)
        equal_to_keras(keras.Model(inputs, _OnlyTensorFlow(function)(inputs)), images, traced=True)


def test_whole_numbers_are_written_and_read(equal_to_keras: Check) -> None:
    class Written(keras.Layer):
        def call(self, x: Any) -> Any:
            return tf.strings.to_number(tf.strings.as_string(x))

    inputs = keras.Input((3,), dtype="int32")
    equal_to_keras(keras.Model(inputs, Written()(inputs)), np.array([[0, -7, 123456]], "int32"))
