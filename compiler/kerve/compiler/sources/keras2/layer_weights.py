"""Conversion of weights of Keras 1 and of models trained with Theano to the layouts of current layers.

tf_keras converts the order of the axes and gates of Keras 1, but does so twice within a TimeDistributed. It
does not support Theano, whose convolutions flip their kernels, unlike TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import tf_keras
from numpy.typing import NDArray
from tf_keras.src.saving.legacy import hdf5_format

from kerve.compiler.sources.keras2 import explicit_padding, keras1, keras1_graphs, weight_order

__all__ = ["Writer", "load", "writer_of"]

_Values = list[NDArray[Any]]

#: The number of a layer's weights that are kernels of convolutions.
_KERNELS = {
    "Conv1D": 1,
    "Conv2D": 1,
    "Conv2DTranspose": 1,
    "Conv3D": 1,
    "Conv3DTranspose": 1,
    "ConvLSTM2D": 2,
}


@dataclass(frozen=True)
class Writer:
    """The properties of the writer that determine the layout of weights."""

    is_keras_1: bool
    is_theano: bool

    @property
    def is_old(self) -> bool:
        """Whether tf_keras alone cannot load its weights."""
        return self.is_keras_1 or self.is_theano


def writer_of(group: h5py.Group, keras_version: str) -> Writer:
    """Determine the writer of weights; for Keras 1, variable names with ":" identify TensorFlow."""
    is_keras_1 = keras1.is_writer(keras_version)
    backend = group.attrs.get("backend", b"")
    if is_keras_1 and not backend:
        names = [name for layer in group.values() for name in weight_order.names(layer, "weight_names")]
        return Writer(is_keras_1, is_theano=bool(names) and not any(":" in name for name in names))
    return Writer(is_keras_1, (backend.decode() if isinstance(backend, bytes) else backend) == "theano")


def load(model: tf_keras.Model, group: h5py.Group, writer: Writer) -> None:
    """Load weights into a model; raises `ValueError` if they do not fit."""
    if writer.is_old:
        _load_old(model, group, writer)
    else:
        weight_order.load(model, group)


def _load_old(model: tf_keras.Model, group: h5py.Group, writer: Writer) -> None:
    """Load by layer names, or by order if the names differ."""
    saved = {name: values for name, values in _saved(group) if values}
    layers = {layer.name: layer for layer in _flattened(model) if layer.weights}
    if len(layers) != len(saved):
        raise ValueError(f"layer count mismatch: {len(layers)} with weights, {len(saved)} in the file")
    if set(layers) != set(saved):
        layers = dict(zip(saved, layers.values(), strict=True))
    for name, values in saved.items():
        _give(layers[name], values, writer)


def _flattened(model: tf_keras.Model) -> Iterator[Any]:
    """Yield the layers with their own entries in the file: of nested models, only those of branches."""
    for layer in model.layers:
        if layer.name.startswith(keras1_graphs.BRANCH) and isinstance(layer, tf_keras.Model):
            yield from _flattened(layer)
        else:
            yield layer


def _saved(group: h5py.Group) -> Iterator[tuple[str, _Values]]:
    for name in weight_order.names(group, "layer_names"):
        yield (
            name,
            [np.asarray(group[name][each]) for each in weight_order.names(group[name], "weight_names")],
        )


def _give(layer: Any, values: _Values, writer: Writer) -> None:
    if isinstance(layer, tf_keras.layers.Bidirectional):
        middle = len(values) // 2
        _give(layer.forward_layer, values[:middle], writer)
        _give(layer.backward_layer, values[middle:], writer)
    elif isinstance(layer, tf_keras.layers.TimeDistributed | explicit_padding.Padded):
        _give(layer.layer, values, writer)
    elif isinstance(layer, tf_keras.Model):
        _give_parts(layer, values, writer)
    else:
        _set(layer, _converted(layer, values, writer))


def _give_parts(model: tf_keras.Model, values: _Values, writer: Writer) -> None:
    """Load a nested model's weights, of which all trainable ones precede all others."""
    trained, others = values[: len(model.trainable_weights)], values[len(model.trainable_weights) :]
    for layer in model.layers:
        first, second = len(layer.trainable_weights), len(layer.non_trainable_weights)
        if layer.weights:
            _give(layer, trained[:first] + others[:second], writer)
        trained, others = trained[first:], others[second:]


def _converted(layer: Any, values: _Values, writer: Writer) -> _Values:
    version = keras1.VERSION_OF_WEIGHTS if writer.is_keras_1 else None
    if isinstance(layer, tf_keras.layers.ConvLSTM2D) and writer.is_keras_1:
        today = _joined_gates(layer, values)
    else:
        today = hdf5_format.preprocess_weights_for_loading(layer, values, version)
    if not writer.is_theano:
        return list(today)
    kernels = _KERNELS.get(type(layer).__name__, 0)
    return [_turned(value) if index < kernels else value for index, value in enumerate(today)]


def _joined_gates(layer: Any, values: _Values) -> _Values:
    """Concatenate the weights that Keras 1 has for each gate (i, c, f, o), in the order (i, f, c, o).

    tf_keras does this too, but along the wrong axis for channels_first.
    """
    if layer.data_format == "channels_first":
        values = [value.transpose(2, 3, 1, 0) if value.ndim == 4 else value for value in values]
    return [np.concatenate([values[gate + kind] for gate in (0, 6, 3, 9)], axis=-1) for kind in range(3)]


def _turned(kernel: NDArray[Any]) -> NDArray[Any]:
    """Flip a kernel along its spatial dimensions, which precede the two of channels."""
    return np.flip(kernel, tuple(range(kernel.ndim - 2)))


def _set(layer: Any, values: Sequence[NDArray[Any]]) -> None:
    weights = [*layer.trainable_weights, *layer.non_trainable_weights]
    shapes = [tuple(weight.shape) for weight in weights]
    if shapes != [value.shape for value in values]:
        raise ValueError(
            f"weight count or shape mismatch: layer '{layer.name}' expects {shapes}, "
            f"the file has {[value.shape for value in values]}"
        )
    tf_keras.backend.batch_set_value(list(zip(weights, values, strict=True)))
