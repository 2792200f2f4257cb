"""A defect of ours is told as one, and costs no more than the operation that it concerns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any

import keras
import onnx_ir as ir
import pytest
import tensorflow as tf
from keras import layers, ops

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import HANDLERS, interception, lower

Count = Callable[[ir.Model], Counter[str]]


#: As if it were in our package, by which it is known.
_BROKEN = FunctionType(
    (lambda *_, **__: dict[str, int]()["gone"]).__code__,
    {"__name__": "kerve.compiler.lowering.layers.broken"},
)


def test_a_defect_is_told_and_the_rest_is_lowered(monkeypatch: pytest.MonkeyPatch, operators: Count) -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(layers.Conv2D(4, 3)(inputs))))
    monkeypatch.setitem(HANDLERS._table, "layers.Conv2D", _BROKEN)
    lowered = lower(model)
    (warning,) = [each for each in lowered.warnings if "defect of kerve" in each]
    assert "layer 'conv2d" in warning
    assert "KeyError" in warning
    assert operators(lowered.model)["LayerNormalization"] == 1


def test_a_defect_that_meets_an_authors_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(layers.Layer):
        def call(self, x: Any) -> Any:
            return x / ops.cast(ops.shape(x)[0], x.dtype)

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Counted()(inputs))
    monkeypatch.setattr(interception, "_size", _BROKEN)
    (warning,) = lower(model).warnings
    assert "layer 'counted" in warning
    assert warning.endswith("defect of kerve, please report the model")


def test_what_fails_in_an_authors_loop_is_no_defect() -> None:
    def step(_: Any, value: Any) -> Any:
        if not isinstance(value, tf.Tensor):
            raise TypeError("give me a tensor of TensorFlow")
        return value * 2.0

    class Looped(layers.Layer):
        def call(self, x: Any) -> Any:
            return ops.fori_loop(0, 3, step, x)

    inputs = keras.Input((3,))
    (warning,) = lower(keras.Model(inputs, Looped()(inputs))).warnings
    assert warning.endswith("TensorFlow's trace of it (TypeError: give me a tensor of TensorFlow)")


def test_what_fails_in_tensorflow_as_well_is_to_be_seen_there() -> None:
    class Broken(layers.Layer):
        def call(self, x: Any) -> Any:
            if isinstance(x, keras.KerasTensor):
                return keras.KerasTensor(x.shape, x.dtype)
            raise ValueError("found shape=(None, 5)")

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, x.dtype)

    inputs = keras.Input((3,))
    told = r"ValueError: found shape=\(None, 5\); .*check that model.predict\(\) works"
    with pytest.raises(ConversionError, match=told):
        lower(keras.Model(inputs, Broken(name="broken")(inputs)))


def test_a_tensor_that_a_trace_captures_is_to_be_passed_or_fixed() -> None:
    class Kept(layers.Layer):
        def call(self, x: Any) -> Any:
            self.kept = x
            return x

    class Traced(layers.Layer):
        def call(self, x: Any) -> Any:
            if isinstance(x, keras.KerasTensor):
                raise TypeError("give me a tensor of TensorFlow")
            return x + tf.math.lgamma(kept.kept)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, x.dtype)

    kept, inputs = Kept(), keras.Input((3,))
    with pytest.raises(ConversionError, match=r"pass it as one .*, or make it a constant"):
        lower(keras.Model(inputs, Traced()(kept(inputs))))


def test_a_python_condition_on_a_tensor_is_to_be_an_operation() -> None:
    def chosen(row: Any) -> Any:
        return row if tf.reduce_any(row > 0) else -row

    class Choosing(layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.map_fn(tf.autograph.experimental.do_not_convert(chosen), x)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, x.dtype)

    inputs = keras.Input((3,))
    with pytest.raises(ConversionError, match=r"choose with keras\.ops\.where or keras\.ops\.cond"):
        lower(keras.Model(inputs, Choosing()(inputs)))
