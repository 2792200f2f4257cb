"""Common functions of TensorFlow, written with those of Keras, one file per family.

Each takes the lowering, then the arguments of the TensorFlow function under their names there, and returns
`NotImplemented` for what Keras cannot say: it is traced then.
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

#: Every function, by its name in TensorFlow.
FUNCTIONS: dict[str, Function] = {
    **algebra.FUNCTIONS,
    **control.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **neural.FUNCTIONS,
    **shaping.FUNCTIONS,
}


def call(g: Lowering, op: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call our form of a function of TensorFlow; `NotImplemented` if there is none for these arguments."""
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
    """TensorFlow wraps its functions, some more than once."""
    return tf.__internal__.decorator.unwrap(op)[1]


@functools.cache
def _by_identity() -> dict[Any, Function]:
    """Find the functions, in the forms of TensorFlow 2 and of TensorFlow 1, which the former call."""
    table = {}
    for name, function in FUNCTIONS.items():
        for namespace in (tf.compat.v1, tf):
            op = functools.reduce(lambda part, each: getattr(part, each, None), name.split("."), namespace)
            if op is not None:
                table[_identity(op)] = function
    return table
