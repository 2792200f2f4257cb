"""Subclassed models of Keras 2: graphs of layers, or functions as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from kerve.compiler import sources
from kerve.compiler.errors import LoadError


class _Classifier(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(4, activation="relu")
        self.norm = layers.BatchNormalization()
        self.scores = layers.Dense(3)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return {"scores": self.scores(self.norm(self.hidden(inputs), training=training) * 2.0)}


def test_a_subclassed_model_shows_its_layers_when_its_code_is_a_graph(
    equal_to_original: Callable[..., Any],
) -> None:
    model = _Classifier()
    model(np.ones((2, 5), np.float32))
    source: Any = sources.load(model)
    assert {type(layer) for layer in source.model.layers} >= {
        keras.layers.Dense,
        keras.layers.BatchNormalization,
    }
    equal_to_original(source, {"input_1": np.random.default_rng(0).random((3, 5), np.float32)})


class _Branches(tf_keras.Model):
    def call(self, inputs: Any) -> Any:
        if tf.reduce_sum(inputs) > 0:
            return inputs * 2.0
        return inputs


def test_a_subclassed_model_that_branches_is_converted_as_a_whole(
    equal_to_original: Callable[..., Any],
) -> None:
    model = _Branches()
    model(np.ones((2, 5), np.float32))
    source: Any = sources.load(model)
    assert source.warnings == [
        "converted by TensorFlow as a whole: the code of _Branches is not a graph of layers"
    ]
    for sign in (1, -1):
        equal_to_original(source, {"input_1": np.full((2, 5), sign, np.float32)})


class _Distribution:
    """What tensorflow_probability's layers return: it becomes a tensor when somebody wants one."""

    def __init__(self, mean: Any) -> None:
        self.mean = mean


tf.register_tensor_conversion_function(_Distribution, lambda value, *_, **__: value.mean)


class _Probabilistic(_Branches):
    def call(self, inputs: Any) -> Any:
        return _Distribution(super().call(inputs))


def test_a_distribution_stands_for_its_tensor(equal_to_original: Callable[..., Any]) -> None:
    model = _Probabilistic()
    model(np.ones((2, 5), np.float32))
    equal_to_original(sources.load(model), {"input_1": np.full((2, 5), 3, np.float32)})


class _Output(dict[str, Any]):
    """What models of transformers return: a mapping of their own, of what was computed."""


class _Named(_Branches):
    def call(self, inputs: Any) -> Any:
        return _Output(logits=super().call(inputs), states=(inputs, None), losses=None)


def test_a_mapping_may_be_of_a_class_of_its_own(equal_to_original: Callable[..., Any]) -> None:
    model = _Named()
    model(np.ones((2, 5), np.float32))
    lowered = equal_to_original(sources.load(model), {"input_1": np.full((2, 5), 3, np.float32)})
    assert [value.name for value in lowered.graph.outputs] == ["logits", "states_0"]


def test_a_model_that_was_never_called_says_so() -> None:
    with pytest.raises(LoadError, match="was never called, so its inputs are not known; call it once"):
        sources.load(_Classifier())


class _Tokens(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.scores = layers.Embedding(9, 4), layers.Dense(2)

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        return {"scores": self.scores(tf.reduce_mean(self.embedding(inputs["tokens"]), 1)) + inputs["extra"]}


def test_a_subclassed_model_of_dictionaries_is_read_from_a_saved_model(
    tmp_path: Any, equal_to_original: Callable[..., Any]
) -> None:
    inputs = {"tokens": np.array([[1, 2, 3], [4, 5, 6]], np.int32), "extra": np.ones((2, 2), np.float32)}
    model = _Tokens()
    model.predict(inputs, verbose=0)
    model.save(tmp_path / "saved", save_format="tf")
    graph = equal_to_original(sources.load(tmp_path / "saved"), inputs)
    assert {value.name for value in graph.graph.inputs} == {"tokens", "extra"}
