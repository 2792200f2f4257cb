"""Layers that create their weights only when their model is called.

Keras loads the weights of a subclassed model after its build(). A custom build() need not build the layers of
the model: Keras skips those silently. They load their weights if the model is called first.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import keras

from kerve.compiler.errors import LoadError
from kerve.compiler.lowering.signature import build, inputs_of

__all__ = ["Weights", "build_layers", "load_deferred_weights"]


def build_layers(model: keras.Model) -> bool:
    """Build the layers that are not built yet; returns whether that created weights."""
    count = len(model.weights)
    with suppress(Exception):  # models that cannot be called are reported by `Weights` or by the lowering
        build(model, inputs_of(model))
    return len(model.weights) > count


def load_deferred_weights(model: keras.Model, weights: Path) -> None:
    """Load the weights of layers that were not built when the model was loaded."""
    if build_layers(model):
        model.load_weights(weights)


class Weights:
    """The weights of a model that exist before it is called."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._given = {id(weight) for weight in model.weights}

    def require_all(self) -> None:
        """Raise `LoadError` if there are new weights, which cannot have been loaded."""
        late = [weight.path for weight in self._model.weights if id(weight) not in self._given]
        if late:
            shown = ", ".join(late[:3]) + (", ..." if len(late) > 3 else "")
            raise LoadError(
                f"'{self._model.name}' ({type(self._model).__name__}) creates weights only when called, "
                f"so Keras did not load them ({shown}); have its build() build every layer, or build the "
                "model in Python, call it, load its weights and compile the object"
            )
