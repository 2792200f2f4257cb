"""Common TensorFlow functions, implemented with those of Keras, one file per family.

Each takes the lowering, then the arguments of the TensorFlow function under their names there, and returns
`NotImplemented` for what Keras cannot express, which is then traced.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.tensorflow_functions import algebra, control, elementwise, neural, shaping
from kerve.compiler.lowering.tensorflow_functions.arguments import ComputedArgumentError, Function
from kerve.compiler.lowering.tensorflow_functions.control import BLOCKS

__all__ = ["BLOCKS", "FUNCTIONS", "call"]

#: All functions, by their names in TensorFlow.
FUNCTIONS: dict[str, Function] = {
    **algebra.FUNCTIONS,
    **control.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **neural.FUNCTIONS,
    **shaping.FUNCTIONS,
}


def call(g: Lowering, op: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call our implementation of a TensorFlow function; return `NotImplemented` if there is none."""
    function = _by_identity().get(_identity(op))
    if function is None:
        return NotImplemented
    signature = inspect.signature(_identity(op))
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return NotImplemented
    several = [name for name, each in signature.parameters.items() if each.kind is each.VAR_POSITIONAL]
    positional = [value for name in several for value in bound.arguments.pop(name, ())]
    named = {name: value for name, value in bound.arguments.items() if value is not None and name != "name"}
    try:
        return function(g, *positional, **named)
    except ComputedArgumentError:
        return NotImplemented


def _identity(op: Callable[..., Any]) -> Any:
    """Unwrap a function; TensorFlow wraps some more than once."""
    return tf.__internal__.decorator.unwrap(op)[1]


@functools.cache
def _by_identity() -> dict[Any, Function]:
    """Return the table by function, for both TensorFlow 2 and TensorFlow 1, which the former calls."""
    table = {}
    for name, function in FUNCTIONS.items():
        for namespace in (tf.compat.v1, tf):
            op = functools.reduce(lambda part, each: getattr(part, each, None), name.split("."), namespace)
            if op is not None:
                table[_identity(op)] = function
    return table
