"""Activations that are functions of TensorFlow or `keras.ops`.

Keras serializes `Dense(4, tf.sin)` with the name "sin", which it cannot resolve when loading.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import tensorflow as tf
from keras import ops

__all__ = ["named"]

_Function = Callable[..., Any]


def named(config: Any, activations: ModuleType) -> dict[str, _Function]:
    """Return the functions named in a configuration, by name; those in `activations` take precedence."""
    known = {**_table(), **vars(activations)}
    return {name: known[name] for name in _names(config) if callable(known.get(name))}


def _names(node: Any) -> Iterator[str]:
    """Yield the names of functions: values of `...activation` keys, and configurations of functions."""
    if isinstance(node, list):
        for item in node:
            yield from _names(item)
    if not isinstance(node, dict):
        return
    if node.get("class_name") == "function" and isinstance(node.get("config"), str):
        yield node["config"]
    for key, value in node.items():
        if isinstance(value, str) and key.endswith("activation"):
            yield value
        yield from _names(value)


@functools.cache
def _table() -> dict[str, _Function]:
    """Return every function by its `__name__`: that of `tf.nn.log_softmax` is log_softmax_v2."""
    table: dict[str, _Function] = {}
    for namespace in (ops, tf.compat.v1.nn, tf.nn, tf.math):
        for value in vars(namespace).values():
            if callable(value) and not isinstance(value, type) and hasattr(value, "__name__"):
                table[value.__name__] = value
    return table | {"identity": tf.identity}
