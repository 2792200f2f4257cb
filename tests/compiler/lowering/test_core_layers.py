"""Dense, Activation, Dropout and what else stands in keras.layers.core."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import keras
import numpy as np
import onnx_ir as ir

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]


def test_a_dense_layer_is_a_matmul_and_an_add(equal_to_keras: Check, operators: Count) -> None:
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="relu")])
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    graph = equal_to_keras(model, x, predict=True)
    assert operators(graph) == {"MatMul": 1, "Add": 1, "Relu": 1}
