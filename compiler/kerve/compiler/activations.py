"""Activations that Keras 3 no longer has."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["keras2_hard_sigmoid"]


@keras.saving.register_keras_serializable(package="kerve")  # type: ignore[untyped-decorator]  # keras is untyped
def keras2_hard_sigmoid(x: Any) -> Any:
    """Return clip(0.2 x + 0.5, 0, 1): what Keras 1 and 2 call hard_sigmoid (Keras 3's slope is 1/6)."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
