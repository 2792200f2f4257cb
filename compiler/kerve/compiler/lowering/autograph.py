"""Python control flow over symbols: `if`, `while` and `for` as supported by TensorFlow's AutoGraph.

AutoGraph rewrites user code so that each statement becomes a call of an operator. Those operators dispatch on
the type of the condition and do not support symbols; the replacements here do. Layers that are called inside
a branch or a loop are lowered by their handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.utils.backend_utils import in_tf_graph
from tensorflow.python.autograph.impl import api
from tensorflow.python.autograph.operators import py_builtins

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering.symbol import is_symbol

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["converted", "original", "replacements"]

_Operator = Callable[..., Any]


def converted(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose control flow, and that of the author's functions it calls, may be symbolic."""
    context = tf.__internal__.autograph.control_status_ctx()
    result: Callable[..., Any] = tf.__internal__.autograph.tf_convert(call, context)
    return result


def original(error: ConversionError) -> ConversionError:
    """Return the original error: AutoGraph raises a new one, with a traceback through its own code."""
    while isinstance(error.__context__, ConversionError):
        error = error.__context__
    return error


def replacements(g: Lowering) -> Iterator[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for the operators that implement statements."""
    operators = api._TRANSPILER.get_extra_locals()["ag__"]
    for name, make in _STATEMENTS.items():
        yield operators, name, make(g, getattr(operators, name))
    builtins = dict(py_builtins.BUILTIN_FUNCTIONS_MAP)
    builtins |= {name: make(builtins[name]) for name, make in _BUILTINS.items()}
    yield py_builtins, "BUILTIN_FUNCTIONS_MAP", builtins


class _Variables:
    """The variables that a statement may assign; of these, only tensors and numbers can be carried."""

    def __init__(
        self, get_state: Callable[[], Any], set_state: Callable[[Any], None], count: int | None
    ) -> None:
        self._get, self._set, self._count = get_state, set_state, count
        self._before = tuple(get_state())
        self._others: list[Any] | None = None

    def restore(self) -> None:
        """Restore the values of all variables from before the statement."""
        self._set(self._before)

    def read(self) -> list[Any]:
        """Return the tensors among the variables; the others must be the same in all branches."""
        leaves = self._leaves()
        others = [None if _is_tensor(leaf) else leaf for leaf in leaves]
        if self._others is not None and not _same(others, self._others):
            raise TypeError("a variable is a tensor after one branch of a condition and not after the other")
        self._others = others
        return [leaf for leaf in leaves if _is_tensor(leaf)]

    def write(self, tensors: Sequence[Any]) -> None:
        """Assign new values to the tensors among the variables."""
        waiting = iter(tensors)
        leaves = [next(waiting) if _is_tensor(leaf) else leaf for leaf in self._leaves()]
        state = tuple(self._get())
        changed = keras.tree.pack_sequence_as(list(state[: self._count]), leaves)
        self._set((*changed, *state[len(changed) :]))

    def _leaves(self) -> list[Any]:
        return list(keras.tree.flatten(list(self._get()[: self._count])))


def _is_tensor(x: Any) -> bool:
    kinds = (keras.KerasTensor, keras.Variable, bool, int, float, np.ndarray, np.generic)
    return isinstance(x, kinds) or bool(keras.ops.is_tensor(x))


def _same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _if_stmt(g: Lowering, original: _Operator) -> _Operator:
    del g

    def if_stmt(
        cond: Any, body: Any, orelse: Any, get_state: Any, set_state: Any, symbol_names: Any, nouts: int
    ) -> None:
        if not is_symbol(cond):
            original(cond, body, orelse, get_state, set_state, symbol_names, nouts)
            return
        variables = _Variables(get_state, set_state, nouts)

        def branch(run: Callable[[], None]) -> Callable[[], Any]:
            def fn() -> Any:
                variables.restore()
                run()
                return variables.read()

            return fn

        variables.write(ops.cond(cond, branch(body), branch(orelse)))

    return if_stmt


def _while_stmt(g: Lowering, original: _Operator) -> _Operator:
    del g

    def while_stmt(
        test: Any, body: Any, get_state: Any, set_state: Any, symbol_names: Any, opts: Any
    ) -> None:
        if not is_symbol(test()):
            original(test, body, get_state, set_state, symbol_names, opts)
            return
        variables = _Variables(get_state, set_state, None)

        def going(*tensors: Any) -> Any:
            variables.write(tensors)
            return test()

        def step(*tensors: Any) -> Any:
            variables.write(tensors)
            body()
            return tuple(variables.read())

        start = tuple(variables.read())
        variables.write(ops.while_loop(going, step, start))

    return while_stmt


def _for_stmt(g: Lowering, original: _Operator) -> _Operator:
    def for_stmt(
        iter_: Any, extra_test: Any, body: Any, get_state: Any, set_state: Any, symbol_names: Any, opts: Any
    ) -> None:
        if in_tf_graph() or not (is_symbol(iter_) or keras.ops.is_tensor(iter_)):
            original(iter_, extra_test, body, get_state, set_state, symbol_names, opts)
            return
        sequence = iter_ if is_symbol(iter_) else g.wrap(g.to_value(iter_))
        variables = _Variables(get_state, set_state, None)
        count = ops.shape(sequence)[0]

        def going(index: Any, *tensors: Any) -> Any:
            variables.write(tensors)
            more = index < count
            return more if extra_test is None else ops.logical_and(more, extra_test())

        def step(index: Any, *tensors: Any) -> Any:
            variables.write(tensors)
            body(ops.take(sequence, index, axis=0))
            return (index + 1, *variables.read())

        start = (g.wrap(g.constant(np.int32(0), "first")), *variables.read())
        variables.write(ops.while_loop(going, step, start)[1:])

    return for_stmt


def _logical(function: _Operator) -> Callable[[Lowering, _Operator], _Operator]:
    def make(g: Lowering, original: _Operator) -> _Operator:
        del g

        def operator(a: Callable[[], Any], b: Callable[[], Any]) -> Any:
            first = a()
            return function(first, b()) if is_symbol(first) else original(lambda: first, b)

        return operator

    return make


def _not(g: Lowering, original: _Operator) -> _Operator:
    del g
    return lambda a: ops.logical_not(a) if is_symbol(a) else original(a)


def _if_exp(g: Lowering, original: _Operator) -> _Operator:
    del g

    def if_exp(cond: Any, if_true: Any, if_false: Any, expr_repr: Any) -> Any:
        if is_symbol(cond):
            return ops.cond(cond, if_true, if_false)
        return original(cond, if_true, if_false, expr_repr)

    return if_exp


_STATEMENTS: dict[str, Callable[[Lowering, _Operator], _Operator]] = {
    "and_": _logical(ops.logical_and),
    "for_stmt": _for_stmt,
    "if_exp": _if_exp,
    "if_stmt": _if_stmt,
    "not_": _not,
    "or_": _logical(ops.logical_or),
    "while_stmt": _while_stmt,
}


def _on_symbols(function: _Operator) -> Callable[[_Operator], _Operator]:
    def make(original: _Operator) -> _Operator:
        def builtin(*args: Any, **kwargs: Any) -> Any:
            chosen = function if any(map(is_symbol, args)) else original
            return chosen(*args, **kwargs)

        return builtin

    return make


_BUILTINS = {
    "float": _on_symbols(lambda x: ops.cast(x, "float32")),
    "int": _on_symbols(lambda x: ops.cast(x, "int32")),
    "len": _on_symbols(lambda x: ops.shape(x)[0]),
    "print": _on_symbols(lambda *_, **__: None),
    "range": _on_symbols(ops.arange),
}
