"""Digits that kernels of ONNX Runtime lose, and that a user would miss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from keras import layers, ops

from kerve.compiler.lowering import lower
from kerve.compiler.passes import optimize

_X = np.array([[-100.0, -80.0, -20.0, -17.0, -12.5, -3.0, 0.0, 5.0]], np.float32)


def _answer(model: ir.Model) -> Any:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: _X})


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.log(ops.sigmoid(x)),
        lambda x: ops.log(layers.Activation("sigmoid")(x) + 1e-7),
        lambda x: ops.log(ops.maximum(ops.reshape(ops.sigmoid(x), (-1, 2, 4)), 1e-9)),
    ],
)
def test_a_logarithm_of_a_small_probability_is_keras_s(function: Callable[[Any], Any]) -> None:
    x = keras.Input((8,))
    model = keras.Model(x, function(x))
    (got,) = _answer(optimize(lower(model).model))
    np.testing.assert_allclose(got, np.asarray(model(_X)), rtol=1e-5)


def test_a_probability_that_is_given_too_stays_a_sigmoid() -> None:
    x = keras.Input((8,))
    probability = ops.sigmoid(x)
    model = optimize(lower(keras.Model(x, [probability, ops.log(probability)])).model)
    given = model.graph.outputs[0].producer()
    assert given is not None
    assert given.op_type == "Sigmoid"
    np.testing.assert_allclose(_answer(model)[1], np.asarray(ops.log(ops.sigmoid(_X))), rtol=1e-5)


def test_others_stay_as_they_are() -> None:
    x = keras.Input((8,))
    model = optimize(lower(keras.Model(x, ops.silu(x) + ops.log(ops.exp(x) + 1.0))).model)
    assert not any(node.op_type == "Reciprocal" for node in model.graph)
