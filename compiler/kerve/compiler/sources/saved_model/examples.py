"""Signatures that take serialized tf.Examples, as Estimators export them.

Their graphs begin with a parser. It is cut off: the features that it takes out of the examples become the
inputs. Dense features only: those of varying length are sparse tensors, which ONNX does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerve.compiler.errors import ConversionError
from kerve.compiler.sources.saved_model.graphs import Frozen

__all__ = ["cut", "has_parser"]

_PARSERS = frozenset({"ParseExample", "ParseExampleV2"})


def has_parser(definition: Any) -> bool:
    """Whether a graph parses examples."""
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    return any(node.op in _PARSERS for node in nodes)


def cut(frozen: Frozen) -> Frozen:
    """Return the graph without its parser; raises `ConversionError` for sparse features."""
    if len(frozen.inputs) != 1:
        raise ConversionError(
            f"the signature parses examples and takes {', '.join(frozen.inputs)}; "
            "choose a signature with one of the two, or export the model with raw tensors"
        )
    (argument,) = frozen.inputs
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.definition, name="")
    (parser,) = (each for each in graph.get_operations() if each.type in _PARSERS)

    def original(features: Mapping[str, Any]) -> dict[str, Any]:
        return frozen.original({argument: tf.constant(list(_serialized(features)))})

    return replace(frozen, inputs=dict(_dense_features(parser)), original=original)


def _dense_features(parser: Any) -> Iterator[tuple[str, str]]:
    """The name and the tensor of each feature of fixed size."""
    if parser.get_attr("sparse_types"):
        keys = ", ".join(_keys(parser, "sparse"))
        raise ConversionError(
            f"the signature parses the features {keys} into sparse tensors, which ONNX does not have; "
            "export the model with raw tensors of fixed size (build_raw_serving_input_receiver_fn)"
        )
    tensors = parser.outputs[-len(parser.get_attr("Tdense")) :]
    yield from zip(_keys(parser, "dense"), (tensor.name for tensor in tensors), strict=True)


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
    for row in range(min(len(column) for column in columns.values())):
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
