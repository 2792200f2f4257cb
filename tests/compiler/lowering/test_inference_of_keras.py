"""Where what Keras says of an operation, in a graph or before it computes, is not what it computes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import dtypes, lower
from kerve.compiler.sources import load

Check = Callable[..., Any]

_X = np.random.default_rng(8).uniform(0.5, 2.0, (3, 4))
_ROWS = np.array([[1, 2], [0, 1]], np.int32)


class _Own(keras.Model):
    """A model that calls a function on its input, which Keras never sees as a graph."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function

    def call(self, x: Any) -> Any:
        return self._function(x)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("function", [
    pytest.param(ops.reciprocal, id="reciprocal"),
    pytest.param(ops.normalize, id="normalize"),
    pytest.param(lambda x: ops.normalize(x, order=3), id="normalize by another norm"),
    pytest.param(lambda x: ops.meshgrid(x[:, 0], x[0], indexing="ij"), id="meshgrid"),
    pytest.param(lambda x: ops.psnr(x, ops.flip(x), 2.0), id="psnr"),
    pytest.param(lambda x: ops.geomspace(x[0], x[1], 4), id="geomspace"),
    pytest.param(keras.layers.UnitNormalization(dtype="float16"), id="layer"),
])  # fmt: skip
def test_results_have_the_type_that_is_computed(check_op: Check, function: Any, dtype: str) -> None:
    check_op(function, _X.astype(dtype), sizes=["none"], rtol=3e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("number", [2, 0.5])
@pytest.mark.parametrize(
    "operation", [ops.arctan2, ops.dot, ops.fmod, ops.logaddexp, ops.logaddexp2, ops.outer]
)
def test_a_number_of_python_s_counts_for_the_type_as_it_does_there(
    operation: Any, number: float, dtype: str
) -> None:
    x = keras.Input((4,), dtype=dtype)
    wanted = keras.backend.standardize_dtype(operation(ops.convert_to_tensor(_X, dtype), number).dtype)
    (output,) = lower(keras.Model(x, operation(x, number))).model.graph.outputs
    last = output.producer()
    computed = last.inputs[0] if last is not None and wanted == "bfloat16" else output  # given as float32
    assert computed is not None
    assert computed.dtype == dtypes.to_onnx(wanted)


@pytest.mark.parametrize(("function", "x"), [
    pytest.param(lambda x: ops.one_hot(x, 4, axis=2), _ROWS, id="one_hot at the end, from the front"),
    pytest.param(lambda x: ops.isin(2, x), _ROWS.astype("float32"), id="isin of a number"),
    pytest.param(lambda x: ops.quantile(x, 0.3, axis=1, method="lower"), _X.astype("float32"), id="quantile"),
])  # fmt: skip
def test_what_keras_cannot_put_into_a_graph_is_computed_all_the_same(
    equal_to_keras: Check, function: Any, x: NDArray[Any]
) -> None:
    model = _Own(function)
    model(x)
    equal_to_keras(model, x)


@pytest.mark.parametrize("function", [
    pytest.param(lambda x: (x * 2, None), id="pair"),
    pytest.param(lambda x: {"logits": x, "past": None, "steps": [None, x + 1]}, id="nested"),
])  # fmt: skip
def test_none_among_the_results_is_left_out(function: Any) -> None:
    model = _Own(function)
    model(_X.astype("float32"))
    source = load(model)
    lowered = source.lower(21)
    answers = source.reference(lowered)({"x": _X.astype("float32")})
    assert list(answers) == [value.name for value in lowered.model.graph.outputs]
    assert len(answers) == sum(leaf is not None for leaf in keras.tree.flatten(function(_X)))


def test_a_model_that_returns_nothing_is_refused() -> None:
    with pytest.raises(ConversionError, match="returns no tensor"):
        lower(_Own(lambda _: None), input_signature=keras.KerasTensor((None, 2)))


@pytest.mark.parametrize(("dtype", "function", "what"), [
    pytest.param("complex64", lambda x: x * 2, "input 'x' is complex64", id="complex"),
    pytest.param("float8_e5m2", lambda x: ops.cast(x, "float32"), "input 'x' is float8_e5m2", id="8 in"),
    pytest.param("float32", lambda x: ops.cast(x, "float8_e4m3fn"), "is float8_e4m3fn", id="8 out"),
])  # fmt: skip
def test_tensors_that_cannot_be_served_are_refused(dtype: str, function: Any, what: str) -> None:
    inputs = keras.Input((4,), dtype=dtype, name="x")
    with pytest.raises(ConversionError, match=what):
        lower(keras.Model(inputs, function(inputs)))


def test_a_scalar_of_bfloat16_is_an_answer() -> None:
    inputs = keras.Input(batch_shape=(3,), dtype="bfloat16", name="x")
    source = load(keras.Model(inputs, ops.max(inputs)))
    answers = source.reference(source.lower(21))({"x": np.array([1, 3, 2], ml_dtypes.bfloat16)})
    assert [(x.dtype.name, float(x)) for x in answers.values()] == [("float32", 3.0)]


_WITHOUT_THE_NEWEST = """
import keras
del keras.ops.erfc, keras.src.ops.numpy.Fmod, keras.src.layers.core.embedding.dequantize_with_sz_map
import tensorflow as tf
from kerve.compiler.lowering import lower
print(len(lower(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])).model.graph))

class Complement(keras.Layer):
    def call(self, x):
        return tf.math.erfc(x)

model = keras.Sequential([keras.Input((3,)), Complement()])
print("Erf" in {node.op_type for node in lower(model).model.graph})
"""


def test_a_keras_that_lacks_the_newest_operations_will_do() -> None:
    run = subprocess.run([sys.executable, "-c", _WITHOUT_THE_NEWEST], capture_output=True, text=True)
    assert run.stdout == "2\nTrue\n", run.stderr


def test_a_reshape_of_whose_sizes_keras_infers_nothing_is_written(
    equal_to_keras: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras 3.12 infers no shape from a size that is a tensor; its Reshape layer gives the batch as one."""
    inferred = keras.src.ops.numpy.Reshape.compute_output_spec

    def of_numbers_alone(operation: Any, x: Any) -> Any:
        if not all(isinstance(size, int) for size in operation.newshape):
            raise TypeError("a size is a tensor")
        return inferred(operation, x)

    class Paired(keras.Layer):
        def call(self, x: Any) -> Any:
            return ops.reshape(x, (ops.shape(x)[0], -1, 2))

    x = keras.Input((6,))
    model = keras.Model(x, Paired()(x))
    monkeypatch.setattr(keras.src.ops.numpy.Reshape, "compute_output_spec", of_numbers_alone)
    equal_to_keras(model, np.arange(18, dtype=np.float32).reshape(3, 6))
