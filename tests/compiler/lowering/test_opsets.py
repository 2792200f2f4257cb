"""One model of many kinds of layers in every operator set from 17 to the newest of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
from keras import layers, ops

Check = Callable[..., ir.Model]

_RNG = np.random.default_rng(2)


class _OnlyTensorFlow(layers.Layer):
    def call(self, x: Any) -> Any:
        if not isinstance(x, tf.Tensor):
            raise TypeError("give me a tensor of TensorFlow")
        return tf.math.cumsum(tf.nn.softplus(x), axis=1)


def _images(x: Any) -> Any:
    x = layers.Conv2D(6, 3, padding="same", activation="gelu")(x)
    x = layers.GroupNormalization(2)(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, activation="hard_swish")(layers.MaxPooling2D(2)(x))
    return ops.pad(layers.LayerNormalization()(x), [[0, 0], [1, 1], [0, 0], [0, 0]], mode="reflect")


def _sequences(x: Any) -> Any:
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(layers.LSTM(4, return_sequences=True)(x))
    x = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    x = layers.RMSNormalization()(x + ops.cumsum(x, axis=1))
    values, places = ops.top_k(ops.sort(x, axis=-1), 3)
    return ops.std(values, axis=1), ops.argmax(x, axis=-1), ops.take_along_axis(x, places, axis=-1)


@pytest.mark.parametrize("opset", range(17, 29))
def test_every_operator_set_equals_keras(equal_to_keras: Check, opset: int) -> None:
    image, sequence = keras.Input((6, 5, 3), name="image"), keras.Input((None, 6), name="sequence")
    model = keras.Model(
        [image, sequence], [_images(image), *_sequences(sequence), _OnlyTensorFlow()(sequence)]
    )
    arrays = [_RNG.normal(size=shape).astype(np.float32) for shape in ((3, 6, 5, 3), (3, 4, 6))]
    equal_to_keras(model, arrays, opset=opset, traced=True)
