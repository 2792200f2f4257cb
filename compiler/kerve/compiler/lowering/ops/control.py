"""Control flow of `keras.ops`: branches become If, loops Loop, and functions mapped over an axis Scan.

The functions given to these operations are run once, on symbols, while nodes are added to the body of the
operator. They may capture outer values: ONNX lets a body read values of the enclosing graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, rank, strong_type
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


def _value(g: Lowering, x: Any) -> ir.Value:
    """Return a result of a user function as a value; Python numbers have TensorFlow's types."""
    if isinstance(x, bool | int | float):
        return operand(g, x, ir.DataType.from_numpy(np.dtype(strong_type(x))))
    return g.to_value(x)


def _formal(name: str, dtype: ir.DataType | None, shape: Sequence[Any]) -> ir.Value:
    assert dtype is not None
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _body(g: Lowering, inputs: Sequence[ir.Value], run: Callable[[], Sequence[ir.Value]]) -> ir.Graph:
    """Run `run` with a new graph as the target of nodes; its results become the graph's outputs."""
    body = ir.Graph(inputs, [], nodes=[], opset_imports={"": g.opset}, name="body")
    before = g.state.values
    with g.subgraph(body):
        taken: set[ir.Value] = set()
        for value in run():
            node = value.producer()
            own = node is not None and node.graph is body and value not in taken
            output = value if own else g.copy(value)
            taken.add(output)
            body.outputs.append(output)
    if g.state.values != before:
        raise g.refuse(
            "it changes a variable in a branch or a loop", "compute the new value there and assign it outside"
        )
    return body


def _typed(value: ir.Value, dtype: ir.DataType | None, shape: Sequence[Any]) -> ir.Value:
    value.type = None if dtype is None else ir.TensorType(dtype)
    value.shape = ir.Shape(shape)
    return value


@HANDLERS.register("core.Cond", typed=True)
def cond(g: Lowering, _: Any, pred: ir.Value, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """If, with the results of one of two functions."""
    structures: list[Any] = []

    def branch(fn: Callable[[], Any]) -> ir.Graph:
        def run() -> list[ir.Value]:
            structures.append(fn())
            return [_value(g, leaf) for leaf in _leaves(structures[-1])]

        return _body(g, [], run)

    then, other = branch(true_fn), branch(false_fn)
    shapes = [_common(g, *pair) for pair in zip(then.outputs, other.outputs, strict=True)]
    condition = (
        g.op.Reshape(g.cast(pred, "bool"), np.zeros(0, np.int64)) if rank(pred) else g.cast(pred, "bool")
    )
    results = g.ops.If(condition, then_branch=then, else_branch=other, _outputs=len(shapes))
    values = _several(results)
    for value, output, shape in zip(values, then.outputs, shapes, strict=True):
        _typed(value, output.dtype, shape)
    return _packed(structures[0], values)


def _several(results: Any) -> list[ir.Value]:
    return [results] if isinstance(results, ir.Value) else list(results)


def _leaves(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def _packed(structure: Any, values: Sequence[Any]) -> Any:
    waiting = iter(values)
    return keras.tree.map_structure(lambda leaf: None if leaf is None else next(waiting), structure)


def _common(g: Lowering, first: ir.Value, second: ir.Value) -> list[Any]:
    """Return the common dimensions of both results, None where they differ."""
    assert first.shape is not None
    assert second.shape is not None
    if first.dtype != second.dtype or len(first.shape) != len(second.shape):
        raise g.refuse(
            f"the branches of a condition return {first.dtype}{first.shape} and {second.dtype}{second.shape}",
            "let both return the same types and ranks",
        )
    return [a if a == b else None for a, b in zip(first.shape, second.shape, strict=True)]


def loop(
    g: Lowering,
    variables: Any,
    step: Callable[[ir.Value, Any], tuple[Any, Any]],
    *,
    trips: ir.Value | None = None,
    start: ir.Value | None = None,
) -> Any:
    """Repeat `step(iteration, variables)`, which returns the next variables and whether to continue.

    `start` is the initial condition, `trips` (INT64 []) the maximum number of iterations.
    """
    initial = [_value(g, leaf) for leaf in keras.tree.flatten(variables)]
    formals = [_formal(f"variable_{n}", x.dtype, _dims(x)) for n, x in enumerate(initial)]
    iteration = _formal("iteration", ir.DataType.INT64, [])

    def run() -> list[ir.Value]:
        carried, going = step(iteration, keras.tree.pack_sequence_as(variables, g.wrap(formals)))
        after = [_value(g, leaf) for leaf in keras.tree.flatten(carried)]
        condition = operand(g, going, ir.DataType.BOOL) if isinstance(going, bool) else _value(g, going)
        condition = g.op.Reshape(g.cast(condition, "bool"), g.shape([]))
        return [condition, *(g.cast_like(new, old) for new, old in zip(after, initial, strict=True))]

    body = _body(g, [iteration, _formal("going", ir.DataType.BOOL, []), *formals], run)
    results = _several(g.ops.Loop(trips, start, *initial, body=body, _outputs=len(initial)))
    for result, before, after in zip(results, initial, body.outputs[1:], strict=True):
        dims = (
            _dims(before)
            if after.shape is None
            else [a if a == b else None for a, b in zip(_dims(before), after.shape, strict=True)]
        )
        _typed(result, before.dtype, dims)
    return keras.tree.pack_sequence_as(variables, results)


def _dims(x: ir.Value) -> list[Any]:
    assert x.shape is not None, f"the rank of {x} is not known"
    return list(x.shape)


@HANDLERS.register("core.WhileLoop", typed=True)
def while_loop(g: Lowering, operation: Any, loop_vars: Any) -> Any:
    """Repeat while a condition holds."""
    several = isinstance(loop_vars, tuple | list)
    variables = tuple(loop_vars) if several else (loop_vars,)
    limit = operation.maximum_iterations

    def step(_: ir.Value, current: Any) -> tuple[Any, Any]:
        after = operation.body(*current)
        after = tuple(after) if several else (after,)
        return after, operation.cond(*g.wrap(keras.tree.map_structure(lambda x: _value(g, x), after)))

    first = _value(g, operation.cond(*g.wrap(keras.tree.map_structure(lambda x: _value(g, x), variables))))
    start = g.op.Reshape(g.cast(first, "bool"), g.shape([]))
    trips = None if limit is None else g.op.Reshape(operand(g, limit, ir.DataType.INT64), g.shape([]))
    results = loop(g, variables, step, trips=trips, start=start)
    return results if several else results[0]


@HANDLERS.register("core.ForiLoop", typed=True)
def fori_loop(g: Lowering, operation: Any, init_val: Any) -> Any:
    """Repeat for each number of a range."""
    lower, upper = (operand(g, bound, ir.DataType.INT64) for bound in (operation.lower, operation.upper))
    index_dtype = strong_type(g.unwrap(operation.lower))

    def step(iteration: ir.Value, current: Any) -> tuple[Any, Any]:
        index = g.cast(g.op.Add(iteration, lower), index_dtype)
        return operation.body_fun(g.wrap(index), current), True

    trips = g.op.Max(g.op.Sub(upper, lower), g.constant(np.int64(0), "none"))
    return loop(g, init_val, step, trips=trips)


def scan_axis(
    g: Lowering,
    fn: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    *,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Call `fn(carry, x)` for each slice `x` of `xs` along the first axis; stack its second results."""
    states = [_value(g, leaf) for leaf in keras.tree.flatten(carry)]
    sequences = [_value(g, leaf) for leaf in keras.tree.flatten(xs)]
    formal_states = [_formal(f"state_{n}", x.dtype, _dims(x)) for n, x in enumerate(states)]
    formal_slices = [_formal(f"slice_{n}", x.dtype, _dims(x)[1:]) for n, x in enumerate(sequences)]
    structures: list[Any] = []

    def run() -> list[ir.Value]:
        after, y = fn(
            keras.tree.pack_sequence_as(carry, g.wrap(formal_states)),
            keras.tree.pack_sequence_as(xs, g.wrap(formal_slices)),
        )
        structures.append(y)
        carried = [_value(g, leaf) for leaf in keras.tree.flatten(after)]
        carried = [g.cast_like(new, old) for new, old in zip(carried, states, strict=True)]
        return [*carried, *(_value(g, leaf) for leaf in _leaves(y))]

    body = _body(g, [*formal_states, *formal_slices], run)
    directions = {}
    if reverse:
        directions = {
            "scan_input_directions": [1] * len(sequences),
            "scan_output_directions": [1] * (len(body.outputs) - len(states)),
        }
    results = _several(
        g.ops.Scan(
            *states,
            *sequences,
            body=body,
            num_scan_inputs=len(sequences),
            **directions,
            _outputs=len(body.outputs),
        )
    )
    finals, stacked = results[: len(states)], results[len(states) :]
    for final, state in zip(finals, states, strict=True):
        _typed(final, state.dtype, _dims(state))
    for result, inner in zip(stacked, body.outputs[len(states) :], strict=True):
        _typed(result, inner.dtype, [_dims(sequences[0])[0], *_dims(inner)])
    return keras.tree.pack_sequence_as(carry, finals), _packed(structures[0], stacked)


@HANDLERS.register("core.Scan", typed=True)
def scan(g: Lowering, operation: Any, f: Callable[..., Any], init: Any, xs: Any = None) -> tuple[Any, Any]:
    """Carry a value along the first axis; `jax.lax.scan`."""
    if xs is None:  # nothing to slice: scan over an empty tensor with that many rows
        counter = g.constant(np.zeros((int(operation.length), 0), np.float32), "steps")
        return scan_axis(g, lambda carry, _: f(carry, None), init, counter, reverse=operation.reverse)
    if operation.length is not None:
        xs = keras.tree.map_structure(lambda x: g.op.Slice(x, [0], [int(operation.length)], [0]), xs)
    return scan_axis(g, f, init, xs, reverse=operation.reverse)


@HANDLERS.register("core.Map", typed=True)
def map_(g: Lowering, _: Any, f: Callable[[Any], Any], xs: Any) -> Any:
    """Stack the results of a function for each slice of the first axis."""
    return scan_axis(g, lambda _carry, x: ((), f(x)), (), xs)[1]


@HANDLERS.register("core.VectorizedMap", typed=True)
def vectorized_map(g: Lowering, operation: Any, elements: Any) -> Any:
    """The same as Map: vectorization is left to ONNX Runtime."""
    return map_(g, None, operation.function, elements)


@HANDLERS.register("core.AssociativeScan", typed=True)
def associative_scan(g: Lowering, operation: Any, f: Callable[..., Any], elems: Any) -> Any:
    """Combine each element with all previous ones, sequentially."""

    def along(x: ir.Value) -> int:
        return int(operation.axis) % rank(x)

    def first(x: ir.Value) -> ir.Value:
        return g.op.Slice(
            x, [-1 if operation.reverse else 0], [2**62 if operation.reverse else 1], [along(x)]
        )

    def rest(x: ir.Value) -> ir.Value:
        part = g.op.Slice(
            x, [0 if operation.reverse else 1], [-1 if operation.reverse else 2**62], [along(x)]
        )
        return g.op.Transpose(g.op.Unsqueeze(part, [0]), perm=_to_front(rank(x) + 1, along(x) + 1))

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        combined = f(carry, x)
        return combined, combined

    start = keras.tree.map_structure(first, elems)
    _, combined = scan_axis(g, step, start, keras.tree.map_structure(rest, elems), reverse=operation.reverse)

    def joined(head: ir.Value, tail: ir.Value, whole: ir.Value) -> ir.Value:
        axis = along(whole)
        back = _to_front(rank(whole) + 1, axis + 1)
        flat = g.op.Squeeze(g.op.Transpose(tail, perm=[back.index(n) for n in range(len(back))]), [0])
        parts = [flat, head] if operation.reverse else [head, flat]
        return _typed(g.op.Concat(*parts, axis=axis), whole.dtype, _dims(whole))

    return keras.tree.map_structure(joined, start, combined, elems)


def _to_front(ndim: int, axis: int) -> list[int]:
    """Exchange the leading axis, of size one, with another."""
    order = list(range(ndim))
    order[0], order[axis] = axis, 0
    return order


def _switch(_: Any, index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    def choose(first: int) -> Any:
        if first == len(branches) - 1:
            return branches[first](*operands)
        return ops.cond(index <= first, lambda: branches[first](*operands), lambda: choose(first + 1))

    return choose(0)


HANDLERS.add("core.Switch", composite(_switch), typed=True)
