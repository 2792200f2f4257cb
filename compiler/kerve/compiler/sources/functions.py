"""Activations that a configuration names and its Keras does not have: those of TensorFlow and `keras.ops`.

Keras writes `Dense(4, tf.sin)` down as "sin", and does not find it again.
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
    """Return the functions that a configuration names, by their names; its Keras's `activations` go first."""
    known = {**_table(), **vars(activations)}
    return {name: known[name] for name in _names(config) if callable(known.get(name))}


def _names(node: Any) -> Iterator[str]:
    """What stands where a function does: behind the key of an activation, or said to be one."""
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
    """Every function by the name that it has itself: `tf.nn.log_softmax` is called log_softmax_v2."""
    table: dict[str, _Function] = {}
    for namespace in (ops, tf.compat.v1.nn, tf.nn, tf.math):
        for value in vars(namespace).values():
            if callable(value) and not isinstance(value, type) and hasattr(value, "__name__"):
                table[value.__name__] = value
    return table | {"identity": tf.identity}
