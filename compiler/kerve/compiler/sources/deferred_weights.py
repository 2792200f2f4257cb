"""Layers that make their weights when their model is called, and not before.

Keras gives a subclassed model its weights after its build(). One of the author's own need not build the
layers of the model: to those Keras gives nothing, and says nothing. Called first, they take what is there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import keras

from kerve.compiler.errors import LoadError
from kerve.compiler.lowering.signature import build, inputs_of

__all__ = ["Weights", "build_layers", "load_deferred_weights"]


def build_layers(model: keras.Model) -> bool:
    """Have layers that are not built make their weights; returns whether there were any."""
    count = len(model.weights)
    with suppress(Exception):  # what cannot be called is refused by `Weights`, or by the lowering, by name
        build(model, inputs_of(model))
    return len(model.weights) > count


def load_deferred_weights(model: keras.Model, weights: Path) -> None:
    """Give a model that was read the weights of those layers which were not built then."""
    if build_layers(model):
        model.load_weights(weights)


class Weights:
    """The weights that a model was given, before something calls it."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._given = {id(weight) for weight in model.weights}

    def require_all(self) -> None:
        """Raise `LoadError` if there are weights now that the file cannot have given."""
        late = [weight.path for weight in self._model.weights if id(weight) not in self._given]
        if late:
            shown = ", ".join(late[:3]) + (", ..." if len(late) > 3 else "")
            raise LoadError(
                f"'{self._model.name}' ({type(self._model).__name__}) makes weights only when called, "
                f"so Keras did not read them ({shown}); have its build() build every layer, or build the "
                "model in Python, call it, load its weights and compile the object"
            )
