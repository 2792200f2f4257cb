"""Python's operators inside a layer, which there are those of TensorFlow's tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import ops

Check = Callable[..., ir.Model]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "float16"])
def test_operators_of_numbers_beside_a_tensor_are_tensorflows(equal_to_keras: Check, dtype: str) -> None:
    """Numbers and arrays take the tensor's type, even -1 an unsigned one; `&` is of bits."""
    inputs = keras.Input((4,), dtype=dtype)
    arrays = np.arange(3, 15).reshape(3, 4).astype(dtype)
    equal_to_keras(keras.Model(inputs, _Operators()(inputs)), arrays)


class _Operators(keras.Layer):
    def __init__(self) -> None:
        super().__init__(autocast=False)

    def call(self, x: Any) -> Any:
        answers = [x / 2, 5 / x, x / x, x % 3, 7 % x, x // 2, 9 // x]
        answers += [x + np.arange(4), np.ones(4) * x, x - np.float64(1), x - [1, 2, 3, 3]]
        answers += [
            x < -1,
            np.int64(-1) >= x,
            x > np.float64(4),
            x <= np.arange(6, 10),
            x == [3, 4, 5, 7],
            x != 4,
        ]
        if "int" in keras.backend.standardize_dtype(x.dtype):
            answers += [x & 3, 5 | x, x ^ 6, ~x]
        if not keras.backend.standardize_dtype(x.dtype).startswith("u"):
            answers.append(x**2)
        return answers


def test_what_is_multiplied_by_truths_is_true_or_false(equal_to_keras: Check) -> None:
    truths, numbers = keras.Input((4,), dtype="bool"), keras.Input((4,))
    model = keras.Model([truths, numbers], _Truths()([truths, numbers]))
    rows = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], bool), np.array([[2, 1, 0.5, 0], [1, 1, 1, 1]], np.float32)
    equal_to_keras(model, list(rows))


class _Truths(keras.Layer):
    def __init__(self) -> None:
        super().__init__(autocast=False)

    def call(self, inputs: Any) -> Any:
        truths, numbers = inputs
        logical = [truths & True, truths | (numbers > 0), ~truths, truths ^ truths, truths == True]  # noqa: E712
        logical += [truths == np.float32(2.5), truths != np.arange(4)]
        return [truths * truths, truths * numbers, numbers * truths, truths * 2, *logical]


def test_a_tensor_is_not_none(equal_to_keras: Check) -> None:
    inputs = keras.Input((4,))
    equal_to_keras(keras.Model(inputs, _Compared()(inputs)), np.ones((2, 4), np.float32))


class _Compared(keras.Layer):
    def call(self, x: Any) -> Any:
        return x + 1 if x != None else x  # noqa: E711


def test_a_quotient_of_sizes_leaves_a_tensor_its_type(equal_to_keras: Check) -> None:
    model, rows = _Scaled(), np.ones((3, 5), np.float32)
    model(rows)
    equal_to_keras(model, rows)


class _Scaled(keras.Model):
    def call(self, x: Any) -> Any:
        size = ops.shape(x)[0]
        return x * (1 / size) + x * (size / 2)


@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("int32", "int64"), ("int32", "float16")])
def test_an_average_has_the_type_of_kerass(equal_to_keras: Check, dtypes: tuple[str, str]) -> None:
    inputs = [keras.Input((4,), dtype=dtype) for dtype in dtypes]
    arrays = [np.arange(8).reshape(2, 4).astype(dtype) for dtype in dtypes]
    equal_to_keras(keras.Model(inputs, keras.layers.Average()(inputs)), arrays)
