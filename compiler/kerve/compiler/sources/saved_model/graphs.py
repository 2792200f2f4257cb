"""Freezing a signature to a graph without variables, and calling a graph as a function."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from kerve.compiler.errors import ConversionError, LoadError
from kerve.compiler.sources.saved_model.arrays import filled_up
from kerve.compiler.sources.saved_model.describe import SavedModelInfo

__all__ = ["FrozenGraph", "Function", "freeze_function", "freeze_session", "is_compiled"]

#: The operators that change a variable of TensorFlow 1.
_CHANGES = re.compile(
    r"(Resource)?(Assign|Scatter(Nd)?(Update|Add|Sub|Mul|Div|Min|Max)|Apply|StridedSliceAssign|SparseApply|CountUpTo)"
)

#: TensorFlow's error messages for a variable without a value.
_NOT_THERE = re.compile(r"Could not find variable (\S+?)\. |uninitialized value (\S+)")

#: The operators that create a table in TensorFlow 1, whose contents are held by a session.
_TABLES = frozenset({"HashTableV2", "MutableHashTableV2"})

#: The attribute of functions compiled by XLA, as Keras 3 does for grouped convolutions; they are not inlined.
_COMPILED = "_XlaMustCompile"

#: From named tensors to named tensors.
Function = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class FrozenGraph:
    """A graph with its variables as constants."""

    definition: Any
    #: The names of its tensors, by their names in the signature.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    #: Calls the SavedModel itself.
    original: Function
    #: The resources (tables) to feed to placeholders of the graph, by tensor name.
    captured: Mapping[str, Any] = field(default_factory=dict)
    #: The known shapes of outputs, which the graph may lack.
    shapes: Mapping[str, Any] = field(default_factory=dict)
    #: Objects to keep alive as long as this graph.
    owned: Sequence[Any] = ()
    #: Warnings on its inputs, as sentences for the user.
    warnings: Sequence[str] = ()

    def function(self) -> tuple[dict[str, tf.TensorSpec], Function]:
        """Return the specs of the graph's inputs, and the graph as a function of them."""
        definition = filled_up(_without_unused_defaults(self.definition, self.inputs))
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(definition, name="")
        tensors = {key: graph.get_tensor_by_name(name) for key, name in self.inputs.items()}
        names = sorted(self.outputs)

        def written(arguments: Mapping[str, Any], _alive: Any = self.owned) -> dict[str, Any]:
            """Import the nodes themselves: within a function call, TensorFlow 1 loops cannot be converted."""
            graph = tf.compat.v1.get_default_graph()
            given = {name: graph.capture(resource) for name, resource in self.captured.items()}
            given |= {self.inputs[key]: arguments[key] for key in tensors}
            wanted = [self.outputs[key] for key in names]
            outputs = tf.graph_util.import_graph_def(definition, given, return_elements=wanted)
            results = dict(zip(names, outputs, strict=True))
            for key, shape in self.shapes.items():
                results[key].set_shape(shape)
            return results

        specs = {key: tf.TensorSpec(tensor.shape, tensor.dtype, key) for key, tensor in tensors.items()}

        @functools.cache
        def run() -> Any:
            # Not `tf.function`: its automatic control dependencies run stateful nodes (an Assert, a table)
            # before merges, and so add edges into TensorFlow 1 loops that no executor accepts.
            flat = list(specs.values())
            return tf.compat.v1.wrap_function(
                lambda *given: written(dict(zip(specs, given, strict=True))), flat
            )

        def call(arguments: Mapping[str, Any]) -> dict[str, Any]:
            if not tf.executing_eagerly():
                return written(arguments)
            return dict(run()(*(arguments[key] for key in specs)))

        return specs, call


def is_compiled(definition: Any) -> bool:
    """Return whether a part of a graph is compiled by XLA, which hides it from a converter."""
    return any(_COMPILED in function.attr for function in definition.library.function)


def freeze_function(loaded: Any, name: str) -> FrozenGraph:
    """Freeze a signature of TensorFlow 2."""
    signature = loaded.signatures[name]
    frozen = convert_to_constants.convert_variables_to_constants_v2(signature)
    left = {tensor.name for tensor in frozen.inputs}
    captured = {inner.name: outer for outer, inner in signature.graph.captures if inner.name in left}
    tensors = [tensor for tensor in frozen.inputs if tensor.name not in captured]
    _, arguments = signature.structured_input_signature
    return FrozenGraph(
        definition=_not_compiled(frozen.graph.as_graph_def()),
        inputs={key: tensor.name for key, tensor in zip(sorted(arguments), tensors, strict=True)},
        outputs={
            key: tensor.name
            for key, tensor in zip(sorted(signature.structured_outputs), frozen.outputs, strict=True)
        },
        original=lambda features: dict(signature(**features)),
        captured=captured,
        shapes={key: each.shape for key, each in signature.structured_outputs.items()},
        owned=[loaded],
    )


def freeze_session(found: SavedModelInfo, name: str) -> FrozenGraph:
    """Freeze a signature of TensorFlow 1, whose variables are held by a session."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, list(found.tags), str(found.path))
    signature = loaded.signature_def[name]
    fed = {key: _tensor(key, info) for key, info in signature.inputs.items()}
    fetched = {key: _tensor(key, info) for key, info in signature.outputs.items()}
    whole = graph.as_graph_def()
    inputs = {key: _cut(whole, info) for key, info in sorted(signature.inputs.items())}
    begins = {fed[key]: tensor for key, tensor in inputs.items()}
    outputs = {key: begins.get(tensor, tensor) for key, tensor in fetched.items()}
    _require_constant(whole, name, outputs)
    # Inputs are kept even if the outputs do not need them.
    definition = _without_variables(found, session, whole, [*outputs.values(), *inputs.values()])
    tables = {node.name: _table(session, node.name) for node in definition.node if node.op in _TABLES}

    def original(arguments: Mapping[str, Any]) -> dict[str, Any]:
        results: dict[str, Any] = session.run(
            fetched, {fed[key]: value.numpy() for key, value in arguments.items()}
        )
        return results

    return FrozenGraph(
        _with_placeholders(definition, tables),
        inputs,
        outputs,
        original,
        captured={f"{name}:0": table.resource_handle for name, table in tables.items()},
        shapes={key: tf.TensorShape(info.tensor_shape) for key, info in signature.outputs.items()},
        owned=list(tables.values()),
    )


def _tensor(key: str, info: Any) -> str:
    """Return the tensor name for a signature's `key`; raises `ConversionError` if it is not one tensor."""
    if info.WhichOneof("encoding") != "name":
        raise ConversionError(
            f"the signature takes or returns '{key}' as a sparse tensor, which ONNX does not have; "
            "save the model with a signature of dense tensors (tf.sparse.to_dense, tf.sparse.from_dense)"
        )
    return str(info.name)


def _without_variables(found: SavedModelInfo, session: Any, whole: Any, tensors: Iterable[str]) -> Any:
    """Return the subgraph for some tensors, with the session's variables as constants."""
    with session.graph.as_default():
        try:
            return tf.compat.v1.graph_util.convert_variables_to_constants(session, whole, _nodes(tensors))
        except tf.errors.FailedPreconditionError as error:
            missing = _NOT_THERE.search(str(error))
            raise LoadError(
                f"{found.path} does not hold the variable {missing[1] or missing[2]!r} that its graph reads, "
                "so TensorFlow cannot run it either (versions before 1.15 do not save the variables of "
                "stacked cells and stateful layers); give the model's .h5 file, or save it again"
                if missing
                else str(error)
            ) from error


def _table(session: Any, name: str) -> tf.lookup.StaticHashTable:
    """Return a table of a session as one of TensorFlow 2; its lookups supply the default value."""
    node = session.graph.get_operation_by_name(name)
    kinds = (node.get_attr("key_dtype"), node.get_attr("value_dtype"))
    with session.graph.as_default():
        content = tf.raw_ops.LookupTableExportV2(
            table_handle=node.outputs[0], Tkeys=kinds[0], Tvalues=kinds[1]
        )
    keys, values = session.run(content)
    filled = tf.lookup.KeyValueTensorInitializer(keys, values, *kinds)
    return tf.lookup.StaticHashTable(filled, tf.zeros([], kinds[1]))


def _with_placeholders(definition: Any, names: Collection[str]) -> Any:
    """Replace the nodes with these names by placeholders for resources."""
    copy = type(definition)()
    copy.CopyFrom(definition)
    for node in copy.node:
        if node.name in names:
            node.op = "Placeholder"
            node.attr.clear()
            node.attr["dtype"].type = tf.resource.as_datatype_enum
            node.attr["shape"].shape.SetInParent()
    return copy


def _nodes(tensors: Iterable[str]) -> list[str]:
    """Return the names of the nodes that produce the tensors."""
    return sorted({tensor.partition(":")[0] for tensor in tensors})


def _cut(definition: Any, info: Any) -> str:
    """Cut a graph at an input of a signature, in place; returns the tensor of the new placeholder.

    An input may be inside the graph, for instance after a parser of examples that other signatures use.
    """
    name, _, port = info.name.partition(":")
    nodes = {node.name: node for node in definition.node}
    if nodes[name].op.startswith("Placeholder"):
        return str(info.name)
    began = f"{name}/fed_{port}"
    old = name if port == "0" else info.name
    for node in definition.node:
        node.input[:] = [began if each == old else each for each in node.input]
    begin = definition.node.add(name=began, op="Placeholder")
    begin.attr["dtype"].type = info.dtype
    begin.attr["shape"].shape.CopyFrom(info.tensor_shape)
    return f"{began}:0"


def _require_constant(definition: Any, name: str, outputs: Mapping[str, str]) -> None:
    """Raise `ConversionError` if the outputs depend on an operator that changes a variable."""
    needed = tf.compat.v1.graph_util.extract_sub_graph(definition, _nodes(outputs.values()))
    changed = sorted({node.input[0] for node in needed.node if _CHANGES.match(node.op)})
    if changed:
        raise ConversionError(
            f"the signature {name!r} changes the variable {', '.join(map(repr, changed))} when it is called, "
            "and a graph of TensorFlow 1 does not say what reads it before and what after; save the "
            "model with TensorFlow 2 (tf.saved_model.save), or leave the assignment out of the signature"
        )


def _not_compiled(definition: Any) -> Any:
    """Disable compilation by XLA, in place: functions that it compiles are never inlined."""
    functions = definition.library.function
    if not is_compiled(definition):
        return definition
    # TensorFlow keeps the compiled functions registered under their names and ignores new definitions.
    names = {each.signature.name: f"{each.signature.name}_not_compiled" for each in functions}
    for function in functions:
        function.signature.name = names[function.signature.name]
        function.attr.pop(_COMPILED, None)
    for node in [*definition.node, *(node for function in functions for node in function.node_def)]:
        node.attr.pop(_COMPILED, None)
        _rename_called(node, names)
    return definition


def _rename_called(node: Any, names: Mapping[str, str]) -> None:
    node.op = names.get(node.op, node.op)
    for attribute in node.attr.values():
        for called in (attribute.func, *attribute.list.func):
            if called.name in names:
                called.name = names[called.name]


def _without_unused_defaults(definition: Any, inputs: Mapping[str, str]) -> Any:
    """Replace placeholders that are not inputs, such as Keras's learning phase, by their defaults."""
    fed = {tensor.partition(":")[0] for tensor in inputs.values()}
    copy = type(definition)()
    copy.CopyFrom(definition)
    for node in copy.node:
        if node.op == "PlaceholderWithDefault" and node.name not in fed:
            node.op = "Identity"
            kind = node.attr["dtype"].type
            node.attr.clear()
            node.attr["T"].type = kind
    return copy
