"""TensorFlow functions for control flow, and those that do nothing in a graph, such as assertions."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops
from keras.src.ops import core

from kerve.compiler.lowering import backend
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import is_symbol, symbols_in
from kerve.compiler.lowering.tensorflow_functions.arguments import Function, dtype_of

__all__ = ["BLOCKS", "FUNCTIONS"]


def _while_loop(g: Lowering, cond: Any, body: Any, loop_vars: Any, *args: Any, **kwargs: Any) -> Any:
    if _fills_arrays(loop_vars):
        return NotImplemented
    results = backend.LOOPS["while_loop"](g, cond, body, tuple(loop_vars), kwargs.get("maximum_iterations"))
    return type(loop_vars)(results) if isinstance(loop_vars, list) else results


def _fills_arrays(loop_vars: Any) -> bool:
    """Whether a loop fills TensorArrays from constants only, as a recurrent layer over constants does."""
    is_array = [isinstance(each, tf.TensorArray) for each in keras.tree.flatten(loop_vars)]
    return any(is_array) and not symbols_in(loop_vars)


def _scan(g: Lowering, fn: Any, elems: Any, initializer: Any = None, *args: Any, **kwargs: Any) -> Any:
    if initializer is None or kwargs.get("reverse"):
        return NotImplemented

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        after = fn(carry, x)
        return after, after

    return g.lower(core.Scan(), (step, initializer, elems), {})[1]


def _map(g: Lowering, fn: Any, elems: Any, *args: Any, **kwargs: Any) -> Any:
    return g.lower(core.Map(), (fn, elems), {})


def _nothing(g: Lowering, *args: Any, **kwargs: Any) -> None:
    """Drop assertions and prints."""


#: Functions that do not use the dispatchers, or whose symbols may occur only in their function arguments.
BLOCKS: dict[str, Function] = {
    "map_fn": _map,
    "vectorized_map": lambda g, fn, elems, *_, **__: _map(g, fn, elems),
    "while_loop": _while_loop,
}

FUNCTIONS: dict[str, Function] = {
    "cond": lambda g, pred, true_fn=None, false_fn=None: ops.cond(pred, true_fn, false_fn),
    "convert_to_tensor": lambda g, value, dtype=None, **_: (
        ops.convert_to_tensor(value, None if dtype is None else dtype_of(dtype))
        if is_symbol(value)
        else NotImplemented
    ),
    "debugging.assert_equal": _nothing,
    "debugging.assert_greater": _nothing,
    "debugging.assert_greater_equal": _nothing,
    "debugging.assert_less": _nothing,
    "debugging.assert_less_equal": _nothing,
    "debugging.assert_non_negative": _nothing,
    "debugging.assert_positive": _nothing,
    "debugging.assert_rank": _nothing,
    "debugging.assert_shapes": _nothing,
    "debugging.Assert": _nothing,
    "identity": lambda g, input: input,
    "print": _nothing,
    "scan": _scan,
    "stop_gradient": lambda g, input: input,
}
