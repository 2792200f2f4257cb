"""State that layers derive from their weights, such as the mean of a Normalization.

Keras recomputes it after loading weights, but not in nested models; TensorFlow does not after restoring a
checkpoint.
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
    """Return whether the data to derive the state from was not saved.

    A Discretization of Keras 3 saves its boundaries, but not the data summary that they were computed from,
    and would recompute no boundaries from an empty summary.
    """
    return 0 in getattr(getattr(layer, "summary", None), "shape", ())
