"""Models of which layers have no weights yet when Keras reads the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerve.compiler import sources
from kerve.compiler.errors import LoadError
from kerve.compiler.sources import LoadOptions

_X = {"inputs": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)}


class Deep(keras.Model):
    """A model with a build() that leaves the building of its layers to the first call."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = [keras.layers.Dense(4, "tanh", bias_initializer="normal") for _ in range(2)]
        self.out = keras.layers.Dense(2, bias_initializer="normal")

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="normal")

    def call(self, inputs: Any) -> Any:
        values = inputs * self.scale
        for layer in self.hidden:
            values = layer(values)
        return self.out(values)


class Picky(Deep):
    """The same, of which Keras cannot infer what a call gives."""

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, tf.Tensor) and tf.executing_eagerly() is False:
            raise TypeError("it is not for graphs")
        return super().call(inputs)


def _called(model: keras.Model) -> keras.Model:
    model(_X["inputs"])
    return model


def _written(model: keras.Model, form: str, folder: Path) -> tuple[Path, LoadOptions]:
    if form == "keras":
        model.save(folder / "model.keras")
        return folder / "model.keras", LoadOptions()
    (folder / "model.json").write_text(model.to_json())
    model.save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5", LoadOptions(architecture=str(folder / "model.json"))


@pytest.mark.parametrize("form", ["keras", "json"])
def test_layers_that_a_call_builds_have_the_weights_of_the_file(form: str, tmp_path: Path) -> None:
    model = _called(Deep())
    path, options = _written(model, form, tmp_path)
    source = sources.load(path, options, custom_objects={"Deep": Deep})
    answer = _answer(source, source.lower(21))
    np.testing.assert_allclose(answer, model(_X["inputs"]), rtol=1e-5, atol=1e-6)


def test_weights_that_the_file_cannot_have_given_are_refused(tmp_path: Path) -> None:
    path, options = _written(_called(Picky()), "keras", tmp_path)
    source = sources.load(path, options, custom_objects={"Picky": Picky})
    with pytest.raises(
        LoadError, match=r"\(Picky\) creates weights only when called.*picky/dense_\d+/kernel"
    ):
        source.lower(21)


def _answer(source: Any, lowered: Any) -> Any:
    answers: Mapping[str, Any] = source.reference(lowered)(_X)
    (answer,) = answers.values()
    return answer
