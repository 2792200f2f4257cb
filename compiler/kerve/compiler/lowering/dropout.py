"""Dropout, which does nothing at inference but makes some layers of Keras choose other implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

__all__ = ["replacements"]

#: Layers that compute attention in one operation unless they have dropout, and the attribute of its rate.
_ATTENTION = {keras.layers.GroupQueryAttention: "dropout", keras.layers.MultiHeadAttention: "_dropout"}


def replacements() -> Iterator[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for layer code that depends on dropout at inference."""
    for layer, rate in _ATTENTION.items():
        yield layer, "_compute_attention", _without(rate, layer._compute_attention)
    yield keras.layers.RNN, "_maybe_config_dropout_masks", lambda *_: None
    for name in ("get_dropout_mask", "get_recurrent_dropout_mask"):
        yield DropoutRNNCell, name, lambda *_: None  # cells get one even if they do not apply it


def _without(rate: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement that computes attention as if the dropout rate were zero, with the same result."""

    def compute_attention(
        layer: keras.Layer,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any = None,
        training: bool | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if training or not getattr(layer, rate):
            return original(layer, query, key, value, attention_mask, training, *args, **kwargs)
        with mock.patch.object(layer, rate, 0.0):
            outputs, scores = original(layer, query, key, value, attention_mask, training, *args, **kwargs)
        if scores is None and attention_mask is not None:
            outputs = keras.ops.where(_attends(attention_mask), outputs, 0.0)
        return outputs, scores

    return compute_attention


def _attends(mask: Any) -> Any:
    """Return which rows may attend to anything, as [batch, time, heads, 1]; the others get zeros."""
    rows = keras.ops.any(mask, axis=-1, keepdims=True)
    return keras.ops.expand_dims(rows, 2) if len(mask.shape) == 3 else keras.ops.swapaxes(rows, 1, 2)
