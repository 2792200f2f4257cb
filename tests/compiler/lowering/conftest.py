"""What every test of the lowering asks: is the ONNX graph equal to the Keras model?"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from kerve.compiler.lowering import Lowered, lower

Check = Callable[..., ir.Model]


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def equal_to_keras() -> Check:
    """Return `check(model, *calls)`, which lowers, runs and compares, and returns the ONNX model."""
    return _check


@pytest.fixture(scope="session")
def operators() -> Callable[[ir.Model], Counter[str]]:
    """Return a function that counts the operators of a model, those in bodies of loops included."""
    return lambda model: Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


@pytest.fixture(scope="session")
def single() -> Callable[..., keras.Model]:
    """Return `single(layer, *shapes)`: a model of one layer on inputs of these shapes, its weights random."""

    def build(layer: keras.Layer, *shapes: tuple[int | None, ...], dtype: str | None = None) -> keras.Model:
        inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
        model = keras.Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))
        generator = np.random.default_rng(5)
        for weight in model.weights:
            weight.assign(generator.uniform(0.1, 1.1, weight.shape))  # a variance must not be negative
        return model

    return build


def _check(
    model: keras.Model,
    *calls: Any,
    opset: int = 21,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    predict: bool = False,
    batched: bool = True,
    traced: bool | None = None,
) -> ir.Model:
    """Compare the graph of `model` with Keras on each of `calls`, and on the first row of each.

    A call is what `model(...)` takes: an array or a structure of arrays. `predict` also compares with
    `model.predict`; `batched=False` is for inputs whose first axis is not a batch; `traced` says whether
    something in the model is expected to come from TensorFlow's trace.
    """
    lowered = lower(model, opset=opset)
    assert not any("defect of kerve" in warning for warning in lowered.warnings), lowered.warnings
    if traced is not None:
        assert bool(lowered.traced) == traced, lowered.warnings
    proto = ir.to_proto(lowered.model)
    onnx.checker.check_model(proto, full_check=True)
    session = _session(proto)
    for call in calls:
        rows = [call]
        if batched:
            rows.append(keras.tree.map_structure(lambda array: array[:1], call))
        for inputs in rows:
            _compare(model(inputs, training=False), session, lowered, inputs, rtol, atol)
        if predict:
            _compare(model.predict(call, verbose=0), session, lowered, call, rtol, atol)
    return lowered.model


def _session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _compare(
    expected: Any, session: ort.InferenceSession, lowered: Lowered, inputs: Any, rtol: float, atol: float
) -> None:
    names = keras.tree.flatten(lowered.inputs)
    arrays = [np.asarray(leaf) for leaf in keras.tree.flatten(inputs)]
    taken = {node.name for node in session.get_inputs()}
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if name in taken}
    outputs = keras.tree.flatten(lowered.outputs)
    got = dict(zip(outputs, session.run(outputs, feeds), strict=True))
    for name, leaf in zip(outputs, keras.tree.flatten(expected), strict=True):
        _compare_array(name, _as_numpy(leaf), got[name], rtol, atol)


def _as_numpy(leaf: Any) -> NDArray[Any]:
    array = np.asarray(keras.ops.convert_to_numpy(leaf)) if not isinstance(leaf, np.ndarray) else leaf
    return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array


def _compare_array(name: str, expected: NDArray[Any], got: NDArray[Any], rtol: float, atol: float) -> None:
    assert got.shape == expected.shape, f"output {name}: Keras gives {expected.shape}, ONNX {got.shape}"
    if expected.dtype.kind in "OSU":
        decoded = [item.decode() if isinstance(item, bytes) else str(item) for item in expected.reshape(-1)]
        assert [str(item) for item in got.reshape(-1)] == decoded
        return
    assert got.dtype == expected.dtype, f"output {name}: Keras gives {expected.dtype}, ONNX {got.dtype}"
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol, err_msg=f"output {name}")


@pytest.fixture(scope="session")
def check_op() -> Check:
    """Return `check(function, *arrays)`: a function of `keras.ops` as a model, its sizes fixed and open."""
    return _check_function


def _check_function(
    function: Callable[..., Any],
    *arrays: NDArray[Any],
    sizes: Sequence[str] = ("batch", "all"),
    batched: bool = False,
    **options: Any,
) -> ir.Model:
    """Compare with the sizes in `sizes` open: those of the batch, of all axes, or of none."""
    models = []
    for opened in sizes:
        inputs = [
            keras.Input(batch_shape=_open(array.shape, opened), dtype=array.dtype.name, name=f"x{index}")
            for index, array in enumerate(arrays)
        ]
        model = keras.Model(inputs, function(*inputs))
        models.append(_check(model, list(arrays), batched=batched, **{"traced": False} | options))
    return models[0]


def _open(shape: tuple[int, ...], opened: str) -> list[int | None]:
    if opened == "all":
        return [None] * len(shape)
    return [None, *shape[1:]][: len(shape)] if opened == "batch" else list(shape)
