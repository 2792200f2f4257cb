"""Layers that old versions computed differently from the last Keras 2, or that it no longer has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

__all__ = [
    "LEGACY_LAYERS",
    "PeepholeLSTMCell",
    "SpectralNormalization",
    "ambiguities",
    "class_name",
    "legacy_behavior",
]

#: Standalone Keras, up to its last version 2.3.1, and Keras 2.1 within TensorFlow: "2.2.4" is standalone,
#: "2.2.4-tf" and "2.4.0" are within TensorFlow.
_EARLY = re.compile(r"1\..*|2\.[01]\..*|2\.[23]\.\d+")


class _UnsavedArgument(NamedTuple):
    """An argument of a class that some versions do not save."""

    #: The argument, what the layer is taken for without it, and what it would be with it.
    argument: str
    otherwise: str
    what: str
    #: The Keras versions in question, the versions of TensorFlow, and the function that does save it.
    versions: re.Pattern[str]
    writers: str
    instead: str


#: The Keras version of TensorFlow 1.13 to 2.1, of which 1.13 and 1.14 do not save the argument.
_OF_1_13 = (re.compile(r"2\.2\.4-tf"), "1.13 and 1.14", "tf.saved_model.simple_save")

_OF_2_10 = (re.compile(r"2\.[12]\d\..*"), "2.10 and later", "tf.saved_model.save")

_UNSAVED_ARGUMENTS = {
    "AdditiveAttention": (
        _UnsavedArgument("use_scale", "one with a scale", "an AdditiveAttention has no scale", *_OF_1_13),
        _UnsavedArgument(
            "causal", "one that sees all steps", "an AdditiveAttention is made with causal=True", *_OF_2_10
        ),
    ),
    "Attention": (
        _UnsavedArgument("use_scale", "one without a scale", "an Attention has a scale", *_OF_1_13),
        _UnsavedArgument(
            "causal", "one that sees all steps", "an Attention is made with causal=True", *_OF_2_10
        ),
    ),
    "UpSampling2D": (
        _UnsavedArgument("interpolation", "the nearest neighbour", "an UpSampling2D is bilinear", *_OF_1_13),
    ),
}


class CornerUpSampling2D(tf_keras.layers.UpSampling2D):
    """Bilinear upsampling with samples at the corners of pixels, now at their centers."""

    def call(self, inputs: Any) -> Any:
        """Resize by the layer's factors."""
        is_nchw = self.data_format == "channels_first"
        images = tf.transpose(inputs, (0, 2, 3, 1)) if is_nchw else inputs
        known, actual = images.shape[1:3], tf.unstack(tf.shape(images)[1:3])
        size = [(known[axis] or actual[axis]) * factor for axis, factor in enumerate(self.size)]
        resized = tf.compat.v1.image.resize_bilinear(images, size)
        return tf.transpose(resized, (0, 3, 1, 2)) if is_nchw else resized


class SpectralNormalization(tf_keras.layers.SpectralNormalization):
    """The layer of Keras 2; that of tf_keras uses a class of `tf.keras`, which is now Keras 3."""

    def build(self, input_shape: Any) -> None:
        """Create the vector used in training; the saved kernel is already normalized."""
        tf_keras.layers.Wrapper.build(self, input_shape)
        self.kernel = getattr(self.layer, "kernel", None)
        if self.kernel is None:
            self.kernel = self.layer.embeddings
        self.vector_u = self.add_weight(
            name="vector_u", shape=(1, self.kernel.shape[-1]), dtype=self.kernel.dtype, trainable=False
        )


class PeepholeLSTMCell(tf_keras.layers.LSTMCell):
    """An LSTM cell whose gates also depend on the cell state; TensorFlow up to 2.8 had it."""

    def build(self, input_shape: Any) -> None:
        """Create the weights of an LSTM cell, and the peephole weights of each gate."""
        super().build(input_shape)
        (
            self.input_gate_peephole_weights,
            self.forget_gate_peephole_weights,
            self.output_gate_peephole_weights,
        ) = (
            self.add_weight(name=f"{gate}_gate_peephole_weights", shape=(self.units,))
            for gate in ("input", "forget", "output")
        )

    def _compute_carry_and_output(self, x: Any, h_tm1: Any, c_tm1: Any) -> Any:
        kernels = tf.split(self.recurrent_kernel, 4, axis=1)
        gates = [own + h @ kernel for own, h, kernel in zip(x, h_tm1, kernels, strict=True)]
        return self._compute_carry_and_output_fused(gates, c_tm1)

    def _compute_carry_and_output_fused(self, z: Any, c_tm1: Any) -> Any:
        update = self.recurrent_activation(z[0] + self.input_gate_peephole_weights * c_tm1)
        keep = self.recurrent_activation(z[1] + self.forget_gate_peephole_weights * c_tm1)
        c = keep * c_tm1 + update * self.activation(z[2])
        return c, self.recurrent_activation(z[3] + self.output_gate_peephole_weights * c)


def legacy_behavior(model: tf_keras.Model, keras_version: str) -> None:
    """Restore the behavior of a model in the version that saved it.

    A Bidirectional repeated its last result at masked steps, as other RNNs do; now it returns zeros there.
    """
    if not _EARLY.fullmatch(keras_version):
        return
    for layer in model._flatten_layers():
        if isinstance(layer, tf_keras.layers.Bidirectional):
            layer.forward_layer.zero_output_for_mask = False
            layer.backward_layer.zero_output_for_mask = False


LEGACY_LAYERS = {"CornerUpSampling2D": CornerUpSampling2D}


def class_name(name: str, config: dict[str, Any], keras_version: str) -> str:
    """Return the current class that computes what a layer of class `name` computed in the given version."""
    is_bilinear = name == "UpSampling2D" and config.get("interpolation") == "bilinear"
    return "CornerUpSampling2D" if is_bilinear and _EARLY.fullmatch(keras_version) else name


def ambiguities(config: Any, keras_version: str) -> list[str]:
    """Return warnings on arguments that a configuration lacks though they may matter."""
    return [
        f"TensorFlow {unsaved.writers} do not save that {unsaved.what}, so '{name}' is loaded as "
        f"{unsaved.otherwise}, as Keras does; compare with the original model's outputs, or compile the "
        f"SavedModel that {unsaved.instead} writes"
        for name, unsaved in _forgotten(config)
        if unsaved.versions.fullmatch(keras_version)
    ]


def _forgotten(node: Any) -> Iterator[tuple[str, _UnsavedArgument]]:
    if isinstance(node, list):
        for item in node:
            yield from _forgotten(item)
    if not isinstance(node, dict):
        return
    inner = node.get("config")
    if isinstance(inner, dict):
        for unsaved in _UNSAVED_ARGUMENTS.get(str(node.get("class_name")), ()):
            if unsaved.argument not in inner:
                yield str(inner.get("name")), unsaved
    for value in node.values():
        yield from _forgotten(value)
