"""Functions of `tf.nn` and `tf.image`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from kerve.compiler.lowering import randomness
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.operators import plus
from kerve.compiler.lowering.ops import resampling
from kerve.compiler.lowering.ops.patches import windows
from kerve.compiler.lowering.tensorflow_functions.arguments import Function, as_shape, known_axes, known_value

__all__ = ["FUNCTIONS"]


def _per_channel(value: Any, numbers: Any, data_format: str | None) -> Any:
    """Reshape per-channel numbers so that they broadcast over the axes after the channels."""
    behind = len(value.shape) - 2 if (data_format or "").startswith("NC") else 0
    return ops.reshape(numbers, [-1, *[1] * behind])


def _l2_normalize(g: Lowering, x: Any, axis: Any = None, epsilon: float = 1e-12, **_: Any) -> Any:
    squares = ops.sum(ops.square(x), axis=known_axes(axis), keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, epsilon))


def _moments(g: Lowering, x: Any, axes: Any, shift: Any = None, keepdims: bool = False) -> Any:
    return ops.moments(x, known_axes(axes), keepdims=keepdims)


def _batch_normalization(
    g: Lowering, x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: float
) -> Any:
    factor = ops.rsqrt(ops.add(variance, variance_epsilon))
    factor = factor if scale is None else ops.multiply(factor, scale)
    result = ops.multiply(ops.subtract(x, mean), factor)
    return result if offset is None else plus(result, offset)


def _convolution(g: Lowering, input: Any, filters: Any, strides: Any, padding: Any, **rest: Any) -> Any:
    layout = rest.get("data_format") or "NHWC"
    if not isinstance(padding, str) or not layout.endswith("C"):
        return NotImplemented
    count = len(filters.shape) - 2
    return ops.conv(
        input,
        filters,
        strides=_spatial(strides, count),
        padding=padding.lower(),
        data_format="channels_last",
        dilation_rate=_spatial(rest.get("dilations") or 1, count),
    )


def _pooling(function: Function) -> Function:
    def pool(g: Lowering, input: Any, ksize: Any, strides: Any, padding: Any, **rest: Any) -> Any:
        layout = rest.get("data_format") or "NHWC"
        if not isinstance(padding, str) or not layout.endswith("C"):
            return NotImplemented
        count = len(input.shape) - 2
        window, steps = _spatial(ksize, count), _spatial(strides, count)
        return function(input, window, steps, padding=padding.lower(), data_format="channels_last")

    return pool


def _spatial(sizes: Any, count: int) -> list[int]:
    """Return one size per spatial axis, from a single size, one per spatial axis, or one per axis."""
    known = known_value(sizes)
    listed: Sequence[int] = [known] if isinstance(known, int) else known
    if len(listed) == 1:
        return [listed[0]] * count
    return list(listed) if len(listed) == count else list(listed[1:-1])


def _extract_patches(g: Lowering, images: Any, sizes: Any, strides: Any, rates: Any, padding: str) -> Any:
    size, step, rate = (known_value(each)[1:-1] for each in (sizes, strides, rates))
    found = windows(images, size, step, rate, padding.lower())
    return NotImplemented if found is None else found


def _resize(
    g: Lowering, images: Any, size: Any, method: str = "bilinear", preserve_aspect_ratio: bool = False,
    antialias: bool = False,
) -> Any:  # fmt: skip
    if preserve_aspect_ratio or method not in (
        "area",
        "bicubic",
        "bilinear",
        "lanczos3",
        "lanczos5",
        "nearest",
    ):
        return NotImplemented
    images = images if method == "nearest" else ops.cast(images, "float32")
    return resampling.resize(g, images, as_shape(size), method, antialias, data_format="channels_last")


def _dropout(g: Lowering, x: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    return randomness.SAMPLERS["dropout"](g, x, rate, noise_shape)


FUNCTIONS: dict[str, Function] = {
    "image.extract_patches": _extract_patches,
    "image.resize": _resize,
    "nn.avg_pool": _pooling(ops.average_pool),
    "nn.avg_pool1d": _pooling(ops.average_pool),
    "nn.avg_pool2d": _pooling(ops.average_pool),
    "nn.batch_normalization": _batch_normalization,
    "nn.bias_add": lambda g, value, bias, data_format=None: ops.add(
        value, _per_channel(value, bias, data_format)
    ),
    "nn.conv1d": lambda g, input, filters, stride, padding, data_format="NWC", **rest: _convolution(
        g, input, filters, stride, padding, data_format=data_format, **rest
    ),
    "nn.conv2d": _convolution,
    "nn.conv3d": _convolution,
    "nn.dropout": _dropout,
    "nn.elu": lambda g, features: ops.elu(features),
    "nn.embedding_lookup": lambda g, params, ids, max_norm=None: (
        ops.take(params, ids, axis=0) if max_norm is None else NotImplemented
    ),
    "nn.gelu": lambda g, features, approximate=False: ops.gelu(features, approximate),
    "nn.l2_normalize": _l2_normalize,
    "nn.leaky_relu": lambda g, features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.log_softmax": lambda g, logits, axis=None: ops.log_softmax(logits, -1 if axis is None else axis),
    "nn.max_pool": _pooling(ops.max_pool),
    "nn.max_pool1d": _pooling(ops.max_pool),
    "nn.max_pool2d": _pooling(ops.max_pool),
    "nn.moments": _moments,
    "nn.relu": lambda g, features: ops.relu(features),
    "nn.relu6": lambda g, features: ops.relu6(features),
    "nn.selu": lambda g, features: ops.selu(features),
    "nn.silu": lambda g, features, beta=1.0: (
        features * ops.sigmoid(features * beta) if beta != 1 else ops.silu(features)
    ),
    "nn.softmax": lambda g, logits, axis=None: ops.softmax(logits, -1 if axis is None else axis),
    "nn.softplus": lambda g, features: ops.softplus(features),
    "nn.softsign": lambda g, features: ops.softsign(features),
}
