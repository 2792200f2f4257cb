"""Trace one layer or operation that cannot run on symbols with TensorFlow, and convert it with tf2onnx.

tf2onnx copies operators that it does not know into the graph without an error, so its result is checked:
every operator is looked up in ONNX's own schemas. Remaining operators of TensorFlow are lowered by handlers
(`ops/tensorflow.py`), here and in the bodies of loops. Complex numbers, which ONNX Runtime does not support,
exist only between such handlers, as pairs; so do tables, as TensorFlow's resource handles, and lists of
tensors (`lists.py`). Variables that the code assigns are state of the graph (`variables.py`).
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import onnx
import onnx_ir as ir
from onnxscript import version_converter

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import (
    complex_numbers,
    custom_handlers,
    list_loops,
    list_shapes,
    remedies,
    variables,
)
from kerve.compiler.lowering.compatibility import FAILURE, tf2onnx_compatibility
from kerve.compiler.lowering.constants import taken_branch
from kerve.compiler.lowering.legalization import legalize
from kerve.compiler.lowering.lists import TensorList
from kerve.compiler.lowering.symbol import Symbol, is_symbol, symbols_in

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["DRAWS", "ComplexResultError", "TensorsOnlyError", "UntraceableError", "detach_inputs", "trace"]

#: The warning about random numbers.
DRAWS = (
    "draws random numbers when it is called; the compiled model draws its own, "
    "so its outputs agree with Keras's in distribution only"
)

_KEPT = "a tensor made in a loop or branch is kept, perhaps in a Python list, and used after it"

_TF2ONNX_OPSET = 18  # the newest that tf2onnx writes
_CONVERTER_OPSET = 25  # the newest that onnxscript converts to; later opsets accept its output
_MACHINE_LEARNING = "ai.onnx.ml"
_KNOWN_DOMAINS = frozenset({"", _MACHINE_LEARNING})

_Values = dict[ir.Value, Any]


class TensorsOnlyError(TypeError):
    """Raised by code that takes no symbols and is to be traced instead; not an error for the user."""


class ComplexResultError(TensorsOnlyError):
    """Raised if traced code returns complex numbers, which exist only in traces: trace the caller, too."""

    remedy = remedies.OTHERWISE


class UntraceableError(Exception):
    """Raised if TensorFlow or tf2onnx has no ONNX form for something; `remedy` says what to do."""

    def __init__(self, why: str, remedy: str = remedies.OTHERWISE) -> None:
        super().__init__(why)
        self.remedy = remedy


def trace(g: Lowering, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Trace `call` with TensorFlow and move the converted nodes into the graph; return symbols.

    Raises `UntraceableError` when TensorFlow cannot trace it, or when something has no ONNX form.
    """
    inputs = symbols_in((args, kwargs))
    structure: list[Any] = []
    captured: dict[str, Any] = {}
    state: list[Any] = []
    model = ir.from_proto(_convert(g, call, args, kwargs, inputs, structure, captured, state))
    inputs += [Symbol(g.state.read(variable)) for variable in state]
    if g.opset > _TF2ONNX_OPSET:
        version_converter.convert_version(model, min(g.opset, _CONVERTER_OPSET))
    given: _Values = {}
    for formal in model.graph.inputs:
        if formal.name in captured:  # tf2onnx makes inputs of captured tensors
            seen = captured[formal.name]
            is_plain = seen.dtype.is_numpy_compatible  # otherwise a table, which handlers read
            given[formal] = g.constant(seen.numpy(), "traced") if is_plain else seen
        else:
            given[formal] = inputs[int(str(formal.name).partition(":")[0].removeprefix("x"))].value
    traced = [getattr(leaf, "shape", None) for leaf in keras.tree.flatten(structure[0])]
    outputs = _adopt(g, model.graph, given, traced)
    for variable in reversed(state):
        g.state.write(variable, outputs.pop().value)
    return keras.tree.pack_sequence_as(structure[0], outputs)


def _convert(
    g: Lowering,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: list[Symbol],
    structure: list[Any],
    captured: dict[str, Any],
    state: list[Any],
) -> onnx.ModelProto:
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework import errors_impl

    def fill(tensors: tuple[Any, ...]) -> Any:
        waiting = iter(tensors)
        return keras.tree.map_structure(lambda x: next(waiting) if is_symbol(x) else x, (args, kwargs))

    def function(*tensors: Any) -> list[Any]:
        filled_args, filled_kwargs = fill(tensors)
        with tf.name_scope("traced"):  # only nested scopes may begin with an underscore
            outputs = call(*filled_args, **filled_kwargs)
        structure[:] = [outputs]
        return [tf.identity(leaf) for leaf in keras.tree.flatten(outputs)]

    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # _adopt checks for the failures that it logs
    try:
        traced = tf.function(function, autograph=True)
        with tf2onnx_compatibility(g.opset):
            graph = traced.get_concrete_function(*_signature(inputs)).graph
        state += _state_of(g, graph)
        if state or variables.chooses(graph):
            traced = tf.function(variables.pure(graph, state), autograph=False)
        signature = _signature([*inputs, *state])
        with tf2onnx_compatibility(g.opset):
            captures = traced.get_concrete_function(*signature).graph.captures
            captured |= {internal.name: external for external, internal in captures}
            proto, _ = tf2onnx.convert.from_function(
                traced,
                input_signature=signature,
                opset=min(g.opset, _TF2ONNX_OPSET),
                custom_op_handlers=custom_handlers.TABLE,
            )
    except ConversionError:
        raise
    except errors_impl.InaccessibleTensorError as error:
        raise UntraceableError(_KEPT, remedies.COLLECT) from error
    except Exception as error:  # tf2onnx and traced code fail with anything
        raise UntraceableError(_gist(error), remedies.remedy_for_failure(error)) from error
    return proto


def _signature(arguments: Iterable[Any]) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec(each.shape, each.dtype, name=f"x{index}") for index, each in enumerate(arguments)]


def _state_of(g: Lowering, graph: Any) -> list[Any]:
    """Return the variables that a trace assigns, or reads if they are state; raise `Restart` for new ones."""
    for variable in variables.changed(graph):
        g.state.read(variable)
    return [variable for variable in graph.variables if g.state.holds(variable)]


def _adopt(
    g: Lowering, graph: ir.Graph, given: Mapping[ir.Value, Any], traced: Sequence[Any]
) -> list[Symbol]:
    """Move the nodes and initializers of a converted model into the graph under construction.

    `traced` are TensorFlow's shapes of the first outputs, which tf2onnx may lose in part.
    """
    declared = [
        (output, output.dtype, _declared(output, shape))
        for output, shape in itertools.zip_longest(graph.outputs, traced)
    ]
    values: _Values = dict(given)
    list_shapes.note(graph)
    _adopt_nodes(g, graph, values)
    graph.outputs.clear()  # they are values like others from now on
    outputs = [_current(g, output, values) for output, _, _ in declared]
    known = zip(outputs, declared, strict=True)
    return [_output(value, dtype, shape) for value, (_, dtype, shape) in known]


def _declared(output: ir.Value, traced: Any) -> ir.Shape | None:
    if traced is None or getattr(traced, "rank", None) is None:
        return output.shape
    sizes = traced.as_list()
    if output.shape is None:
        return ir.Shape(sizes)
    if len(output.shape) != len(sizes):
        return output.shape
    both = zip(output.shape, sizes, strict=True)
    return ir.Shape(have if isinstance(have, int) or size is None else size for have, size in both)


def _adopt_nodes(g: Lowering, graph: ir.Graph, values: _Values) -> None:
    nodes = _in_order(graph)
    graph.remove(list(graph))
    graph.initializers.clear()  # those that are used become constants
    try:
        for node in nodes:
            _adopt_node(g, node, values)
    except BaseException:
        detach_inputs(nodes)
        raise


def _in_order(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes that the outputs depend on, in topological order.

    tf2onnx's own order is that of Python sets, so it differs between processes.
    """
    ordered: dict[ir.Node, None] = {}
    waiting = [(output.producer(), False) for output in reversed(graph.outputs)]
    while waiting:
        node, ready = waiting.pop()
        if node is None or node in ordered or node.graph is not graph:
            continue
        if ready:
            ordered[node] = None
            continue
        waiting.append((node, True))
        waiting += [(value.producer(), False) for value in reversed(_read(node)) if value is not None]
    return list(ordered)


def _read(node: ir.Node) -> list[ir.Value | None]:
    """Return the values that a node reads, in its subgraphs too."""
    inner = [value for body in _bodies(node) for each in body for value in _read(each)]
    outputs = [output for body in _bodies(node) for output in body.outputs]
    return [*node.inputs, *inner, *outputs]


def _bodies(node: ir.Node) -> list[ir.Graph]:
    graphs = (each for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH)
    return [each.as_graph() for each in graphs]


def detach_inputs(nodes: Iterable[ir.Node]) -> None:
    """Remove the inputs of nodes that will not be added to the graph."""
    for node in nodes:
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
        for body in _bodies(node):
            detach_inputs(body)


def _current(g: Lowering, value: ir.Value, values: _Values) -> Any:
    """Return the replacement of a value of the converted model: a value, or a pair of them."""
    if value not in values and value.const_value is not None:
        values[value] = complex_numbers.constant(g, value.const_value.numpy())
    return values.get(value, value)


def _adopt_node(g: Lowering, node: ir.Node, values: _Values) -> None:
    inputs = [None if value is None else _current(g, value, values) for value in node.inputs]
    if _compares_strings(node, inputs):
        values[node.outputs[0]] = inputs[0]
        detach_inputs([node])
        return
    legalize(g, node, inputs, values)
    known = _is_onnx(node)
    if any(isinstance(value, TensorList) for value in inputs) and node.op_type in _OF_LISTS:
        _OF_LISTS[node.op_type](g, node, inputs, values)
        detach_inputs([node])
        return
    is_plain = all(value is None or isinstance(value, ir.Value) for value in inputs)
    if known and (not is_plain or complex_numbers.makes_complex(node)):
        parts = complex_numbers.by_parts(g, node, inputs)
        if parts is None:
            what = "supports neither complex numbers nor tables"
            raise UntraceableError(f"ONNX's {node.op_type} {what}")
        values.update(zip(node.outputs, parts, strict=True))
        detach_inputs([node])
        return
    if (branch := taken_branch(node, inputs)) is not None:
        _adopt_nodes(g, branch, values)
        chosen = list(branch.outputs)
        branch.outputs.clear()  # they are values like others from now on
        values.update({have: _current(g, x, values) for have, x in zip(node.outputs, chosen, strict=True)})
        detach_inputs([node])
        return
    lists = [index for body in _bodies(node) for index in _adopt_body(g, node, body, values)]
    if not known:
        _lower_node(g, node, inputs, values)
        return
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    if node.domain == _MACHINE_LEARNING:
        g.graph.opset_imports.setdefault(node.domain, 4)  # the handlers' version, a superset of tf2onnx's
    if node.op_type.startswith("Random"):
        g.warn(DRAWS)
    node.name = None  # tf2onnx's names contain a global counter, and would differ between runs
    for output in node.outputs:
        output.shape = None
    results = g.append(node)
    if results is not node.outputs:
        values.update(zip(node.outputs, results, strict=True))
        detach_inputs([node])
    for index in lists:  # of branches, each of which may fill them to another width
        like = _bodies(node)[0].outputs[index]
        results[index].type, results[index].shape = like.type, like.shape
        values[node.outputs[index]] = TensorList.of(results[index])


def _hand_on_list(_: Lowering, node: ir.Node, inputs: list[Any], values: _Values) -> None:
    values[node.outputs[0]] = inputs[0]


def _repeat_with_lists(g: Lowering, node: ir.Node, inputs: list[Any], values: _Values) -> None:
    loop = list_loops.Loop(g, node, inputs, values)
    _adopt_body(g, node, loop.body, values)
    loop.write()


#: Operators of ONNX that may be given lists of tensors.
_OF_LISTS: Mapping[str, Callable[[Lowering, ir.Node, list[Any], _Values], None]] = {
    "Identity": _hand_on_list,
    "Loop": _repeat_with_lists,
}


def _adopt_body(g: Lowering, node: ir.Node, body: ir.Graph, values: _Values) -> list[int]:
    """Adopt the nodes of a loop's body or of a branch; return the indices of outputs that are lists."""
    lists = []
    body.name = node.op_type
    for formal, name in zip(body.inputs, g.names("input", len(body.inputs)), strict=True):
        formal.name = name
        if formal.shape is not None:
            formal.shape = ir.Shape(dim if isinstance(dim, int) else None for dim in formal.shape)
    with g.subgraph(body):
        _adopt_nodes(g, body, values)
        for index, output in enumerate(body.outputs):
            current = _current(g, output, values)
            if isinstance(current, TensorList):
                lists.append(index)
                current = current.tensor(g)
            is_own = current.graph is body and current not in body.outputs[:index]
            body.outputs[index] = current if is_own else g.copy(current)  # each output may occur once
    return lists


def _compares_strings(node: ir.Node, inputs: list[Any]) -> bool:
    """Whether tf2onnx casts strings to numbers only to compare them; ONNX compares strings since opset 19."""
    users = [user for user, _ in node.outputs[0].uses()]
    return (
        node.op_type == "Cast"
        and getattr(inputs[0], "dtype", None) == ir.DataType.STRING
        and bool(users)
        and all(user.op_type == "Equal" for user in users)
    )


def _lower_node(g: Lowering, node: ir.Node, inputs: list[Any], values: _Values) -> None:
    """Lower an operator of TensorFlow with its handler, and record its results for the following nodes."""
    handler = g.handler(f"tensorflow.{node.op_type}")
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    failure = attributes.pop(FAILURE, None)
    if handler is None:
        raise UntraceableError(*remedies.remedy_for(node.op_type, failure))
    try:
        results = handler(g, attributes, *inputs)
    except (TypeError, ValueError) as error:  # what Keras raises for unsupported arguments
        raise UntraceableError(f"TensorFlow's {node.op_type}: {_gist(error)}") from error
    detach_inputs([node])
    results = [results] if len(node.outputs) == 1 else results
    values.update(zip(node.outputs, results, strict=True))


def _is_onnx(node: ir.Node) -> bool:
    return node.domain in _KNOWN_DOMAINS and onnx.defs.has(node.op_type, node.domain)


def _output(value: Any, dtype: ir.DataType | None, shape: ir.Shape | None) -> Symbol:
    """Return a result with what TensorFlow knows of its shape."""
    if not isinstance(value, ir.Value):
        raise ComplexResultError("its result is complex")
    if value.dtype is None and dtype is not None:
        value.dtype = dtype
    if shape is None and value.shape is None:
        raise UntraceableError("the rank of its result is not known")
    # tf2onnx gives tensors of unknown rank the rank 0.
    agrees = shape is not None and (value.shape is None or len(value.shape) == len(shape))
    if value.producer() is not None and shape is not None and agrees:
        known = value.shape if value.shape is not None else [None] * len(shape)
        value.shape = ir.Shape(
            size if isinstance(size, int) else have if isinstance(have, int | ir.SymbolicDim) else None
            for have, size in zip(known, shape, strict=True)
        )
    return Symbol(value)


def _gist(error: BaseException) -> str:
    """Return the line of an error that states the cause; errors of traced code include a whole traceback."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    errors = [line for line in lines if re.match(r"\w*(Error|Exception)\b", line)]
    return errors[-1] if lines[0].startswith("in user code") and errors else lines[0]
