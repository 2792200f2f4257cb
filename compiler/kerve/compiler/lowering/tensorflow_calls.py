"""TensorFlow functions called on symbols, as custom layers do.

When a function of TensorFlow does not support an argument, it tries its dispatchers; ours handles symbols.
Common functions are implemented with those of Keras (`tensorflow_functions`), all others are traced and
converted one by one. So a layer that mixes Keras and TensorFlow is replayed like any other, and its sublayers
keep their handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.utils.backend_utils import in_tf_graph
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from kerve.compiler.lowering import autograph, randomness, tensorflow_functions, tracing
from kerve.compiler.lowering.layers.encoding import look_up
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import is_symbol, symbols_in

__all__ = ["replacements"]


class _Dispatcher(tf.__internal__.dispatch.GlobalOpDispatcher):
    """Handles calls on symbols while a model is lowered."""

    lowering: Lowering | None = None

    def handle(self, op: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Lower one call."""
        if self.lowering is None or in_tf_graph():
            return self.NOT_SUPPORTED
        args, kwargs = keras.tree.map_structure(_read, (args, kwargs))
        if not symbols_in((args, kwargs)):
            return self.NOT_SUPPORTED
        result = tensorflow_functions.call(self.lowering, op, args, kwargs)
        if result is not NotImplemented:
            return result
        return tracing.trace(self.lowering, op, tuple(args), dict(kwargs))


_DISPATCHER = _Dispatcher()
_DISPATCHER.register()

#: The class of the result of `tf.function`; TensorFlow does not export it.
_COMPILED: Any = type(tf.function(lambda: None))

#: Functions that draw random numbers and whose parameters have the names of those of Keras's samplers.
_RANDOM = {
    "normal": randomness.SAMPLERS["normal"],
    "truncated_normal": randomness.SAMPLERS["truncated_normal"],
    "uniform": randomness.SAMPLERS["uniform"],
}


def replacements(g: Lowering) -> Iterator[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for everything that is patched while a model is lowered."""
    yield _DISPATCHER, "lowering", g
    for name, sample in _RANDOM.items():
        yield tf.random, name, _drawn(g, sample, getattr(tf.random, name))
    for name, function in tensorflow_functions.BLOCKS.items():
        yield tf, name, _always(g, function, getattr(tf, name))
    yield _COMPILED, "__call__", _function(_COMPILED.__call__)
    for name in ("assign", "assign_add", "assign_sub"):
        yield ResourceVariable, name, _assignment(getattr(ResourceVariable, name))
    yield keras.Variable, "__tf_tensor__", _tensor(keras.Variable.__tf_tensor__)
    yield tf.lookup.StaticHashTable, "lookup", _lookup(g, tf.lookup.StaticHashTable.lookup)


def _drawn(g: Lowering, sample: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement that lowers draws even without symbols as arguments: they are not constant."""

    def drawn(*args: Any, **kwargs: Any) -> Any:
        if in_tf_graph():
            return original(*args, **kwargs)
        kwargs.pop("name", None)
        if "dtype" in kwargs:
            kwargs["dtype"] = tf.as_dtype(kwargs["dtype"]).name
        return sample(g, *args, **kwargs)

    return drawn


def _always(g: Lowering, function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    def replacement(*args: Any, **kwargs: Any) -> Any:
        result = NotImplemented if in_tf_graph() else function(g, *args, **kwargs)
        return original(*args, **kwargs) if result is NotImplemented else result

    return replacement


def _function(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement that runs the Python code of a compiled TensorFlow function on symbols."""

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if symbols_in((args, kwargs)):
            python = function._python_function  # bound, if it is a method
            return autograph.converted(python)(*args, **kwargs)
        return original(function, *args, **kwargs)

    return call


def _assignment(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement that raises, so that code that assigns TensorFlow variables is traced as a whole:
    reading them involves no symbol.
    """

    def assign(variable: Any, *args: Any, **kwargs: Any) -> Any:
        if in_tf_graph():
            return original(variable, *args, **kwargs)
        raise tracing.TensorsOnlyError(f"it changes the TensorFlow variable '{variable.name}'")

    return assign


def _read(argument: Any) -> Any:
    """Return the symbol of a variable whose value is one, any other argument unchanged."""
    is_state = isinstance(argument, keras.Variable) and is_symbol(argument.value)
    return argument.value if is_state else argument


def _tensor(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement that raises for state variables, so that TensorFlow tries its dispatchers."""

    def tensor(variable: keras.Variable, dtype: Any = None, name: str | None = None) -> Any:
        if is_symbol(variable.value):
            raise TypeError(f"the variable '{variable.path}' is state while its model is lowered")
        return original(variable, dtype, name)

    return tensor


def _lookup(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement that lowers lookups in a static table, whose contents become part of the graph."""

    def lookup(table: Any, keys: Any, name: str | None = None) -> Any:
        if not symbols_in(keys):
            return original(table, keys, name=name)
        known, values, default = (part.numpy() for part in (*table.export(), table._default_value))
        return g.wrap(look_up(g, keys.value, known, values, default))

    return lookup
