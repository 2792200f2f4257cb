"""Functional models at random equal Keras: tables of what may be put on a tensor, by its rank.

What decides at a threshold (rounding, sorting, comparing) is left out, since rounding decides it.
`KERVE_RANDOM_MODELS=1000 pytest FILE` tries so many models, others each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import tensorflow as tf
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from keras import layers, ops
from numpy.typing import NDArray

Check = Callable[..., ir.Model]

#: Chooses one of its arguments.
Choice = Callable[..., Any]
Step = Callable[[Choice, Any], Any]

_VOCABULARY = 5

_ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_swish", "leaky_relu", "linear", "log_sigmoid",
    "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "squareplus",
    "tanh", "tanh_shrink",
)  # fmt: skip

_MORE = os.environ.get("KERVE_RANDOM_MODELS")

#: What rounding may change, in parts of the largest answer.
_CLOSE = {"float32": 5e-5, "float64": 1e-5, "mixed_float16": 2e-2}


def test_any_model_equals_keras(equal_to_keras: Check) -> None:
    @settings(
        max_examples=int(_MORE or 12),
        derandomize=_MORE is None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],  # to explain, every line of TensorFlow's would be traced
        suppress_health_check=list(HealthCheck),
    )
    @given(sample=st.data())
    def check(sample: st.DataObject) -> None:
        def choice(*options: Any) -> Any:
            return options[sample.draw(st.integers(0, len(options) - 1))]

        policy = choice("float32", "float32", "float32", "float64", "mixed_float16")
        keras.config.set_dtype_policy(policy)
        model = _build(choice)
        note(f"{policy} {model.to_json()}")
        for length in (7, 4):
            call = _data(model, 3, length)
            answers = _answers(model, call)
            close = _CLOSE[policy] * max(1.0, *(float(np.max(np.abs(answer))) for answer in answers))
            equal_to_keras(model, call, opset=choice(17, 21, 24), rtol=10 * _CLOSE[policy], atol=close)

    check()


def _answers(model: keras.Model, call: Any) -> list[Any]:
    """Call the model; one that Keras itself cannot run, or that leaves its type's range, is none."""
    try:
        answers = [np.asarray(leaf, np.float64) for leaf in keras.tree.flatten(model(call, training=False))]
    except (ValueError, tf.errors.InvalidArgumentError):
        assume(False)
    assume(all(np.isfinite(answer).all() and answer.size for answer in answers))
    return answers


def _build(c: Choice) -> keras.Model:
    """Return a model of a few steps, in which tensors fork and join, with random weights."""
    inputs, pool = [], []
    for index in range(c(1, 1, 2, 3)):
        entry, tensor = c(*_INPUTS)(c, c(f"x{index}", f"in {index}", None))
        inputs.append(entry)
        pool.append(tensor)
    for _ in range(c(2, 3, 4, 6)):
        pool.append(_step(c, pool))
    results = [pool[-1], *(x for x in pool[-3:-1] if c(True, False))]
    outputs = c(
        lambda: results[0] if len(results) == 1 else results,
        lambda: {f"y{index}": x for index, x in enumerate(results)},
        lambda: {"first": results[0], "all": (results, {"last": results[-1]})},
    )()
    model = keras.Model(inputs if len(inputs) > 1 or c(True, False) else inputs[0], outputs)
    if c(False, False, True):
        model = _nested(model)
    _randomize(model)
    return model


def _data(model: keras.Model, rows: int, length: int) -> Any:
    """Return what the model may be called with, its open axes of that length; some steps are zero."""
    generator = np.random.default_rng(rows)

    def array(entry: keras.KerasTensor) -> NDArray[Any]:
        shape = [rows, *(length if size is None else size for size in entry.shape[1:])]
        if "float" not in entry.dtype:
            return generator.integers(0, _VOCABULARY, shape).astype(entry.dtype)
        kept = generator.random(shape[:2]) < 0.8 if len(shape) == 3 else np.ones(shape[:2])
        return (generator.normal(size=shape) * kept.reshape(*shape[:2], *[1] * (len(shape) - 2))).astype(
            entry.dtype
        )

    return keras.tree.map_structure(array, model._inputs_struct)


def _step(c: Choice, pool: list[Any]) -> Any:
    """Return a new tensor made of the last ones; the last one where Keras takes them for nothing."""
    x = pool[-1 - c(*range(min(3, len(pool))))]
    fitting = [other for other in pool if other.shape[1:] == x.shape[1:] and other.dtype == x.dtype]
    table: Any = {"any": _ANY, "ranked": _BY_RANK.get(len(x.shape), _ANY), "merged": _MERGED}
    kind = c("any", "ranked", "ranked", "merged")
    try:
        step = c(*table[kind])
        made = step([x, c(*fitting)]) if kind == "merged" else step(c, x)
    except ValueError:  # how Keras says that it is not for tensors of such a shape
        return x
    small = all(size is None or size <= 40 for size in made.shape[1:])
    return made if 2 <= len(made.shape) <= 5 and small else x


def _nested(model: keras.Model) -> keras.Model:
    outer = keras.tree.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), model._inputs_struct)
    return keras.Model(outer, model(outer))


def _randomize(model: keras.Model) -> None:
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(generator.uniform(0.1, 0.6, weight.shape) * _signs(generator, weight))


def _signs(generator: np.random.Generator, weight: Any) -> NDArray[Any]:
    positive = np.ones(weight.shape)
    return positive if "variance" in weight.path else generator.choice([-1.0, 1.0], weight.shape)


# -- where models begin: what is put in, and the first tensor of floats ------------------------------------


def _of_floats(*shape: int | None) -> Step:
    def entry(_: Choice, name: str | None) -> Any:
        x = keras.Input(shape, name=name)
        return x, x

    return entry


def _masked(_: Choice, name: str | None) -> Any:
    x = keras.Input((None, 3), name=name)
    return x, layers.Masking()(x)


def _embedded(c: Choice, name: str | None) -> Any:
    x = keras.Input(c((None,), (6,)), dtype=c("int32", "int64", "uint8", "int16", "float32"), name=name)
    return x, layers.Embedding(_VOCABULARY, 4, mask_zero=c(True, False))(ops.abs(ops.cast(x, "int32")) % 5)


def _pixels(_: Choice, name: str | None) -> Any:
    x = keras.Input((8, 6, 3), dtype="uint8", name=name)
    return x, layers.Rescaling(0.2, -0.5)(x)


_INPUTS: tuple[Any, ...] = (
    _embedded, _masked, _of_floats(4), _of_floats(5, 3), _of_floats(6, 5, 2), _of_floats(None, 3),
    _of_floats(None, None, 3), _pixels,
)  # fmt: skip

# -- what takes a tensor of any rank -----------------------------------------------------------------------

_ANY: tuple[Step, ...] = (
    lambda c, x: layers.Activation(c(*_ACTIVATIONS))(x),
    lambda c, x: layers.ActivityRegularization(0.1)(x),
    lambda c, x: layers.BatchNormalization(axis=c(-1, 1), center=c(True, False), scale=c(True, False))(x),
    lambda c, x: layers.Dense(c(1, 3, 4), c(None, *_ACTIVATIONS), use_bias=c(True, False))(x),
    lambda c, x: layers.Dense(3, dtype=c("mixed_float16", "float64", "float32"))(x),
    lambda c, x: layers.Dropout(0.3)(x),
    lambda c, x: layers.ELU(c(1.0, 0.3))(x),
    lambda c, x: layers.GaussianNoise(0.2)(x),
    lambda c, x: layers.GroupNormalization(c(1, -1), axis=c(-1, 1))(x),
    lambda c, x: layers.LayerNormalization(axis=c(-1, 1), center=c(True, False), scale=c(True, False))(x),
    lambda c, x: layers.PReLU(shared_axes=c(None, [1]))(x),
    lambda c, x: layers.RMSNormalization(axis=c(-1, 1))(x),
    lambda c, x: layers.ReLU(c(None, 2.0), c(0.0, 0.1), c(0.0, 0.2))(x),
    lambda c, x: layers.Rescaling(0.5, 1.0)(x),
    lambda c, x: layers.Softmax(axis=c(-1, 1))(x),
    lambda c, x: layers.SpectralNormalization(layers.Dense(3))(x),
    lambda c, x: layers.UnitNormalization()(x),
    lambda c, x: ops.clip(x, -1, 1),
    lambda c, x: ops.concatenate([x, -x], axis=-1),
    lambda c, x: ops.cumsum(x, axis=c(-1, 1)),
    lambda c, x: ops.flip(x, axis=c(-1, 1)),
    lambda c, x: ops.logaddexp(x, 0.5) - 1,
    lambda c, x: ops.roll(x, 1, axis=c(-1, 1)),
    lambda c, x: x * ops.sigmoid(ops.mean(x, axis=c(-1, 1), keepdims=True)),
)

_MERGED = (
    layers.Add(), layers.Average(), layers.Concatenate(), layers.Concatenate(axis=1), layers.Maximum(),
    layers.Minimum(), layers.Multiply(), layers.Subtract(), layers.Dot(axes=-1), layers.Dot(axes=1),
)  # fmt: skip

# -- what takes [batch, features] --------------------------------------------------------------------------

_ON_VECTORS: tuple[Step, ...] = (
    lambda c, x: layers.RepeatVector(3)(x),
    lambda c, x: layers.Reshape(c((-1, 1), (1, -1), (1, 1, -1)))(x),
    lambda c, x: ops.einsum("bi,bj->bij", x, x),
    lambda c, x: ops.stack([x, x * 2], axis=c(1, 2)),
    lambda c, x: x[:, ::2],
    lambda c, x: x[..., None, -2:],
)

# -- what takes [batch, time, features] --------------------------------------------------------------------


def _recurrent(c: Choice, x: Any) -> Any:
    kind = c(layers.LSTM, layers.GRU, layers.SimpleRNN)
    options: dict[str, Any] = {"return_sequences": c(True, False), "activation": c("tanh", "tanh", "relu")}
    if kind is layers.GRU:
        options["reset_after"] = c(True, False)
    if c(True, False):
        merge_mode = c("sum", "mul", "concat", "ave")
        return layers.Bidirectional(kind(c(1, 3), **options), merge_mode=merge_mode)(x)
    return kind(c(1, 3), go_backwards=c(False, True), **options)(x)


def _cells(c: Choice, x: Any) -> Any:
    cells = [layers.LSTMCell(3), c(layers.GRUCell, layers.SimpleRNNCell)(2)]
    return layers.RNN(cells, return_sequences=c(True, False))(x)


def _many_heads(c: Choice, x: Any) -> Any:
    other = c(x, ops.flip(x, axis=1))
    options = {"use_bias": c(True, False), "dropout": c(0.0, 0.2)}
    layer = c(
        layers.MultiHeadAttention(c(1, 2), 3, value_dim=c(None, 2), **options),
        layers.GroupQueryAttention(4, 4, 2, **options),
    )
    return layer(x, other, use_causal_mask=c(False, True))


def _inner(c: Choice, x: Any) -> Any:
    entry = keras.Input((None, x.shape[-1]), dtype=x.dtype)
    sequence = layers.GRU(3, return_sequences=True)(layers.Masking()(entry))
    inner = keras.Model({"entry": entry}, {"deep": [sequence, layers.Dense(3)(sequence)]})
    first, second = inner({"entry": x})["deep"]
    return first + second


def _each_step(c: Choice, x: Any) -> Any:
    inner = keras.Sequential([layers.Dense(3, c(*_ACTIVATIONS)), layers.BatchNormalization()])
    return layers.TimeDistributed(inner)(x)


_ON_SEQUENCES: tuple[Step, ...] = (
    _cells,
    _each_step,
    _inner,
    _many_heads,
    _recurrent,
    _recurrent,
    lambda c, x: c(layers.Attention, layers.AdditiveAttention)(use_scale=c(True, False))([x, x]),
    lambda c, x: layers.Attention(score_mode=c("dot", "concat"))([x, x], use_causal_mask=True),
    lambda c, x: layers.AveragePooling1D(2, c(1, 2), c("same", "valid"))(x),
    lambda c, x: layers.Conv1D(3, 2, padding=c("same", "causal", "valid"), dilation_rate=c(1, 2))(x),
    lambda c, x: layers.Conv1DTranspose(3, c(2, 3), strides=c(1, 2), padding=c("same", "valid"))(x),
    lambda c, x: layers.DepthwiseConv1D(2, padding="same", depth_multiplier=c(1, 2))(x),
    lambda c, x: layers.Flatten()(x),
    lambda c, x: c(layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)(keepdims=c(True, False))(x),
    lambda c, x: layers.MaxPooling1D(2, c(1, 2), c("same", "valid"))(x),
    lambda c, x: layers.Permute((2, 1))(x),
    lambda c, x: layers.SeparableConv1D(3, 2, padding="same")(x),
    lambda c, x: layers.SpatialDropout1D(0.2)(x),
    lambda c, x: layers.UpSampling1D(2)(x),
    lambda c, x: layers.ZeroPadding1D((1, 2))(x),
    lambda c, x: ops.matmul(x, ops.transpose(x, (0, 2, 1))) @ x,
    lambda c, x: c(ops.max, ops.mean, ops.std)(x, axis=1),
    lambda c, x: x * ops.softmax(ops.sum(x, axis=-1, keepdims=True), axis=1),
    lambda c, x: x[:, c(-1, 0)],
    lambda c, x: x[:, ::-1, None],
)

# -- what takes [batch, height, width, channels] -----------------------------------------------------------


def _convolution(c: Choice, x: Any) -> Any:
    options = {"strides": c(1, 1, 2), "padding": c("same", "valid"), "activation": c(None, *_ACTIVATIONS)}
    if c(False, True):
        return layers.Conv2D(2 * x.shape[-1], c(1, 2, 3), groups=c(1, x.shape[-1]), **options)(x)
    return layers.Conv2D(3, c(1, 2), dilation_rate=2, padding="same")(x)


def _channels_first(c: Choice, x: Any) -> Any:
    layer = c(
        layers.Conv2D(3, 2, padding="same", data_format="channels_first"),
        layers.AveragePooling2D(2, 1, data_format="channels_first"),
        layers.BatchNormalization(axis=1),
    )
    return layers.Permute((2, 3, 1))(layer(layers.Permute((3, 1, 2))(x)))


_ON_IMAGES: tuple[Step, ...] = (
    _channels_first,
    _convolution,
    _convolution,
    lambda c, x: layers.AdaptiveAveragePooling2D((2, 3))(x),
    lambda c, x: c(layers.AveragePooling2D, layers.MaxPooling2D)(c(2, 3), c(1, 2), c("same", "valid"))(x),
    lambda c, x: layers.Conv2DTranspose(3, c(2, 3), strides=c(1, 2), padding=c("same", "valid"))(x),
    lambda c, x: layers.Cropping2D(((1, 0), (0, 1)))(x),
    lambda c, x: layers.DepthwiseConv2D(2, padding=c("same", "valid"), depth_multiplier=c(1, 2))(x),
    lambda c, x: layers.Flatten()(x),
    lambda c, x: c(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)(keepdims=c(True, False))(x),
    lambda c, x: layers.MultiHeadAttention(1, 2, attention_axes=(1, 2))(x, x),
    lambda c, x: layers.Permute((3, 1, 2))(x),
    lambda c, x: layers.RandomFlip()(x),
    lambda c, x: layers.Reshape((-1, x.shape[-1]))(x),
    lambda c, x: layers.Resizing(5, 4, interpolation=c("nearest", "bilinear"))(x),
    lambda c, x: layers.SeparableConv2D(3, 2, padding="same")(x),
    lambda c, x: layers.TimeDistributed(layers.Conv1D(3, 2, padding="same"))(x),
    lambda c, x: layers.TimeDistributed(layers.Bidirectional(layers.GRU(2)))(x),
    lambda c, x: layers.UpSampling2D((2, 1), interpolation=c("nearest", "bilinear"))(x),
    lambda c, x: layers.ZeroPadding2D(((1, 0), (0, 2)))(x),
    lambda c, x: c(ops.max, ops.mean)(x, axis=c(1, (1, 2))),
    lambda c, x: x * layers.Dense(x.shape[-1], "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x)),
    lambda c, x: x[:, ::-1, c(0, -1)],
)

_BY_RANK: Mapping[int, tuple[Step, ...]] = {2: _ON_VECTORS, 3: _ON_SEQUENCES, 4: _ON_IMAGES}
