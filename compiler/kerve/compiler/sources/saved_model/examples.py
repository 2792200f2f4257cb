"""Signatures that take serialized tf.Examples, as Estimators export them.

Their graphs begin with a parser. It is removed: the features that it extracts become the inputs. Features of
variable length are sparse tensors after the parser; as inputs they are rows of one length, padded with the
values that TensorFlow's feature columns treat as missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from kerve.compiler.errors import ConversionError
from kerve.compiler.sources.saved_model.graphs import FrozenGraph

__all__ = ["has_parser", "remove_parser"]

_PARSERS = frozenset({"ParseExample", "ParseExampleV2"})

#: The values that represent a missing value.
_ABSENT: dict[Any, Any] = {tf.string: "", tf.int64: -1, tf.float32: float("nan")}


def has_parser(definition: Any) -> bool:
    """Return whether a graph parses examples."""
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    return any(node.op in _PARSERS for node in nodes)


def remove_parser(frozen: FrozenGraph) -> FrozenGraph:
    """Return the graph without its parser; raises `ConversionError` if that is not possible."""
    if len(frozen.inputs) != 1:
        raise ConversionError(
            f"the signature parses examples and takes other inputs: {', '.join(frozen.inputs)}; "
            "choose a signature with only one of the two, or export the model with raw tensors"
        )
    (argument,) = frozen.inputs
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.definition, name="")
    (parser,) = (each for each in graph.get_operations() if each.type in _PARSERS)
    dense, sparse = _features(parser)

    with tf.Graph().as_default() as graph:
        inputs, replaced = {}, {}
        for key, tensor in dense.items():
            inputs[key] = replaced[tensor.name] = _placeholder(tensor.dtype, tensor.shape)
        for key, (indices, values, shape) in sparse.items():
            inputs[key] = rows = _placeholder(values.dtype, [None, None])
            where = tf.where(_is_present(rows))
            replaced[indices.name], replaced[values.name] = where, tf.gather_nd(rows, where)
            replaced[shape.name] = tf.shape(rows, out_type=tf.int64)
        tf.import_graph_def(frozen.definition, input_map=replaced, name="")

    def original(features: Mapping[str, Any]) -> dict[str, Any]:
        return frozen.original({argument: tf.constant(list(_serialized(features, sparse)))})

    return replace(
        frozen,
        definition=graph.as_graph_def(),
        inputs={key: tensor.name for key, tensor in sorted(inputs.items())},
        original=original,
        warnings=[
            f"feature '{key}' has any number of values in an example; here they are a row, in which "
            f"{_ABSENT[inputs[key].dtype]!r} stands for no value"
            for key in sparse
        ],
    )


def _placeholder(dtype: Any, shape: Any) -> Any:
    return tf.compat.v1.placeholder(dtype, shape, name="parsed")


def _is_present(values: Any) -> Any:
    if values.dtype.is_floating:
        return tf.logical_not(tf.math.is_nan(values))
    return tf.not_equal(values, _ABSENT[values.dtype])


def _features(parser: Any) -> tuple[dict[str, Any], dict[str, tuple[Any, Any, Any]]]:
    """Return a parser's outputs by key: dense tensors, and triples of sparse ones."""
    if parser.type == "ParseExampleV2" and parser.get_attr("ragged_value_types"):
        raise ConversionError(
            "the signature parses features into ragged tensors, which ONNX does not have; "
            "export the model with raw tensors of fixed size (build_raw_serving_input_receiver_fn)"
        )
    count = len(parser.get_attr("sparse_types"))
    outputs = list(parser.outputs)
    parts = zip(*(outputs[part * count : (part + 1) * count] for part in range(3)), strict=True)
    sparse = dict(zip(_keys(parser, "sparse"), parts, strict=True))
    return dict(zip(_keys(parser, "dense"), outputs[3 * count :], strict=True)), sparse


def _keys(parser: Any, kind: str) -> list[str]:
    """Return the names of the parser's features, which are constant inputs."""
    if parser.type == "ParseExampleV2":
        constant = parser.inputs[2 if kind == "sparse" else 3]
        return [key.decode() for key in tf.get_static_value(constant)]
    sparse = len(parser.get_attr("sparse_types"))
    begin, count = (2, sparse) if kind == "sparse" else (2 + sparse, len(parser.get_attr("Tdense")))
    return [tf.get_static_value(key).item().decode() for key in parser.inputs[begin : begin + count]]


def _serialized(features: Mapping[str, Any], sparse: Collection[str]) -> Iterator[bytes]:
    """Yield a serialized tf.Example for each row, without missing values of sparse features.

    Raises `ValueError` if features have different numbers of rows: an example has all of them.
    """
    columns = {key: np.asarray(value) for key, value in features.items()}
    rows = {len(column) for column in columns.values()}
    if len(rows) > 1:
        raise ValueError(
            f"features of {' and '.join(map(str, sorted(rows)))} rows cannot form examples; "
            "expected the same number of rows in each"
        )
    for row in range(rows.pop()):
        example = tf.train.Example()
        for key, column in columns.items():
            values = column[row].reshape(-1)
            if key in sparse:
                values = values[np.asarray(_is_present(tf.constant(values)))]
            _fill(example.features.feature[key], values)
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
