"""What is made of singular values, and the QR decomposition, equal Keras for matrices of any known size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import ops

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]


def _answers(x: Any) -> list[Any]:
    linalg = ops.linalg
    return [
        linalg.svd(x, compute_uv=False),
        linalg.pinv(x),
        linalg.matrix_rank(x),
        *linalg.qr(x),
        *linalg.qr(x, mode="complete"),
        *(linalg.norm(x, ord=order, axis=(1, 2)) for order in (2, -2, "nuc")),
        linalg.norm(x, ord=2, axis=(1, 2), keepdims=True),
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (4, 1), (4, 4), (5, 3), (3, 6), (9, 17)], ids=str)
def test_matrices_of_any_known_size(equal_to_keras: Check, size: tuple[int, int]) -> None:
    inputs = keras.Input(size)
    x = np.random.default_rng(3).normal(size=(3, *size)).astype("float32")
    equal_to_keras(keras.Model(inputs, _answers(inputs)), x, rtol=1e-3, traced=False)


def test_a_matrix_without_full_rank(equal_to_keras: Check) -> None:
    inputs = keras.Input((5, 4), dtype="float64")
    random = np.random.default_rng(3)
    x = random.normal(size=(3, 5, 2)) @ random.normal(size=(3, 2, 4))
    equal_to_keras(keras.Model(inputs, [ops.linalg.pinv(inputs), ops.linalg.matrix_rank(inputs)]), x)


@pytest.mark.parametrize("size", [(5, 3), (3, 5)], ids=str)
def test_least_squares(equal_to_keras: Check, size: tuple[int, int]) -> None:
    a, b = keras.Input(batch_shape=size), keras.Input(batch_shape=(size[0], 2))
    random = np.random.default_rng(3)
    call = [random.normal(size=shape).astype("float32") for shape in (size, (size[0], 2))]
    outputs = [ops.linalg.lstsq(a, b), ops.linalg.lstsq(a, b[:, 0], rcond=0.1)]
    equal_to_keras(keras.Model([a, b], outputs), call, batched=False, traced=False)


@pytest.mark.parametrize(("rows", "function", "reason"), [
    (3, lambda x: ops.linalg.svd(x)[0], "the signs of singular vectors"),
    (None, lambda x: ops.linalg.pinv(x), "matrices of dynamic size"),
])  # fmt: skip
def test_what_is_not_decided_is_refused(rows: int | None, function: Any, reason: str) -> None:
    inputs = keras.Input((rows, 4))
    with pytest.raises(ConversionError, match=reason):
        lower(keras.Model(inputs, function(inputs)))
