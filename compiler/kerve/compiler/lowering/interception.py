"""Interception of Keras's symbolic calls while a model is lowered.

Keras handles calls on symbolic tensors in three places: `Operation.symbolic_call` and `Layer.symbolic_call`
infer the shape, and `Node` records the call on the model. During lowering, calls on our symbols are lowered
instead and nothing is recorded: the source model is not changed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.layers import layer as layer_module
from keras.src.utils.backend_utils import in_tf_graph

from kerve.compiler.lowering import autograph, backend, dropout, packed_int4, recurrence, tensorflow_calls
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import Symbol, is_symbol, symbols_in, symbols_of

__all__ = ["intercept"]

#: Python's operators on a Keras variable whose right operand may be a symbol: Keras would pass the symbol to
#: the backend. (`symbol * variable` and `tensor * symbol` already arrive as Keras operations.)
_VARIABLE_OPERATORS: dict[str, Callable[..., Any]] = {
    "__add__": keras.ops.add,
    "__sub__": keras.ops.subtract,
    "__mul__": keras.ops.multiply,
    "__truediv__": keras.ops.true_divide,
    "__floordiv__": keras.ops.floor_divide,
    "__mod__": keras.ops.mod,
    "__pow__": keras.ops.power,
    "__matmul__": keras.ops.matmul,
    "__lt__": keras.ops.less,
    "__le__": keras.ops.less_equal,
    "__gt__": keras.ops.greater,
    "__ge__": keras.ops.greater_equal,
    "__and__": keras.ops.logical_and,
    "__or__": keras.ops.logical_or,
}

#: The same with the variable on the right, which reach Keras only when the variable is state.
_REFLECTED_OPERATORS: dict[str, Callable[..., Any]] = {
    "__radd__": keras.ops.add,
    "__rsub__": keras.ops.subtract,
    "__rmul__": keras.ops.multiply,
    "__rtruediv__": keras.ops.true_divide,
    "__rfloordiv__": keras.ops.floor_divide,
    "__rmod__": keras.ops.mod,
    "__rpow__": keras.ops.power,
    "__rmatmul__": keras.ops.matmul,
}

#: Operations that are called with a list of tensors, as `ops.sum([loss, penalty])`.
_REDUCTIONS = frozenset({"Max", "Mean", "Min", "Prod", "Sum"})

_ONE_AT_A_TIME = threading.RLock()

_INHERITED = object()


@contextmanager
def intercept(g: Lowering) -> Iterator[None]:
    """Redirect every Keras call on a symbol to `g.lower` while the context lasts."""
    filtering = keras.config.is_traceback_filtering_enabled()
    with _ONE_AT_A_TIME, _replaced(_replacements(g)):
        keras.config.disable_traceback_filtering()  # it would rewrite our errors
        try:
            yield
        finally:
            if filtering:
                keras.config.enable_traceback_filtering()


@contextmanager
def _replaced(replacements: Iterator[tuple[object, str, object]]) -> Iterator[None]:
    """Replace attributes while the context lasts; there are hundreds for each model."""
    before: list[tuple[object, str, object]] = []
    try:
        for owner, attribute, replacement in replacements:
            before.append((owner, attribute, vars(owner).get(attribute, _INHERITED)))
            setattr(owner, attribute, replacement)
        yield
    finally:
        for owner, attribute, original in reversed(before):
            if original is _INHERITED:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, original)


def _replacements(g: Lowering) -> Iterator[tuple[object, str, object]]:
    yield keras.Operation, "symbolic_call", _symbolic_call(g, keras.Operation.symbolic_call)
    yield keras.Layer, "symbolic_call", _regularized(g, _symbolic_call(g, keras.Layer.symbolic_call))
    yield layer_module, "Node", lambda **_: None
    yield keras.Layer, "add_loss", _add_loss(g)
    yield keras.Variable, "assign", _assign(g, keras.Variable.assign)
    for name, operation in _VARIABLE_OPERATORS.items():
        yield keras.Variable, name, _operator(g, getattr(keras.Variable, name), operation)
    for name, operation in _REFLECTED_OPERATORS.items():
        yield keras.Variable, name, _reflected(g, getattr(keras.Variable, name), operation)
    yield keras.Variable, "value", property(_value(g, keras.Variable.value.fget))
    shape = _shape(g, keras.ops.shape)
    for module in (keras.ops, keras.src.ops, keras.src.ops.core):
        yield module, "shape", shape
    rank = _rank(keras.ops.ndim)
    for module in (keras.ops, keras.src.ops, keras.src.ops.numpy):
        yield module, "ndim", rank
    yield from backend.replacements(g)
    yield keras.src.backend.core, "custom_gradient", _forward
    yield from tensorflow_calls.replacements(g)
    yield from autograph.replacements(g)
    yield from recurrence.replacements(g)
    yield from dropout.replacements()
    yield from packed_int4.replacements(g)


def _forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with a custom gradient without the gradient."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        outputs, _ = function(*args, **kwargs)
        return outputs

    return forward


def _symbolic_call(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    def symbolic_call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if symbols_in((args, kwargs)) or symbols_of(operation):
            return g.lower(operation, _stacked(operation, args), kwargs)
        return original(operation, *args, **kwargs)

    return symbolic_call


def _stacked(operation: keras.Operation, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Stack a list of tensors to be reduced into one tensor, as TensorFlow does."""
    if type(operation).__name__ in _REDUCTIONS and args and isinstance(args[0], list | tuple):
        return (keras.ops.stack(list(args[0])), *args[1:])
    return args


def _regularized(g: Lowering, symbolic_call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a layer's call that records its activity regularizer's loss, as Keras does only for tensors."""

    def regularized(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = symbolic_call(layer, *args, **kwargs)
        if layer.activity_regularizer is not None:
            for output in symbols_in(outputs):
                g.losses.append(functools.partial(_activity_loss, layer.activity_regularizer, output))
        return outputs

    return regularized


def _activity_loss(regularizer: Callable[..., Any], output: Symbol) -> Any:
    loss = regularizer(output)
    rows = keras.ops.cast(keras.ops.shape(output)[0], loss.dtype) if output.ndim else 1.0
    return keras.ops.divide_no_nan(loss, rows)


def _itself(loss: Any) -> Any:
    return loss


def _add_loss(g: Lowering) -> Callable[..., Any]:
    def add_loss(_: keras.Layer, loss: Any) -> None:
        g.losses.extend(functools.partial(_itself, each) for each in keras.tree.flatten(loss))

    return add_loss


def _operator(g: Lowering, original: Callable[..., Any], operation: Callable[..., Any]) -> Callable[..., Any]:
    def operator(variable: keras.Variable, other: Any) -> Any:
        if g.state.holds(variable):
            return operation(Symbol(g.state.read(variable)), other)
        return operation(variable, other) if is_symbol(other) else original(variable, other)

    return operator


def _reflected(
    g: Lowering, original: Callable[..., Any], operation: Callable[..., Any]
) -> Callable[..., Any]:
    def operator(variable: keras.Variable, other: Any) -> Any:
        if g.state.holds(variable):
            return operation(other, Symbol(g.state.read(variable)))
        return original(variable, other)

    return operator


def _value(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    def value(variable: keras.Variable) -> Any:
        if in_tf_graph() or not g.state.holds(variable):
            return original(variable)
        return Symbol(g.state.read(variable))

    return value


def _shape(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `ops.shape` for symbols: sizes known only at run time are symbols themselves."""

    def shape(x: Any) -> Any:
        if not is_symbol(x):
            return original(x)
        return tuple(_size(g, x, axis) if size is None else size for axis, size in enumerate(x.shape))

    return shape


def _rank(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `ops.ndim` for symbols: a Python integer."""

    def ndim(x: Any) -> Any:
        return len(x.shape) if is_symbol(x) else original(x)

    return ndim


def _size(g: Lowering, x: Symbol, axis: int) -> Symbol:
    size = g.op.Squeeze(g.op.Shape(x.value, start=axis, end=axis + 1))
    return Symbol(g.cast(size, "int32"))


def _assign(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return an `assign` that sets the next value of the graph's state; the variable is unchanged."""

    def assign(variable: keras.Variable, value: Any) -> Any:
        if in_tf_graph():
            return original(variable, value)
        if g.state.settles(variable, value):
            return variable
        before = g.state.read(variable)
        after = g.cast_like(g.to_value(value), before)
        g.state.write(variable, after)
        return Symbol(after)

    return assign
