"""Functions of TensorFlow and of keras.ops that a file holds by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerve.compiler import LoadError, sources
from kerve.compiler.sources.options import LoadOptions

_OF_TENSORFLOW = (tf.sin, tf.identity, tf.abs, tf.nn.log_softmax, tf.nn.leaky_relu, tf.nn.swish)


def _model(library: Any, functions: tuple[Any, ...]) -> Any:
    inputs = library.layers.Input((3,), name="x")
    return library.Model(inputs, [library.layers.Dense(2, function)(inputs) for function in functions])


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize(
    ("library", "functions"),
    [(tf_keras, _OF_TENSORFLOW), (keras, (*_OF_TENSORFLOW, keras.ops.sin, keras.ops.hard_tanh))],
    ids=["Keras 2", "Keras 3"],
)
def test_activations_are_found_by_the_names_of_their_functions(
    library: Any,
    functions: tuple[Any, ...],
    suffix: str,
    tmp_path: Path,
    equal_to_original: Callable[..., Any],
) -> None:
    model = _model(library, functions)
    model.save(tmp_path / f"model.{suffix}")
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    source: Any = sources.load(tmp_path / f"model.{suffix}", LoadOptions())
    equal_to_original(source, {"x": x})
    for answer, expected in zip((source.original or source.model)(x), model(x), strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_activations_are_found_by_their_names_in_an_architecture(tmp_path: Path) -> None:
    model = _model(keras, _OF_TENSORFLOW)
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    options = LoadOptions(architecture=str(tmp_path / "model.json"))
    source: Any = sources.load(tmp_path / "model.weights.h5", options)
    for answer, expected in zip(source.model(x), model(x), strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


def test_what_the_author_gave_comes_first(tmp_path: Path) -> None:
    _model(keras, (tf.sin,)).save(tmp_path / "model.keras")
    source: Any = sources.load(
        tmp_path / "model.keras", LoadOptions(), custom_objects={"sin": lambda x: 0.0 * x}
    )
    assert not np.any(source.model(np.ones((1, 3), np.float32))[0])


def _with_lambda(path: Path) -> Path:
    inputs = tf_keras.Input((4,), name="x")
    tf_keras.Model(inputs, tf_keras.layers.Lambda(lambda t: t * 2.0, name="double")(inputs)).save(path)
    return path


def test_a_trusted_lambda_of_a_functional_model_in_hdf5_runs(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    source = sources.load(_with_lambda(tmp_path / "model.h5"), LoadOptions(trust=True))
    equal_to_original(source, {"x": np.ones((2, 4), np.float32)})


def test_bytecode_of_another_python_is_refused_as_such(tmp_path: Path) -> None:
    path = _with_lambda(tmp_path / "model.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][1]["config"]["function"] = ["4w==\n", None, None]
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(LoadError, match="bytecode of another version of Python"):
        sources.load(path, LoadOptions(trust=True))
