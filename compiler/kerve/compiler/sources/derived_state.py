"""What layers derive from their weights: a Normalization its mean, say.

Keras lets them do it again after weights were loaded, but forgets those in nested models, and TensorFlow,
which restores checkpoints, does not know of it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["derive_again"]


def derive_again(model: Any) -> None:
    """Finalize the state of every layer of a model of either Keras, nested ones too."""
    for layer in model._flatten_layers():
        if hasattr(layer, "finalize_state") and not _is_forgotten(layer):
            layer.finalize_state()


def _is_forgotten(layer: Any) -> bool:
    """Whether what a layer derives from was not saved: a Discretization of Keras 3 writes down its
    boundaries, and not the summary of data that it had them from; without it, it would derive none.
    """
    return 0 in getattr(getattr(layer, "summary", None), "shape", ())
