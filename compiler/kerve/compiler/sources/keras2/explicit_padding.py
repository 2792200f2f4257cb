"""Convolutions and pooling of Keras on Theano, and `Deconvolution2D` of Keras 1, which pad differently.

For "same", TensorFlow splits the padding between both sides, depending on the size of the inputs. Theano's
depends on the window's size: a convolution begins half a kernel before its inputs, a pooling its window's
size less one (less two if the size is odd). They differ if strides are not 1 or sizes are even. The layers
here wrap a layer of tf_keras with padding "valid", pad its inputs, and crop its outputs as Keras did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from kerve.compiler.errors import ConversionError

__all__ = ["PADDED_LAYERS", "Padded", "padded"]

_Fields = dict[str, Any]


class Padded(tf_keras.layers.Wrapper):
    """Base class of such layers; `pads` is the padding in the configuration."""

    def __init__(self, layer: Any, pads: str, **config: Any) -> None:
        super().__init__(layer, **config)
        self._pads = pads

    def build(self, input_shape: Any) -> None:  # noqa: ARG002
        """Defer building to the first call, since the wrapped layer has other inputs."""
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of what `call` returns."""
        return tf_keras.layers.Layer.compute_output_shape(self, input_shape)

    def _axes(self, sizes: Sequence[int]) -> list[int]:
        """Return the spatial axes."""
        first = 2 if self.layer.data_format == "channels_first" else 1
        return list(range(first, first + len(sizes)))

    def _kept(self, outputs: Any, inputs: Any, axes: Sequence[int]) -> Any:
        """Keep one output for each stride that begins within the inputs."""
        strides = self.layer.strides
        counts = [-(-_size(inputs, axis) // stride) for axis, stride in zip(axes, strides, strict=True)]
        return _part(outputs, axes, [0] * len(axes), counts)


class PaddedConvolution(Padded):
    """A convolution on Theano."""

    def call(self, inputs: Any) -> Any:
        """Convolve."""
        layer = self.layer
        axes = self._axes(layer.kernel_size)
        sizes = [
            (size - 1) * rate + 1 for size, rate in zip(layer.kernel_size, layer.dilation_rate, strict=True)
        ]
        is_full = self._pads == "full"
        around = [(size - 1,) * 2 if is_full else (size // 2,) * 2 for size in sizes]
        outputs = layer(_pad(inputs, axes, around))
        # Keras did not crop the results of separable convolutions.
        keeps_all = is_full or type(layer).__name__.startswith("Separable")
        return outputs if keeps_all else self._kept(outputs, inputs, axes)


class PaddedPooling(Padded):
    """A pooling on Theano, whose averages exclude the padding."""

    def call(self, inputs: Any) -> Any:
        """Pool."""
        axes = self._axes(self.layer.pool_size)
        around = [
            (size - 2 if size > 2 and size % 2 else size - 1, size - 1) for size in self.layer.pool_size
        ]
        if type(self.layer).__name__.startswith("Max"):
            outputs = self.layer(_pad(inputs, axes, around, inputs.dtype.min))
        else:
            outputs = self.layer(_pad(inputs, axes, around))
            outputs /= self.layer(_pad(tf.ones_like(inputs), axes, around))
        return self._kept(outputs, inputs, axes)


class PaddedTransposed(Padded):
    """A transposed convolution on Theano, or one of Keras 1, with the `sizes` of its outputs."""

    def __init__(
        self, layer: Any, pads: str, is_theano: bool, sizes: Sequence[int] | None = None, **config: Any
    ) -> None:
        super().__init__(layer, pads, **config)
        self._is_theano, self._sizes = is_theano, sizes

    def call(self, inputs: Any) -> Any:
        """Return a part of the full output."""
        axes = self._axes(self.layer.kernel_size)
        # One more row of zeros makes the output long enough.
        outputs = self.layer(_pad(inputs, axes, [(0, 1)] * len(axes)))
        parts = [self._extent(_size(inputs, axis), index) for index, axis in enumerate(axes)]
        return _part(outputs, axes, *zip(*parts, strict=True))

    def _extent(self, rows: Any, index: int) -> tuple[Any, Any]:
        """Return the beginning and the length of the part along an axis."""
        kernel, stride = self.layer.kernel_size[index], self.layer.strides[index]
        count = rows * stride if self._sizes is None else self._sizes[index]
        if self._pads == "valid":
            return 0, count
        if not self._is_theano:
            return max((rows - 1) * stride + kernel - count, 0) // 2, count
        # For even kernels Keras cropped the result as if it were a convolution.
        return kernel // 2, -(-rows // stride) if kernel % 2 == 0 else count


PADDED_LAYERS: dict[str, type[Padded]] = {
    each.__name__: each for each in (PaddedConvolution, PaddedPooling, PaddedTransposed)
}

_ON_THEANO = {
    "AveragePooling": "PaddedPooling",
    "Conv": "PaddedConvolution",
    "DepthwiseConv": "PaddedConvolution",
    "MaxPooling": "PaddedPooling",
    "SeparableConv": "PaddedConvolution",
}


def padded(name: str, config: _Fields, is_theano: bool) -> tuple[str, _Fields]:
    """Return the class and the configuration of a layer of Keras 2, wrapped by one of these where needed.

    `output_shape` in a configuration is that of a `Deconvolution2D`. Raises `ConversionError` for layers that
    computed something else on Theano.
    """
    config = dict(config)
    shape = config.pop("output_shape", None) if name == "Conv2DTranspose" else None
    pads = config.get("padding", "valid")
    if shape is not None:
        sizes = shape[2:] if config.get("data_format") == "channels_first" else shape[1:-1]
        return _within("PaddedTransposed", name, config, is_theano=is_theano, sizes=sizes)
    if not is_theano:
        return name, config
    _refuse(name, config)
    if pads == "same" and name in ("Conv2DTranspose", "Conv3DTranspose"):
        return _within("PaddedTransposed", name, config, is_theano=True)
    wrapper = _ON_THEANO.get(name[:-2]) if name.endswith("D") else None
    return (
        (name, config) if wrapper is None or pads not in ("same", "full") else _within(wrapper, name, config)
    )


def _within(wrapper: str, name: str, config: _Fields, **others: Any) -> tuple[str, _Fields]:
    outer = {key: config.pop(key) for key in ("batch_input_shape",) if key in config}
    inner = {"class_name": name, "config": {**config, "padding": "valid"}}
    own = {"name": config.get("name"), "layer": inner, "pads": config.get("padding", "valid")}
    return wrapper, {**outer, **own, **others}


def _refuse(name: str, config: _Fields) -> None:
    sizes = config.get("kernel_size", ())
    is_even = any(size % 2 == 0 for size in (sizes if isinstance(sizes, list | tuple) else [sizes]))
    is_strided = config.get("strides", 1) not in (1, [1, 1])
    if name == "ConvLSTM2D" and (is_even or (is_strided and config.get("padding") == "same")):
        what = "a ConvLSTM2D with even kernels or strides"
    elif name == "UpSampling2D" and config.get("interpolation") == "bilinear":
        what = "a bilinear UpSampling2D"
    else:
        return
    raise ConversionError(
        f"layer '{config.get('name')}' is {what}, which Theano computed differently; train the model again "
        "with TensorFlow"
    )


def _size(tensor: Any, axis: int) -> Any:
    return tensor.shape[axis] or tf.shape(tensor)[axis]


def _pad(tensor: Any, axes: Sequence[int], around: Sequence[tuple[int, int]], value: Any = 0) -> Any:
    by_axis = dict(zip(axes, around, strict=True))
    widths = [by_axis.get(axis, (0, 0)) for axis in range(len(tensor.shape))]
    return tf.pad(tensor, widths, constant_values=value)


def _part(tensor: Any, axes: Sequence[int], begins: Sequence[Any], counts: Sequence[Any]) -> Any:
    slices = [slice(None)] * len(tensor.shape)
    for axis, begin, count in zip(axes, begins, counts, strict=True):
        slices[axis] = slice(begin, begin + count)
    return tensor[tuple(slices)]
