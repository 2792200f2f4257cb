"""Traced code that assigns variables, as a pure function from their values to the next ones.

TensorFlow's traces read and assign variables through handles, in the order of control edges. `pure` runs such
a trace again, operation by operation in that order, with a tensor in the place of each variable: reads return
the tensor and assignments replace it, in called functions, branches and loops as well. A choice among several
branches, which tf2onnx does not convert, becomes nested two-way choices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph
from tensorflow.python.framework.func_graph import FuncGraph

__all__ = ["ImpureError", "changed", "chooses", "pure"]

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_CHOICES = frozenset({"Case", "StatelessCase"})  # which tf2onnx does not convert
_BRANCHES = frozenset({"If", "StatelessIf"}) | _CHOICES
_LOOPS = frozenset({"While", "StatelessWhile"})
_WITH_BODIES = _CALLS | _BRANCHES | _LOOPS


class ImpureError(Exception):
    """Raised if a variable is used in a way that cannot be expressed as a function of its value."""


def _rows(indices: Any) -> Any:
    return tf.expand_dims(indices, -1)


#: The next value of a variable, from its value and the other inputs of the operators that assign it.
_WRITERS: Mapping[str, Callable[..., Any]] = {
    "AssignVariableOp": lambda _, value: value,
    "AssignAddVariableOp": lambda old, value: old + value,
    "AssignSubVariableOp": lambda old, value: old - value,
    "ResourceScatterUpdate": lambda old, i, new: tf.tensor_scatter_nd_update(old, _rows(i), new),
    "ResourceScatterAdd": lambda old, i, new: tf.tensor_scatter_nd_add(old, _rows(i), new),
    "ResourceScatterSub": lambda old, i, new: tf.tensor_scatter_nd_sub(old, _rows(i), new),
    "ResourceScatterNdUpdate": tf.tensor_scatter_nd_update,
    "ResourceScatterNdAdd": tf.tensor_scatter_nd_add,
    "ResourceScatterNdSub": tf.tensor_scatter_nd_sub,
}

#: Operators that draw random numbers from a TensorFlow generator.
_DRAWS = frozenset({
    "RngReadAndSkip", "RngSkip", "StatefulRandomBinomial", "StatefulStandardNormalV2",
    "StatefulTruncatedNormal", "StatefulUniform", "StatefulUniformFullInt", "StatefulUniformInt",
})  # fmt: skip

#: Operators that modify their first input in unsupported ways.
_OTHER_WRITERS = frozenset({
    "LookupTableImportV2", "LookupTableInsertV2", "LookupTableRemoveV2",
}) | _DRAWS  # fmt: skip

#: The results of operators that read a variable, from its value.
_READERS: Mapping[str, Callable[..., Any]] = {
    "ReadVariableOp": lambda _, value: value,
    "VariableShape": lambda op, value: tf.shape(value, op.get_attr("out_type")),
    "VarIsInitializedOp": lambda *_: tf.constant(True),
    "ResourceGather": lambda op, value, i: tf.gather(value, i, batch_dims=op.get_attr("batch_dims")),
    "ResourceGatherNd": lambda _, value, i: tf.gather_nd(value, i),
}

#: Operators that a handle passes through.
_PASSING = frozenset({"Identity"})


class _Cell:
    """Replaces the handle of a variable while a trace is run again."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value


def changed(graph: FuncGraph) -> list[Any]:
    """Return the variables that a trace assigns; raise `ImpureError` if one is not known."""
    variables = {id(variable.handle): variable for variable in graph.variables}
    found = []
    for index in sorted(_written(graph)):
        external = graph.external_captures[index - (len(graph.inputs) - len(graph.external_captures))]
        if id(external) not in variables:
            raise ImpureError(
                "it changes a table, or a variable that TensorFlow does not name, when it is called"
            )
        found.append(variables[id(external)])
    return found


def chooses(graph: FuncGraph) -> bool:
    """Whether a trace contains a choice among several branches."""
    return any(_chooses(graph, op.node_def) for op in graph.get_operations())


def _chooses(graph: FuncGraph, node: Any) -> bool:
    """Whether an operator or its functions contain such a choice; reads their definitions, not graphs."""
    if node.op in _CHOICES:
        return True
    names = _called(node) if node.op in _WITH_BODIES else ()
    bodies = (_function(graph, name).definition.node_def for name in names)
    return any(_chooses(graph, inner) for body in bodies for inner in body)


def pure(graph: FuncGraph, state: Sequence[Any]) -> Callable[..., list[Any]]:
    """Return the trace as a function: inputs, then the values of `state` -> outputs, then the next values."""

    def function(*tensors: Any) -> list[Any]:
        count = len(graph.inputs) - len(graph.external_captures)
        given = dict(zip(map(id, state), tensors[count:], strict=True))
        cells = {
            id(variable.handle): _Cell(
                variable.name.partition(":")[0],
                given[id(variable)] if id(variable) in given else variable.read_value(),
            )
            for variable in graph.variables
        }
        seen = [cells.get(id(external), external) for external in graph.external_captures]
        outputs = _run(graph, [*tensors[:count], *seen])
        return [tf.identity(x) for x in (*outputs, *(cells[id(each.handle)].value for each in state))]

    return function


def _written(graph: FuncGraph) -> set[int]:
    """Return the indices of a graph's inputs that are handles of variables that it assigns."""
    resources = [(index, tensor) for index, tensor in enumerate(graph.inputs) if tensor.dtype == tf.resource]
    origin = {id(tensor): index for index, tensor in resources}
    written: set[int] = set()
    for op in graph.get_operations():
        inputs = [origin.get(id(tensor)) for tensor in op.inputs]
        if all(each is None for each in inputs):
            continue
        if op.type in _PASSING and inputs[0] is not None:
            origin[id(op.outputs[0])] = inputs[0]
        if _assigns(op):
            positions: Iterable[int] = [0]
        else:
            skipped = 1 if op.type in _BRANCHES else 0
            positions = {skipped + index for body in _bodies(op) for index in _written(body)}
        written |= {found for index in positions if (found := inputs[index]) is not None}
    return written


def _assigns(op: Any) -> bool:
    """Whether an operator assigns the variable in its first input."""
    return (
        bool(op.inputs)
        and op.inputs[0].dtype == tf.resource
        and (
            op.type in _WRITERS
            or op.type.startswith(("ResourceScatter", "ResourceStridedSliceAssign", "ResourceApply"))
            or op.type in _OTHER_WRITERS
        )
    )


def _bodies(op: Any) -> Iterator[FuncGraph]:
    """Yield the functions that an operator calls, as graphs."""
    if op.type in _WITH_BODIES:
        for name in _called(op.node_def):
            yield _graph_of(op.graph, name)


def _called(node: Any) -> Iterator[str]:
    """Yield the names of the functions that an operator calls."""
    for attribute in node.attr.values():
        for function in (attribute.func, *attribute.list.func):
            if function.name:
                yield function.name


def _graph_of(graph: Any, name: str) -> FuncGraph:
    definition = _function(graph, name).definition
    with graph.as_default():  # the functions that it calls are registered there
        inner = function_def_to_graph.function_def_to_graph(definition)
    inner.outer_graph = graph
    return inner


def _function(graph: Any, name: str) -> Any:
    """Find a function in a graph or in its outer graphs."""
    found = graph._get_function(name)
    return found if found is not None else _function(graph.outer_graph, name)


def _run(graph: FuncGraph, arguments: Sequence[Any]) -> list[Any]:
    """Run the operations of a graph in the current one."""
    values: dict[int, Any] = dict(zip(map(id, graph.inputs), arguments, strict=True))
    for op in graph.get_operations():
        if op.outputs and id(op.outputs[0]) in values:
            continue
        results = _step(op, [values[id(tensor)] for tensor in op.inputs])
        values.update(zip(map(id, op.outputs), results, strict=True))
    return [values[id(tensor)] for tensor in graph.outputs]


def _step(op: Any, inputs: list[Any]) -> Sequence[Any]:
    cells = [value for value in inputs if isinstance(value, _Cell)]
    if op.type in _CALLS:
        (body,) = _bodies(op)
        return _run(body, inputs)
    if op.type in _WRITERS and cells:
        inputs[0].value = _WRITERS[op.type](inputs[0].value, *inputs[1:])
        return []
    if not op.outputs:  # assertions and the like
        return []
    if not cells and not _chooses(op.graph, op.node_def):
        return _copy(op, inputs)
    if op.type in _PASSING:
        return inputs
    if op.type in _READERS:
        return [_READERS[op.type](op, inputs[0].value, *inputs[1:])]
    if op.type in _BRANCHES:
        return _branch(op, inputs)
    if op.type in _LOOPS:
        return _loop(op, inputs)
    if op.type in _DRAWS:
        raise ImpureError(
            f"it draws from the random generator '{cells[0].name}', as augmentation that was exported in "
            "training mode does; export the model without it, or compile its .keras or .h5 file, where it "
            "does nothing"
        )
    raise ImpureError(f"TensorFlow's {op.type} on the variable '{cells[0].name}' has no ONNX form")


def _copy(op: Any, inputs: list[Any]) -> Sequence[Any]:
    graph = tf.compat.v1.get_default_graph()
    for body in (_function(op.graph, name) for name in _called(op.node_def)):
        graph._add_function_recursive(body)
    kinds = [tensor.dtype for tensor in op.outputs]
    copy = graph._create_op_internal(
        op.type, inputs, kinds, name=op.name, attrs=dict(op.node_def.attr), op_def=op.op_def
    )
    for tensor, source in zip(copy.outputs, op.outputs, strict=True):
        tensor.set_shape(source.shape)
    return list(copy.outputs)


def _branch(op: Any, inputs: list[Any]) -> Sequence[Any]:
    choice, *arguments = inputs
    cells = _distinct(arguments)
    before = [cell.value for cell in cells]

    def run(body: FuncGraph) -> list[Any]:
        for cell, value in zip(cells, before, strict=True):
            cell.value = value
        outputs = _run(body, arguments)
        return [*outputs, *(cell.value for cell in cells)]

    branches = [functools.partial(run, _graph_of(op.graph, name)) for name in _names_of_branches(op)]
    if op.type in _CHOICES:
        results = _chosen(choice, branches)
    else:
        results = tf.cond(tf.cast(choice, tf.bool), *branches)
    return _settle(cells, tf.nest.flatten(results))


def _names_of_branches(op: Any) -> list[str]:
    attributes = op.node_def.attr
    if op.type in _CHOICES:
        return [function.name for function in attributes["branches"].list.func]
    return [attributes[key].func.name for key in ("then_branch", "else_branch")]


def _chosen(choice: Any, branches: Sequence[Callable[[], Any]], place: int = 0) -> Any:
    """Run the branch with index `choice`; the last one for any other index."""
    if place == len(branches) - 1:
        return branches[place]()
    rest = functools.partial(_chosen, choice, branches, place + 1)
    return tf.cond(tf.equal(choice, place), branches[place], rest)


def _loop(op: Any, inputs: list[Any]) -> Sequence[Any]:
    cells = _distinct(inputs)
    condition, body = (_graph_of(op.graph, op.node_def.attr[key].func.name) for key in ("cond", "body"))
    plain = [index for index, value in enumerate(inputs) if not isinstance(value, _Cell)]

    def arranged(variables: Sequence[Any]) -> list[Any]:
        for cell, value in zip(cells, variables[len(plain) :], strict=True):
            cell.value = value
        arguments = list(inputs)
        for index, value in zip(plain, variables, strict=False):
            arguments[index] = value
        return arguments

    def step(*variables: Any) -> list[Any]:
        outputs = _run(body, arranged(variables))
        return [*(outputs[index] for index in plain), *(cell.value for cell in cells)]

    first = [*(inputs[index] for index in plain), *(cell.value for cell in cells)]
    shapes = [*(body.inputs[index].shape for index in plain), *(cell.value.shape for cell in cells)]
    results = tf.while_loop(
        lambda *variables: _run(condition, arranged(variables))[0], step, first, shape_invariants=shapes
    )
    outputs = list(inputs)
    for index, value in zip(plain, _settle(cells, list(results)), strict=True):
        outputs[index] = value
    return outputs


def _distinct(arguments: Iterable[Any]) -> list[_Cell]:
    return list(dict.fromkeys(value for value in arguments if isinstance(value, _Cell)))


def _settle(cells: Sequence[_Cell], results: Sequence[Any]) -> Sequence[Any]:
    """Assign the last results to the variables; return the others."""
    count = len(results) - len(cells)
    for cell, value in zip(cells, results[count:], strict=True):
        cell.value = value
    return results[:count]
