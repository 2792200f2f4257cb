"""Every loss that Keras offers is compiled, with its numbers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, losses
from numpy.typing import NDArray

ROWS = 40
GROUPS = [16, 16, 8]
RNG = np.random.default_rng(5)
X = RNG.standard_normal((ROWS, 6)).astype(np.float32)
CLASSES = RNG.integers(0, 5, ROWS)
WEIGHTS = RNG.random(ROWS).astype(np.float32)


class Output(NamedTuple):
    """A head of the model, and labels for it."""

    layers: tuple[keras.layers.Layer, ...]
    labels: NDArray[Any]


def outputs() -> Mapping[str, Output]:
    """Return the heads that losses and metrics are made for, by name."""
    return {
        "classes": Output((layers.Dense(5, "softmax"),), CLASSES),
        "one_hot": Output((layers.Dense(5, "softmax"),), np.eye(5, dtype=np.float32)[CLASSES]),
        "binary": Output((layers.Dense(1, "sigmoid"),), (CLASSES[:, None] > 2).astype(np.float32)),
        "signs": Output((layers.Dense(1, "tanh"),), np.sign(CLASSES[:, None] - 2.5).astype(np.float32)),
        "numbers": Output((layers.Dense(3),), RNG.standard_normal((ROWS, 3)).astype(np.float32)),
        "counts": Output((layers.Dense(3, "exponential"),), RNG.poisson(2.0, (ROWS, 3)).astype(np.float32)),
        "masks": Output(
            (layers.Dense(16, "sigmoid"), layers.Reshape((4, 4, 1))),
            RNG.integers(0, 2, (ROWS, 4, 4, 1)).astype(np.float32),
        ),
        "texts": Output((layers.Dense(48), layers.Reshape((8, 6))), RNG.integers(1, 6, (ROWS, 3))),
    }


# What is fed, by class.
LOSSES: Mapping[type, tuple[str, dict[str, Any]]] = {
    losses.BinaryCrossentropy: ("binary", {"label_smoothing": 0.1}),
    losses.BinaryFocalCrossentropy: ("binary", {"apply_class_balancing": True}),
    losses.CategoricalCrossentropy: ("one_hot", {"label_smoothing": 0.1}),
    losses.CategoricalFocalCrossentropy: ("one_hot", {}),
    losses.CategoricalGeneralizedCrossEntropy: ("classes", {}),
    losses.CategoricalHinge: ("one_hot", {}),
    losses.Circle: ("classes", {}),
    losses.CosineSimilarity: ("numbers", {}),
    losses.Dice: ("masks", {"axis": (1, 2, 3)}),
    losses.Hinge: ("signs", {}),
    losses.Huber: ("numbers", {"delta": 0.5}),
    losses.KLDivergence: ("one_hot", {}),
    losses.LogCosh: ("numbers", {}),
    losses.MeanAbsoluteError: ("numbers", {}),
    losses.MeanAbsolutePercentageError: ("numbers", {}),
    losses.MeanSquaredError: ("numbers", {}),
    losses.MeanSquaredLogarithmicError: ("counts", {}),
    losses.Poisson: ("counts", {}),
    losses.SparseCategoricalCrossentropy: ("classes", {"ignore_class": 3}),
    losses.SquaredHinge: ("signs", {}),
    losses.Tversky: ("masks", {"axis": (1, 2, 3), "alpha": 0.3}),
}


def classes(module: Any) -> set[type]:
    return {each for each in vars(module).values() if inspect.isclass(each)}


def test_the_table_is_complete() -> None:
    assert classes(losses) - {losses.Loss, losses.CTC} == LOSSES.keys()


def built(heads: Mapping[str, str]) -> tuple[keras.Model, dict[str, NDArray[Any]]]:
    """Return a model of the named heads, by their kinds, and labels for them."""
    x = layers.Input((6,), name="x")
    hidden = layers.Dense(8, activation="tanh")(x)
    ends, labels = {}, {}
    for name, kind in heads.items():
        head, value = outputs()[kind], hidden
        for layer in head.layers:
            value = layer(value)
        ends[name] = layers.Identity(name=name)(value)
        labels[name] = head.labels
    return keras.Model(x, ends), labels


def check(evaluated: Any, artifact: Any, model: keras.Model, labels: dict[str, NDArray[Any]]) -> None:
    for weights in (None, dict.fromkeys(labels, WEIGHTS)):
        wanted = model.evaluate(X, labels, sample_weight=weights, batch_size=16, verbose=0, return_dict=True)
        found = evaluated(artifact, {"x": X}, labels, GROUPS, weights)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_every_loss(compiled: Any, evaluated: Any) -> None:
    chosen = {each.__name__.lower(): each for each in LOSSES}
    model, labels = built({name: LOSSES[each][0] for name, each in chosen.items()})
    model.compile(loss={name: each(**LOSSES[each][1]) for name, each in chosen.items()})
    check(evaluated, compiled(model), model, labels)


def test_ctc_is_refused_by_name(compiled: Any) -> None:
    model, _ = built({"texts": "texts"})
    model.compile(loss=losses.CTC())
    (warning,) = (each for each in compiled(model, warns=True).manifest.warnings if "evaluat" in each)
    assert "CTCLoss: it is a loss for training" in warning
