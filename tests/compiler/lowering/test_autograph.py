"""Python's own control flow over tensors, in models that would run it under AutoGraph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
from keras import ops

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)


class _Author(keras.Model):
    """A model with layers that branches and loops may call."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(6, activation="gelu")
        self.norm = keras.layers.LayerNormalization()

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)
        self.norm.build(input_shape)


class _If(_Author):
    def call(self, x: Any) -> Any:
        if tf.reduce_sum(x) > 0:
            y = self.dense(x)
        else:
            y = self.norm(x) - 1
        return y


class _Returns(_Author):
    def call(self, x: Any) -> Any:
        if ops.sum(x) > 0:
            return self.dense(x)
        return x * 2


class _Expression(_Author):
    def call(self, x: Any) -> Any:
        return x + 1.0 if ops.sum(x) > 0 and not ops.max(x) > 100 else x - 1.0


class _Helper(_Author):
    @tf.function  # type: ignore[untyped-decorator]  # no type information
    def helper(self, x: Any) -> Any:
        if tf.reduce_sum(x) > 0:
            return x * 3.0
        return x - 3.0

    def call(self, x: Any) -> Any:
        return self.helper(self.dense(x))


class _ForRange(_Author):
    def call(self, x: Any) -> Any:
        y = tf.zeros_like(x)
        for step in tf.range(tf.shape(x)[0]):
            y = y + self.dense(x) * tf.cast(step, tf.float32)
        return y


class _ForRows(_Author):
    def call(self, x: Any) -> Any:
        y = ops.zeros_like(x[0])
        for row in x:
            y = y * 0.5 + row
        return y


class _While(_Author):
    def call(self, x: Any) -> Any:
        while tf.reduce_max(tf.abs(x)) > 0.1:
            x = x * 0.5
        return x


class _WhileCounting(_Author):
    def call(self, x: Any) -> Any:
        count = 0
        while count < 3 and ops.max(x) < 10.0:
            x = x + self.dense(x)
            count += 1
        return x


class _Nested(_Author):
    def call(self, x: Any) -> Any:
        total = ops.sum(x)
        for _ in range(tf.shape(x)[0]):
            if total > 0.0:
                x = x + self.dense(x)
            else:
                x = x - 1.0
            total = ops.sum(x)
        return x


class _Break(_Author):
    def call(self, x: Any) -> Any:
        for _ in tf.range(tf.shape(x)[0]):
            x = x * 1.5
            if tf.reduce_max(x) > 5.0:
                break
        return x * float(len(x))


@pytest.mark.parametrize(
    ("author", "operator"),
    [
        pytest.param(_If, "If", id="if"),
        pytest.param(_Returns, "If", id="early return"),
        pytest.param(_Expression, "If", id="conditional expression"),
        pytest.param(_Helper, "If", id="compiled helper"),
        pytest.param(_ForRange, "Loop", id="for over a range"),
        pytest.param(_ForRows, "Loop", id="for over rows"),
        pytest.param(_While, "Loop", id="while"),
        pytest.param(_WhileCounting, "Loop", id="while with a counter"),
        pytest.param(_Nested, "If", id="if in a loop"),
        pytest.param(_Break, "Loop", id="break"),
    ],
)
def test_statements_over_tensors(
    equal_to_keras: Check, operators: Count, author: type, operator: str
) -> None:
    model = author()
    model.build((None, 4, 6))
    graph = equal_to_keras(model, _X, -_X, _X * 0.01, traced=False)
    assert operators(graph)[operator] >= 1
    assert not operators(graph)[
        "Erf"
    ]  # layers inside keep their handlers: Gelu, not TensorFlow's parts of it


def test_code_that_no_way_can_follow_is_refused_by_name() -> None:
    class Author(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * float(np.asarray(x).sum())

    inputs = keras.Input((3,))
    layer = Author(name="numbers")
    layer.compute_output_shape = lambda shape: shape
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises(ConversionError, match=r"layer 'numbers' \(Author\)"):
        lower(model)


def test_an_error_inside_rewritten_code_is_told_as_it_was() -> None:
    class Author(_Author):
        def call(self, x: Any) -> Any:
            if ops.sum(x) > 0:
                return ops.linalg.svd(x)[1]
            return x[:, :, 0]

    model = Author()
    model.build((None, 4, 6))
    with pytest.raises(ConversionError, match=r"^the model: operation SVD"):
        lower(model)
