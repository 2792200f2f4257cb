"""Subclassed models, of whose calls Keras remembers shapes alone: which inputs are integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers, ops

from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]

_IDS = np.random.default_rng(0).integers(0, 9, (3, 5)).astype(np.int32)


class _Calling(keras.Model):
    def __init__(self, of: Callable[[Any, Any], Any], **settings: Any) -> None:
        super().__init__()
        self.embedding = layers.Embedding(9, 4, **settings)
        self.dense = layers.Dense(4)
        self.recurrent = layers.LSTM(3)
        self.of = of

    def call(self, x: Any) -> Any:
        return self.of(self, x)


def _averaged(model: Any, x: Any) -> Any:
    known = ops.cast(ops.not_equal(x, 0), "float32")[..., None]
    return ops.sum(model.embedding(x) * known, axis=1)


def _rolled(model: Any, x: Any) -> Any:
    for _ in range(50):
        x = ops.concatenate([x[:, 1:], x[:, :1]], axis=1)
    return model.embedding(x)


_IDENTIFIERS: dict[str, Callable[[Any, Any], Any]] = {
    "masked": lambda model, x: model.recurrent(model.embedding(x)),
    "compared": _averaged,
    "moved": lambda model, x: model.embedding(ops.concatenate([x[:, :1], ops.clip(x, 1, 7)], axis=1)),
    "rolled": _rolled,
    "codes": lambda model, x: ops.one_hot(x, 9),
    "bits": lambda model, x: model.embedding(ops.bitwise_and(x, 3)),
}


@pytest.mark.parametrize("of", _IDENTIFIERS.values(), ids=_IDENTIFIERS)
def test_what_only_looks_something_up_is_integers(equal_to_keras: Check, of: Callable[..., Any]) -> None:
    model = _Calling(of, mask_zero=True)
    model(_IDS)
    lowered = equal_to_keras(model, _IDS)
    assert [value.dtype for value in lowered.graph.inputs] == [ir.DataType.INT32]


@pytest.mark.parametrize(
    "of",
    [
        lambda model, x: model.dense(x),
        lambda model, x: model.embedding(x[:, 0]) + model.dense(x[:, 1:]),
        lambda model, x: ops.cast(x > 0.5, "float32"),
    ],
    ids=["product", "both", "threshold"],
)
def test_what_is_computed_with_is_floats(of: Callable[..., Any]) -> None:
    model = _Calling(of)
    model(np.abs(_IDS).astype(np.float32))
    assert [value.dtype for value in lower(model).model.graph.inputs] == [ir.DataType.FLOAT]


def test_each_input_is_decided_by_itself() -> None:
    model = _Calling(lambda model, x: model.embedding(x["ids"])[:, 0] + model.dense(x["features"]))
    model({"ids": _IDS, "features": np.ones((3, 2), np.float32)})
    types = {value.name: value.dtype for value in lower(model).model.graph.inputs}
    assert types == {"ids": ir.DataType.INT32, "features": ir.DataType.FLOAT}
