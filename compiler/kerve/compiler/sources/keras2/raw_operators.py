"""TensorFlow operators as layers, in functional models of TensorFlow 2.0 to 2.3."""

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
    """The layer, with constants of the types that its operator expects.

    A file contains their values as lists; Keras makes int32 of integers, and float32 of empty lists.
    """

    def __init__(
        self, node_def: Any, name: str, constants: Mapping[Any, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(node_def, name, constants, **options)
        types = _input_types(self.node_def)
        # keys are strings in JSON
        given = {int(index): value for index, value in (constants or {}).items()}
        self.constants = {
            index: value if isinstance(value, dict) else np.asarray(value, types[index])
            for index, value in given.items()
        }


def _input_types(node: node_def_pb2.NodeDef) -> list[Any]:
    """Return the NumPy types of an operator's inputs."""
    operator = op_def_registry.get(node.op)
    attributes = {each.name: each.default_value for each in operator.attr} | dict(node.attr)
    types = [each for argument in operator.input_arg for each in _types_of(argument, attributes)]
    return [tf.as_dtype(each).as_numpy_dtype for each in types]


def _types_of(argument: op_def_pb2.OpDef.ArgDef, attributes: Mapping[str, Any]) -> list[int]:
    """Return the types of an argument, one for each of its inputs."""
    if argument.type_list_attr:
        return list(attributes[argument.type_list_attr].list.type)
    count = attributes[argument.number_attr].i if argument.number_attr else 1
    return [argument.type or attributes[argument.type_attr].type] * count
