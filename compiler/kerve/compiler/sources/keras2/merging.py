"""Merging layers with the mask semantics of Keras 2.

In Keras 2 a step of the result is masked if it is masked in any tensor, and masked values are merged like
others; in Keras 3 it is masked only if it is masked in all tensors, and masked values are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["as_in_keras_2"]


class _Unmasking:
    """Merges values regardless of masks. A mixin of a layer's class, hence the `type: ignore`s."""

    def call(self, inputs: Any) -> Any:
        """Merge copies, which have no masks."""
        return super().call([ops.copy(each) for each in inputs])  # type: ignore[misc]


class _Elementwise(_Unmasking):
    """A mixin for layers that merge tensors of one shape."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:  # noqa: ARG002  # a method of Keras's
        """Mask what any tensor masks; tensors without a mask are ignored."""
        known = _known(mask)
        return functools.reduce(ops.logical_and, known) if known else None


class _Joining(_Unmasking):
    """A mixin for layers that concatenate tensors."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Mask a step if any part of it is masked; a tensor without a mask is not masked."""
        if not _known(mask):
            return None
        whole = [_of_elements(*each) for each in zip(inputs, mask, strict=True)]
        return ops.all(ops.concatenate(whole, axis=self.axis), axis=-1)  # type: ignore[attr-defined]


def _known(mask: Sequence[Any] | None) -> list[Any]:
    return [each for each in mask or () if each is not None]


def _of_elements(tensor: Any, mask: Any) -> Any:
    if mask is None:
        return ops.ones_like(tensor, dtype="bool")
    if len(mask.shape) == len(tensor.shape):
        return mask
    return ops.logical_or(ops.expand_dims(mask, -1), ops.zeros_like(tensor, dtype="bool"))


_KINDS = {
    "Add": _Elementwise,
    "Average": _Elementwise,
    "Concatenate": _Joining,
    "Maximum": _Elementwise,
    "Minimum": _Elementwise,
    "Multiply": _Elementwise,
    "Subtract": _Elementwise,
}


@functools.cache
def as_in_keras_2(new_class: type[keras.layers.Layer]) -> type[keras.layers.Layer]:
    """Return a merging class with the semantics of Keras 2; other classes unchanged."""
    kind = _KINDS.get(new_class.__name__)
    return new_class if kind is None else type(new_class.__name__, (kind, new_class), {})
