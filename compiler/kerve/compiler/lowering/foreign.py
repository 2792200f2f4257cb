"""One layer or operation that only TensorFlow understands, traced and converted by tf2onnx.

tf2onnx writes whatever it does not know into the graph and returns as if all were well, so nothing it
says is believed: every operator of its result is looked up in ONNX's own schemas before it is taken.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import onnx
import onnx_ir as ir
from onnxscript import version_converter

from kerve.compiler.lowering.symbol import Symbol, is_symbol, symbols_in

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["REMEDY", "UntraceableError", "trace"]

REMEDY = "write it with operations of keras.ops that have an ONNX form, or leave it out of the served model"

_TF2ONNX_OPSET = 18  # the newest that tf2onnx writes
_KNOWN_DOMAINS = frozenset({"", "ai.onnx.ml"})


class UntraceableError(Exception):
    """TensorFlow or tf2onnx has no ONNX form for this; says why."""


def trace(g: Lowering, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Trace `call` with TensorFlow and splice the converted nodes into the graph; returns symbols.

    Raises `UntraceableError` when TensorFlow cannot trace it, or when the result is not pure ONNX.
    """
    inputs = symbols_in((args, kwargs))
    structure: list[Any] = []
    proto = _convert(call, args, kwargs, inputs, structure)
    _check(proto)
    model = version_converter.convert_version(ir.from_proto(proto), g.opset)
    model = model if model is not None else ir.from_proto(proto)
    outputs = _splice(g, model.graph, [symbol.value for symbol in inputs])
    return keras.tree.pack_sequence_as(structure[0], [Symbol(value) for value in outputs])


def _convert(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: list[Symbol],
    structure: list[Any],
) -> onnx.ModelProto:
    import tensorflow as tf
    import tf2onnx

    def fill(tensors: tuple[Any, ...]) -> Any:
        waiting = iter(tensors)
        return keras.tree.map_structure(lambda x: next(waiting) if is_symbol(x) else x, (args, kwargs))

    def function(*tensors: Any) -> list[Any]:
        filled_args, filled_kwargs = fill(tensors)
        outputs = call(*filled_args, **filled_kwargs)
        structure[:] = [outputs]
        return [tf.identity(leaf) for leaf in keras.tree.flatten(outputs)]

    signature = [
        tf.TensorSpec(symbol.shape, symbol.dtype, name=f"x{index}") for index, symbol in enumerate(inputs)
    ]
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it logs, _check looks up
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            proto, _ = tf2onnx.convert.from_function(
                tf.function(function, autograph=True), input_signature=signature, opset=_TF2ONNX_OPSET
            )
    except Exception as error:  # tf2onnx and traced code fail with anything
        from kerve.compiler.errors import ConversionError

        if isinstance(error, ConversionError):
            raise
        raise UntraceableError(_first_line(error)) from error
    return proto


def _check(proto: onnx.ModelProto) -> None:
    unknown = sorted({node.op_type for node in _nodes(proto.graph) if not _is_onnx(node)})
    if unknown:
        raise UntraceableError(f"no ONNX operator stands for TensorFlow's {', '.join(unknown)}")


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nested = [
        inner
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
        for inner in _nodes(attribute.g)
    ]
    return [*graph.node, *nested]


def _is_onnx(node: onnx.NodeProto) -> bool:
    return node.domain in _KNOWN_DOMAINS and onnx.defs.has(node.op_type, node.domain)


def _splice(g: Lowering, foreign: ir.Graph, inputs: list[ir.Value]) -> list[ir.Value]:
    """Move the nodes and initializers of `foreign` into the graph under construction."""
    for name, value in list(foreign.initializers.items()):
        foreign.initializers.pop(name)
        assert value.const_value is not None
        replacement = g.constant(value.const_value.numpy(), "traced")
        ir.convenience.replace_all_uses_with(value, replacement)
        _replace_output(foreign, value, replacement)
    for formal, actual in zip(list(foreign.inputs), inputs, strict=True):
        ir.convenience.replace_all_uses_with(formal, actual)
        _replace_output(foreign, formal, actual)
    outputs = list(foreign.outputs)
    foreign.outputs.clear()
    for node in list(foreign):
        foreign.remove(node)
        g.append(node)
    return outputs


def _replace_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]
