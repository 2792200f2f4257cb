"""A signature as a graph without variables, and a graph as a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from kerve.compiler.errors import ConversionError
from kerve.compiler.sources.saved_model.describe import Description

__all__ = ["Frozen", "Function", "freeze_function", "freeze_session"]

#: The operators that change a variable of TensorFlow 1.
_CHANGES = re.compile(r"(Resource)?(Assign|Scatter|Apply|StridedSliceAssign|SparseApply|CountUpTo)")

#: From named tensors to named tensors.
Function = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Frozen:
    """A graph with its variables as constants."""

    definition: Any
    #: The names of its tensors, by the author's names.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    #: What the SavedModel itself computes.
    original: Function
    #: What a person should know about its inputs, in sentences.
    warnings: Sequence[str] = ()

    def function(self) -> tuple[dict[str, tf.TensorSpec], Function]:
        """Return what the graph takes, and the graph as a function of that."""
        definition = _without_unused_defaults(self.definition, self.inputs)
        whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(definition, name=""), signature=[])
        tensors = {key: whole.graph.get_tensor_by_name(name) for key, name in self.inputs.items()}
        names = sorted(self.outputs)
        outputs = [whole.graph.get_tensor_by_name(self.outputs[key]) for key in names]
        pruned = whole.prune(list(tensors.values()), outputs)

        def call(arguments: Mapping[str, Any]) -> dict[str, Any]:
            return dict(zip(names, pruned(*(arguments[key] for key in tensors)), strict=True))

        return {key: tf.TensorSpec(tensor.shape, tensor.dtype, key) for key, tensor in tensors.items()}, call


def freeze_function(signature: Any) -> Frozen:
    """Freeze a signature of TensorFlow 2."""
    frozen = convert_to_constants.convert_variables_to_constants_v2(signature)
    _, arguments = signature.structured_input_signature
    return Frozen(
        definition=frozen.graph.as_graph_def(),
        inputs={key: tensor.name for key, tensor in zip(sorted(arguments), frozen.inputs, strict=True)},
        outputs={
            key: tensor.name
            for key, tensor in zip(sorted(signature.structured_outputs), frozen.outputs, strict=True)
        },
        original=lambda features: dict(signature(**features)),
    )


def freeze_session(found: Description, name: str) -> Frozen:
    """Freeze a signature of TensorFlow 1, whose variables live in a session."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph)
    with graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, list(found.tags), str(found.path))
    signature = loaded.signature_def[name]
    inputs = {key: info.name for key, info in signature.inputs.items()}
    outputs = {key: info.name for key, info in signature.outputs.items()}
    _require_constant(graph, name, outputs)
    with graph.as_default():
        definition = tf.compat.v1.graph_util.convert_variables_to_constants(
            session, graph.as_graph_def(), sorted({tensor.partition(":")[0] for tensor in outputs.values()})
        )

    def original(arguments: Mapping[str, Any]) -> dict[str, Any]:
        fed = {inputs[key]: value.numpy() for key, value in arguments.items()}
        results: dict[str, Any] = session.run(outputs, fed)
        return results

    return Frozen(definition, dict(sorted(inputs.items())), outputs, original)


def _require_constant(graph: tf.Graph, name: str, outputs: Mapping[str, str]) -> None:
    """Raise `ConversionError` where the outputs need a variable to be changed."""
    needed = tf.compat.v1.graph_util.extract_sub_graph(
        graph.as_graph_def(), sorted({tensor.partition(":")[0] for tensor in outputs.values()})
    )
    changed = sorted({node.input[0] for node in needed.node if _CHANGES.match(node.op)})
    if changed:
        raise ConversionError(
            f"the signature {name!r} changes the variable {', '.join(map(repr, changed))} when it is called, "
            "in a graph of TensorFlow 1, which does not say what reads it before and what after; save the "
            "model with TensorFlow 2 (tf.saved_model.save), or leave the assignment out of the signature"
        )


def _without_unused_defaults(definition: Any, inputs: Mapping[str, str]) -> Any:
    """Put the default in the place of each placeholder that is no input, such as Keras's learning phase."""
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
