"""Operators of TensorFlow as layers, which functional models of TensorFlow 2.0 to 2.3 hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.core.framework import node_def_pb2, op_def_pb2
from tensorflow.python.framework import op_def_registry

__all__ = ["TensorFlowOpLayer"]


class TensorFlowOpLayer(tf_keras.src.engine.base_layer.TensorFlowOpLayer):
    """The layer, with constants of the types that its operator takes.

    A file has their values as lists; Keras takes whole numbers for int32, and what is empty for float32.
    """

    def __init__(
        self, node_def: Any, name: str, constants: Mapping[Any, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(node_def, name, constants, **options)
        types = _input_types(self.node_def)
        # JSON has no keys but texts
        given = {int(index): value for index, value in (constants or {}).items()}
        self.constants = {
            index: value if isinstance(value, dict) else np.asarray(value, types[index])
            for index, value in given.items()
        }


def _input_types(node: node_def_pb2.NodeDef) -> list[Any]:
    """Return the types of an operator's inputs, as NumPy has them."""
    operator = op_def_registry.get(node.op)
    attributes = {each.name: each.default_value for each in operator.attr} | dict(node.attr)
    types = [each for argument in operator.input_arg for each in _types_of(argument, attributes)]
    return [tf.as_dtype(each).as_numpy_dtype for each in types]


def _types_of(argument: op_def_pb2.OpDef.ArgDef, attributes: Mapping[str, Any]) -> list[int]:
    """Return the types of an argument, which may stand for several inputs."""
    if argument.type_list_attr:
        return list(attributes[argument.type_list_attr].list.type)
    count = attributes[argument.number_attr].i if argument.number_attr else 1
    return [argument.type or attributes[argument.type_attr].type] * count
