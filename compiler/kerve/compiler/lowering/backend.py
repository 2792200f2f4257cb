"""Replacements of the functions of Keras's backend, which layers may call below `keras.ops`.

A layer may call `backend.nn.relu(x)` or `self.backend.image.resize(x)`, which compute eagerly and cannot take
a symbol. Nearly all of these functions exist under the same name in `keras.ops`: a call with a symbol is
redirected there. Functions that create tensors from sizes alone are lowered here. So are random functions and
loops, even without a symbol among their arguments: their result is not constant, or the loop's body may
capture symbols.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import keras
from keras import ops
from keras.src import backend
from keras.src.ops import core
from keras.src.ops import numpy as operations
from keras.src.utils.backend_utils import in_tf_graph

from kerve.compiler.lowering import randomness
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops import resampling
from kerve.compiler.lowering.symbol import Symbol, symbols_in

__all__ = ["LOOPS", "replacements"]

_MODULES = ("core", "image", "linalg", "math", "nn", "numpy")


class _Current:
    """The lowering that the redirected functions use: these are hundreds, so they are created once."""

    lowering: Lowering | None = None


def replacements(g: Lowering) -> Iterator[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for every function of the backend that may meet a symbol."""
    yield _Current, "lowering", g
    yield from _redirections()
    for name, make in LOOPS.items():
        for owner in (backend.core, backend, backend.tensorflow):
            if hasattr(owner, name):
                yield owner, name, _always(g, make, getattr(owner, name))
    for name, sample in randomness.SAMPLERS.items():
        original = getattr(backend.random, name)
        yield backend.random, name, _always(g, randomness.random_replacement(sample, original), original)


@functools.cache
def _redirections() -> list[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for the functions of the backend that `keras.ops` has too."""
    found: list[tuple[object, str, object]] = []
    for module in (getattr(backend, name) for name in _MODULES):
        public = _public(module)
        for name, function in vars(module).items():
            known = hasattr(public, name) and name not in LOOPS
            if inspect.isfunction(function) and not name.startswith("_") and known:
                owners = (module, backend, backend.tensorflow)
                replacement = _redirected(public, name, function)
                shown = [owner for owner in owners if getattr(owner, name, None) is function]
                found += [(owner, name, replacement) for owner in shown]
    return found


def _public(module: ModuleType) -> ModuleType:
    """Return the module of `keras.ops` that corresponds to a module of the backend."""
    part: ModuleType = getattr(keras.ops, module.__name__.rpartition(".")[2], keras.ops)
    return part if part in (keras.ops.image, keras.ops.linalg) else keras.ops


def _redirected(public: ModuleType, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    make = _DIRECT.get(name)
    calls: list[tuple[int, ...]] = []

    def redirected(*args: Any, **kwargs: Any) -> Any:
        g = _Current.lowering
        if g is None:  # user code kept a reference after lowering
            return function(*args, **kwargs)
        args, kwargs = _read(g, (args, kwargs))
        symbols = symbols_in((args, kwargs))
        if not symbols:
            return function(*args, **kwargs)
        if make is not None:
            return make(g, *args, **kwargs)
        call = tuple(map(id, symbols))
        if call in calls:  # `keras.ops` called the backend again: it does not detect these symbols
            return function(*args, **kwargs)
        calls.append(call)
        try:
            return getattr(public, name)(*args, **kwargs)
        finally:
            calls.pop()

    return redirected


def _read(g: Lowering, arguments: Any) -> Any:
    """Replace variables that are state by their symbols."""
    if not g.state.variables:
        return arguments
    return keras.tree.map_structure(lambda x: Symbol(g.state.read(x)) if g.state.holds(x) else x, arguments)


def _always(g: Lowering, make: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if in_tf_graph() else make(g, *args, **kwargs)

    return replacement


def _full(g: Lowering, shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    return g.lower(operations.Full(shape, dtype), (fill_value,), {})


def _eye(g: Lowering, N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Any:  # noqa: N803  # as Keras
    del g
    rows, columns = ops.arange(N), ops.arange(N if M is None else M)
    on_diagonal = ops.equal(ops.expand_dims(rows, 1) + k, columns)
    return ops.cast(on_diagonal, dtype or keras.config.floatx())


def _while_loop(g: Lowering, cond: Any, body: Any, loop_vars: Any, maximum_iterations: Any = None) -> Any:
    return g.lower(core.WhileLoop(cond, body, maximum_iterations), (loop_vars,), {})


def _scan(
    g: Lowering, f: Any, init: Any, xs: Any = None, length: Any = None, reverse: bool = False, unroll: Any = 1
) -> Any:
    return g.lower(core.Scan(length, reverse, unroll), (f, init, xs), {})


#: Loops, whose bodies may capture symbols that are not among the arguments.
LOOPS: dict[str, Callable[..., Any]] = {
    "fori_loop": lambda g, lower, upper, body_fun, init_val: g.lower(
        core.ForiLoop(lower, upper, body_fun), (init_val,), {}
    ),
    "map": lambda g, f, xs: g.lower(core.Map(), (f, xs), {}),
    "scan": _scan,
    "switch": lambda g, index, branches, *operands: g.lower(core.Switch(), (index, branches, *operands), {}),
    "vectorized_map": lambda g, function, elements: g.lower(core.VectorizedMap(function), (elements,), {}),
    "while_loop": _while_loop,
}


def _tri(g: Lowering, N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Any:  # noqa: N803
    del g
    rows, columns = ops.arange(N), ops.arange(N if M is None else M)
    below = ops.greater_equal(ops.expand_dims(rows, 1) + k, columns)
    return ops.cast(below, dtype or keras.config.floatx())


#: Functions whose symbols are sizes, for which `keras.ops` would call the backend again; `resize`, for which
#: it does more than the backend; and `is_tensor`, which is slow and called for every argument of every layer.
_DIRECT: dict[str, Callable[..., Any]] = {
    "broadcast_to": lambda g, x, shape: g.lower(operations.BroadcastTo(shape), (x,), {}),
    "empty": lambda g, shape, dtype=None: _full(g, shape, 0, dtype),
    "eye": _eye,
    "full": _full,
    "identity": lambda g, n, dtype=None: _eye(g, n, dtype=dtype),
    "is_tensor": lambda *_: False,
    "ones": lambda g, shape, dtype=None: _full(g, shape, 1, dtype),
    "repeat": lambda g, x, repeats, axis=None: g.lower(operations.Repeat(repeats, axis), (x,), {}),
    "resize": resampling.resize,
    "tile": lambda g, x, repeats: g.lower(operations.Tile(repeats), (x,), {}),
    "tri": _tri,
    "zeros": lambda g, shape, dtype=None: _full(g, shape, 0, dtype),
}
