"""What old versions computed otherwise than the last Keras 2, under the same names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras

__all__ = ["LEGACY_LAYERS", "as_written", "class_name", "doubts"]

#: Keras by itself, up to its last version 2.3.1, and Keras 2.1 within TensorFlow: "2.2.4" is by itself, and
#: "2.2.4-tf" and "2.4.0" are within TensorFlow.
_EARLY = re.compile(r"1\..*|2\.[01]\..*|2\.[23]\.\d+")


#: What TensorFlow 1.13 to 2.1 call their Keras; the first two forget to write arguments down.
_FORGETFUL = "2.2.4-tf"

#: For a class the argument, what it may have said, and what the layer is without it.
_FORGOTTEN = {
    "AdditiveAttention": ("use_scale", "an AdditiveAttention has no scale", "one with a scale"),
    "Attention": ("use_scale", "an Attention has a scale", "one without a scale"),
    "UpSampling2D": ("interpolation", "an UpSampling2D is bilinear", "the nearest neighbour"),
}


class CornerUpSampling2D(tf_keras.layers.UpSampling2D):
    """Bilinear upsampling with samples in the corners of pixels, where it is in their centers today."""

    def call(self, inputs: Any) -> Any:
        """Resize by the layer's factors."""
        is_nchw = self.data_format == "channels_first"
        images = tf.transpose(inputs, (0, 2, 3, 1)) if is_nchw else inputs
        known, actual = images.shape[1:3], tf.unstack(tf.shape(images)[1:3])
        size = [(known[axis] or actual[axis]) * factor for axis, factor in enumerate(self.size)]
        resized = tf.compat.v1.image.resize_bilinear(images, size)
        return tf.transpose(resized, (0, 3, 1, 2)) if is_nchw else resized


def as_written(model: tf_keras.Model, keras_version: str) -> None:
    """Let a model compute what it did in the version that wrote it.

    A Bidirectional repeated its last result at steps that are masked, as other RNNs do, where it gives zeros
    today.
    """
    if not _EARLY.fullmatch(keras_version):
        return
    for layer in model._flatten_layers():
        if isinstance(layer, tf_keras.layers.Bidirectional):
            layer.forward_layer.zero_output_for_mask = False
            layer.backward_layer.zero_output_for_mask = False


LEGACY_LAYERS = {"CornerUpSampling2D": CornerUpSampling2D}


def class_name(name: str, config: dict[str, Any], keras_version: str) -> str:
    """Return the class that computes today what a layer of class `name` computed in the given version."""
    is_bilinear = name == "UpSampling2D" and config.get("interpolation") == "bilinear"
    return "CornerUpSampling2D" if is_bilinear and _EARLY.fullmatch(keras_version) else name


def doubts(config: Any, keras_version: str) -> list[str]:
    """Return what a configuration does not say though it may matter, in sentences."""
    if keras_version != _FORGETFUL:
        return []
    return [
        f"TensorFlow 1.13 and 1.14 do not write down that {what}, so '{name}' is taken for {otherwise}, as "
        "Keras reads it; compare with the model's own answers, or compile the SavedModel that "
        "tf.saved_model.simple_save writes"
        for name, (_, what, otherwise) in _forgotten(config)
    ]


def _forgotten(node: Any) -> Iterator[tuple[str, tuple[str, str, str]]]:
    if isinstance(node, list):
        for item in node:
            yield from _forgotten(item)
    if not isinstance(node, dict):
        return
    inner, lost = node.get("config"), _FORGOTTEN.get(str(node.get("class_name")))
    if lost is not None and isinstance(inner, dict) and lost[0] not in inner:
        yield str(inner.get("name")), lost
    for value in node.values():
        yield from _forgotten(value)
