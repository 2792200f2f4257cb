"""Translation of a model of Keras 2 to an equivalent model of Keras 3.

The graph of layers is traversed in topological order, and the translation of every layer is called on the new
tensors. The result is compared with the original: a layer that turns out to differ is kept in an `OldLayer`
instead, and the translation starts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from kerve.compiler.errors import ConversionError
from kerve.compiler.sources.keras2 import comparison, layers
from kerve.compiler.sources.keras2.bridges import OldLayer
from kerve.compiler.sources.keras2.layers import UntranslatableError, clean_name
from kerve.compiler.sources.keras2.operations import operation

__all__ = ["translate"]

_MOST_RESERVED = 10_000


def translate(old: tf_keras.Model) -> keras.Model:
    """Return a Keras 3 model with the same inputs, outputs and weights; raises `UntranslatableError`."""
    kept: set[str] = set()
    _reserve(layer.name for layer in old._flatten_layers())
    while True:
        attempt = _Translation(kept)
        try:
            new = attempt.model(old)
            culprit = comparison.first_difference(old, new, attempt.inputs, attempt.tensors)
        except _NotEqualError as error:
            culprit = error.layer
        if culprit is None:
            return new
        if culprit in kept:
            raise UntranslatableError(f"layer '{culprit}' computes something else in Keras 3")
        kept.add(culprit)


def _reserve(names: Iterable[str]) -> None:
    """Prevent Keras from using the names of layers for its own operations (on masks)."""
    for name in names:
        prefix, _, number = name.rpartition("_")
        if not number.isdecimal():
            keras.backend.get_uid(name)
            continue
        while keras.backend.get_uid(prefix) <= min(int(number), _MOST_RESERVED):
            pass


class _NotEqualError(Exception):
    """The translation of a layer does not fit in its place."""

    def __init__(self, layer: str) -> None:
        super().__init__(layer)
        self.layer = layer


class _Translation:
    """One attempt; the layers named in `kept` are not translated."""

    def __init__(self, kept: set[str]) -> None:
        self.inputs: Any = None
        #: The tensors of the outermost graph: (layer, old, new), in topological order.
        self.tensors: list[tuple[str, Any, Any]] = []
        self._kept = kept
        self._layers: dict[int, Any] = {}
        self._pairs: list[tuple[Any, Any]] = []

    def model(self, old: tf_keras.Model) -> keras.Model:
        """Translate a model with its weights."""
        new = self._graph(old)
        for old_layer, new_layer in self._pairs:
            _copy_weights(old_layer, new_layer)
        return new

    def _graph(self, old: tf_keras.Model) -> keras.Model:
        """Traverse the graph of layers and rebuild it."""
        graph = _Tensors()
        for tensor, name in zip(tf.nest.flatten(old.inputs), old.input_names, strict=True):
            graph[tensor] = _input(tensor, name, any_batch=_is_built_by_call(old))
        tensors = []
        is_sequence = isinstance(old, tf_keras.Sequential)
        for node in _nodes(old):
            _require_ranks(node, old)
            results = self._call(node, graph)
            for before, after in zip(tf.nest.flatten(node.outputs), keras.tree.flatten(results), strict=True):
                graph[before] = _of_type(before.dtype.name, after)
                tensors.append((node.layer.name, before, graph[before]))
                is_sequence &= graph[before] is after
        inputs, outputs = graph.map(old._nested_inputs), graph.map(old._nested_outputs)
        self.inputs, self.tensors = inputs, tensors
        if is_sequence and len(tensors) == len(old.layers):
            return keras.Sequential(
                [inputs, *(self._layer(layer) for layer in old.layers)], name=clean_name(old.name)
            )
        return keras.Model(inputs, outputs, name=clean_name(old.name))

    def _call(self, node: Any, graph: _Tensors) -> Any:
        args, kwargs = graph.map(node.call_args), graph.map(node.call_kwargs)
        if not kwargs.get("training", True):
            del kwargs["training"]
        is_function = isinstance(node.layer, tf_keras.src.layers.TFOpLambda)
        try:
            if is_function:
                return operation(node.layer, args, kwargs)
            kwargs = {name: value for name, value in kwargs.items() if value is not None}
            layer = self._layer(node.layer)
            if isinstance(layer, OldLayer):
                return layer.returning(_specs(node.outputs), *args, **kwargs)
            return layer(*args, **kwargs)
        except (TypeError, ValueError) as error:  # raised by Keras for invalid arguments
            if is_function or isinstance(self._layers.get(id(node.layer)), OldLayer):
                raise UntranslatableError(f"layer '{node.layer.name}': {error}") from error
            raise _NotEqualError(node.layer.name) from error

    def _layer(self, old: Any) -> Any:
        if id(old) not in self._layers:
            self._layers[id(old)] = self._new_layer(old)
        return self._layers[id(old)]

    def _new_layer(self, old: Any) -> Any:
        if old.name in self._kept:
            return OldLayer(old, clean_name(old.name))
        if isinstance(old, tf_keras.Model):
            if not old._is_graph_network:
                return OldLayer(old, clean_name(old.name))
            return self._graph(old)
        try:
            new = layers.layer(old, self._part)
        except (UntranslatableError, TypeError, ValueError):  # the latter two: Keras rejects the arguments
            return OldLayer(old, clean_name(old.name))
        self._pairs.append((old, new))
        return new

    def _part(self, old: Any) -> Any:
        """Translate a wrapped layer; its weights are copied with those of the wrapper."""
        return self._graph(old) if isinstance(old, tf_keras.Model) else layers.layer(old, self._part)


def _of_type(dtype: str, tensor: Any) -> Any:
    """Cast a tensor to the old layer's output type: Keras 3 uses smaller integer types for some results."""
    return tensor if keras.backend.standardize_dtype(tensor.dtype) == dtype else keras.ops.cast(tensor, dtype)


def _specs(tensors: Any) -> Any:
    return tf.nest.map_structure(lambda x: keras.KerasTensor(x.shape.as_list(), x.dtype.name), tensors)


def _require_ranks(node: Any, old: tf_keras.Model) -> None:
    """Raise for a result of unknown rank; raises `ConversionError` if it is an output of the model."""
    unknown = [x for x in tf.nest.flatten(node.outputs) if x.shape.rank is None]
    if any(x is output for x in unknown for output in tf.nest.flatten(old.outputs)):
        raise ConversionError(
            f"layer '{node.layer.name}' ({type(node.layer).__name__}): the rank of its result is unknown, "
            "because a dynamic axis may have size 1; name the axes to drop, as in tf.squeeze(x, axis=-1)"
        )
    if unknown:
        raise UntranslatableError(f"the result of layer '{node.layer.name}' has no known rank")


class _Tensors(dict[int, Any]):
    """The new tensor for each old one."""

    def __setitem__(self, old: Any, new: Any) -> None:
        super().__setitem__(id(old), new)

    def __getitem__(self, old: Any) -> Any:
        return super().__getitem__(id(old))

    def map(self, structure: Any) -> Any:
        """Replace old tensors in a structure by new ones, and variables by their values."""
        return tf.nest.map_structure(self._new, structure)

    def _new(self, leaf: Any) -> Any:
        if isinstance(leaf, tf.Variable):
            return leaf.numpy()
        return self.get(id(leaf), leaf)


def _is_built_by_call(old: tf_keras.Model) -> bool:
    """Return whether the batch size in the graph is only that of the first batch."""
    return isinstance(old, tf_keras.Sequential) and not old._has_explicit_input_shape


def _input(tensor: Any, name: str, *, any_batch: bool) -> Any:
    batch, *dims = tensor.shape
    shape = (None if any_batch else batch, *dims)
    return keras.Input(batch_shape=shape, dtype=tensor.dtype.name, name=clean_name(name))


def _nodes(old: tf_keras.Model) -> Iterator[Any]:
    """Yield the calls of layers in a graph in topological order."""
    for _, nodes in sorted(old._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            if not node.is_input:
                yield node


def _copy_weights(old: Any, new: Any) -> None:
    values = old.get_weights()
    if len(values) != len(new.get_weights()):
        raise _NotEqualError(old.name)
    try:
        new.set_weights(values)
    except ValueError as error:  # the shapes differ
        raise _NotEqualError(old.name) from error
    if hasattr(new, "finalize_state"):
        new.finalize_state()
