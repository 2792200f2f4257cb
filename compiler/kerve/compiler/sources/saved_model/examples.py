"""Signatures that take serialized tf.Examples, as Estimators export them.

Their graphs begin with a parser. It is cut off: the features that it takes out of the examples become the
inputs. Dense features only: those of varying length are sparse tensors, which ONNX does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from kerve.compiler.errors import ConversionError

__all__ = ["Entry", "cut", "has_parser"]

_PARSERS = frozenset({"ParseExample", "ParseExampleV2"})


@dataclass(frozen=True)
class Entry:
    """A way into a model."""

    inputs: Mapping[str, tf.TensorSpec]
    #: From the features to the outputs, without parser.
    call: Callable[[Mapping[str, Any]], dict[str, Any]]
    #: The same by way of serialized examples, through the signature as it is.
    original: Callable[[Mapping[str, Any]], dict[str, Any]]


def has_parser(signature: Any) -> bool:
    """Whether a signature parses examples."""
    definition = signature.graph.as_graph_def()
    nodes = [
        *definition.node,
        *(node for function in definition.library.function for node in function.node_def),
    ]
    return any(node.op in _PARSERS for node in nodes)


def cut(signature: Any) -> Entry:
    """Return the signature without its parser; raises `ConversionError` for sparse features."""
    frozen = convert_to_constants.convert_variables_to_constants_v2(signature)
    (parser,) = (each for each in frozen.graph.get_operations() if each.type in _PARSERS)
    features = dict(_dense_features(parser))
    whole = tf.compat.v1.wrap_function(
        lambda: tf.import_graph_def(frozen.graph.as_graph_def(), name=""), signature=[]
    )
    names = sorted(signature.structured_outputs)  # the order of the flat outputs
    outputs = [whole.graph.get_tensor_by_name(tensor.name) for tensor in frozen.outputs]
    inputs = [whole.graph.get_tensor_by_name(tensor.name) for tensor in features.values()]
    pruned = whole.prune(inputs, outputs)
    (argument,) = signature.structured_input_signature[1]

    def call(arguments: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(names, pruned(*(arguments[key] for key in features)), strict=True))

    def original(arguments: Mapping[str, Any]) -> dict[str, Any]:
        results: dict[str, Any] = signature(**{argument: tf.constant(list(_serialized(arguments)))})
        return results

    specs = {key: tf.TensorSpec(tensor.shape, tensor.dtype, key) for key, tensor in features.items()}
    return Entry(specs, call, original)


def _dense_features(parser: Any) -> Iterator[tuple[str, Any]]:
    """The name and the tensor of each feature of fixed size."""
    sparse = len(parser.get_attr("sparse_types"))
    if sparse:
        keys = ", ".join(_keys(parser, "sparse"))
        raise ConversionError(
            f"the signature parses the features {keys} into sparse tensors, which ONNX does not have; "
            "export the model with raw tensors of fixed size (build_raw_serving_input_receiver_fn)"
        )
    tensors = parser.outputs[-len(parser.get_attr("Tdense")) :]
    yield from zip(_keys(parser, "dense"), tensors, strict=True)


def _keys(parser: Any, kind: str) -> list[str]:
    """The names of the parser's features, which are constants among its inputs."""
    if parser.type == "ParseExampleV2":
        constant = parser.inputs[2 if kind == "sparse" else 3]
        return [key.decode() for key in tf.get_static_value(constant)]
    sparse = len(parser.get_attr("sparse_types"))
    begin, count = (2, sparse) if kind == "sparse" else (2 + sparse, len(parser.get_attr("Tdense")))
    return [tf.get_static_value(key).item().decode() for key in parser.inputs[begin : begin + count]]


def _serialized(features: Mapping[str, Any]) -> Iterator[bytes]:
    """One tf.Example for each row."""
    columns = {key: np.asarray(value) for key, value in features.items()}
    (rows,) = {len(column) for column in columns.values()}
    for row in range(rows):
        example = tf.train.Example()
        for key, column in columns.items():
            _fill(example.features.feature[key], column[row].reshape(-1))
        yield example.SerializeToString()


def _fill(feature: Any, values: Any) -> None:
    if values.dtype.kind == "f":
        feature.float_list.value.extend(values.tolist())
    elif values.dtype.kind in "iub":
        feature.int64_list.value.extend(values.tolist())
    else:
        feature.bytes_list.value.extend(
            value if isinstance(value, bytes) else value.encode() for value in values
        )
