"""The initializers of a graph: weights, added once even if several layers share them, and constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import tensorflow as tf
from numpy.typing import NDArray

__all__ = ["Initializers", "as_answer", "as_array"]

#: The largest number of elements of a constant that is deduplicated.
_SHARED_SIZE = 16


class Initializers:
    """Adds arrays to a graph as initializers with unique names."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._weights: dict[tuple[int, str], ir.Value] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._pinned: list[object] = []

    def constant(self, array: NDArray[Any], name: str, path: str) -> ir.Value:
        """Add an array for the layer at `path`; small ones are shared by all their users."""
        if array.size > _SHARED_SIZE or array.dtype.kind == "O":
            return self._enter(array, f"{path}/{name}" if path else name)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._enter(array, name)
        return self._constants[key]

    def weight(
        self, variable: keras.Variable, transform: Callable[[NDArray[Any]], NDArray[Any]] | None, role: str
    ) -> ir.Value:
        """Add the value of a variable, reordered by `transform`, once for each `role`."""
        key = (id(variable), role)
        if key not in self._weights:
            array = as_array(variable.value)
            if array.dtype != variable._dtype and str(variable._dtype) != "string":
                array = as_array(variable._value)  # the stored value, not an autocast copy
            array = np.asarray(array) if transform is None else np.ascontiguousarray(transform(array))
            self._weights[key] = self._enter(array, variable.path + (f":{role}" if role else ""))
            self._pinned.append(variable)  # an id is only unique while its object lives
        return self._weights[key]

    def _enter(self, array: NDArray[Any], name: str) -> ir.Value:
        """Register an array under `name`, or `name_1`, `name_2`, ... where the name is taken."""
        unique, count = name, 0
        inputs = {value.name for value in self._graph.inputs}
        while unique in self._graph.initializers or unique in inputs:
            count += 1
            unique = f"{name}_{count}"
        if array.dtype.kind in "OUS":
            encoded = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1)]
            tensor: ir.TensorProtocol = ir.StringTensor(encoded, shape=ir.Shape(array.shape), name=unique)
        else:
            tensor = ir.tensor(array, name=unique)
        value = ir.Value(
            name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value


def as_array(tensor: Any) -> NDArray[Any]:
    """Return an eager tensor or a variable's value as an array, sharing memory if NumPy supports its type.

    TensorFlow copies a variable before it changes elements while its old memory is referenced.
    """
    held = tensor.value() if isinstance(tensor, tf.Variable) else tensor
    if getattr(held, "ndim", 0):
        return np.asarray(held)
    # NumPy alone cannot convert a bfloat16 scalar.
    return np.asarray(held.numpy() if hasattr(held, "numpy") else keras.ops.convert_to_numpy(held))


def as_answer(tensor: Any) -> NDArray[Any]:
    """Return a copy of a model's output, in the type of the graph's output: float32 instead of bfloat16."""
    array = as_array(tensor)
    return array.astype(np.float32 if array.dtype.name == "bfloat16" else array.dtype)
