"""Artifacts written by old versions of TensorFlow and Keras, and how they are compared."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tf_keras
from numpy.typing import NDArray

from kerve.compiler.sources.base import KerasSource, Source
from kerve.compiler.sources.keras2.bridges import OldLayer

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="session")
def own_layers() -> str:
    """The module that defines the custom layer and activation in the fixtures."""
    return str(FIXTURES / "own_layers.py")


@pytest.fixture(scope="session")
def written_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from the name of a writer ("tf2.8") to a folder with what it wrote."""
    folders: dict[str, Path] = {}

    def unpacked(writer: str) -> Path:
        if writer not in folders:
            folders[writer] = tmp_path_factory.mktemp(writer)
            shutil.unpack_archive(FIXTURES / f"{writer}.zip", folders[writer])
        return folders[writer]

    return unpacked


Check = Callable[..., ir.Model]


@pytest.fixture(scope="session")
def answers_alike() -> Check:
    """Return `check(source, expected)`: the ONNX graph, the original and the record of its writer agree."""

    def check(source: Source, recorded: Path, tolerance: float = 1e-4) -> ir.Model:
        with np.load(recorded) as file:
            inputs = {key.removeprefix("input/"): file[key] for key in file.files if key.startswith("input/")}
            outputs = {
                key.removeprefix("output/"): file[key] for key in file.files if key.startswith("output/")
            }
        lowered = source.lower(21)
        given = dict(zip(_names(lowered.model.graph.inputs), inputs.values(), strict=True))
        given = {name: inputs.get(name, value) for name, value in given.items()}
        graph = _run(lowered.model, given)
        original = source.reference(lowered)(given)
        for index, name in enumerate(graph):
            expected = outputs.get(name, outputs.get(str(index)))
            _compare(f"{name}: the graph and the original", graph[name], original[name], tolerance)
            if expected is not None:
                _compare(f"{name}: the original and its writer", original[name], expected, tolerance)
        assert set(outputs) & {*graph, *map(str, range(len(graph)))}, (
            "no output was compared with the writer's"
        )
        return lowered.model

    return check


@pytest.fixture(scope="session")
def equal_to_original() -> Check:
    """Return `check(source, inputs)`: the ONNX graph answers as the original does."""

    def check(source: KerasSource, inputs: Mapping[str, Any], tolerance: float = 1e-4) -> ir.Model:
        lowered = source.lower(21)
        original = source.reference(lowered)(inputs)
        for name, array in _run(lowered.model, inputs).items():
            _compare(name, array, original[name], tolerance)
        return lowered.model

    return check


def _names(values: Any) -> list[str]:
    return [str(value.name) for value in values]


def _run(model: ir.Model, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    taken = {node.name for node in session.get_inputs()}
    names = _names(model.graph.outputs)
    feeds = {name: array for name, array in inputs.items() if name in taken}
    return dict(zip(names, session.run(names, feeds), strict=True))


def _compare(what: str, got: NDArray[Any], expected: NDArray[Any], tolerance: float) -> None:
    if got.dtype.kind in "OSU":
        assert _texts(got) == _texts(expected), what
    else:
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance / 10, err_msg=what)


def _texts(array: NDArray[Any]) -> list[str]:
    items = np.asarray(array).reshape(-1)
    return [item.decode() if isinstance(item, bytes) else str(item) for item in items]


@pytest.fixture(scope="session")
def model_of() -> Callable[[tuple[int, ...], Any], tf_keras.Model]:
    """Return a function that makes a model of Keras 2 of one layer, with weights that are not its first."""

    def model_of(shape: tuple[int, ...], layer: Any) -> tf_keras.Model:
        inputs = tf_keras.Input(shape, name="x")
        model = tf_keras.Model(inputs, layer(inputs))
        rng = np.random.default_rng(1)
        model.set_weights(
            [w + 0.1 * np.abs(rng.standard_normal(w.shape)) if w.shape else w for w in model.get_weights()]
        )
        return model

    return model_of


@pytest.fixture(scope="session")
def kept() -> Callable[[keras.Model], list[str]]:
    """Return a function that names the layers of Keras 2 that a translated model keeps behind a bridge."""
    return lambda model: [layer.name for layer in model._flatten_layers() if isinstance(layer, OldLayer)]


@pytest.fixture
def padded() -> dict[str, Any]:
    """Two inputs of three sequences of 6 steps and 4 features, which begin late, end early or have a gap."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((3, 6, 4)).astype(np.float32) for _ in range(2))
    a[0, 4:] = a[1, :2] = b[0, 3:] = b[2, 2] = 0
    return {"a": a, "b": b}
