"""Fourier transforms. Keras represents complex numbers as pairs of tensors, ONNX by a last axis of two."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from keras import ops
from numpy.typing import NDArray

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, rank, reshape, split_evenly
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

_Pair = tuple[ir.Value, ir.Value]

_AXIS_AS_INPUT = 20  # the opset in which the axis of DFT became an input


def _dft(g: Lowering, x: ir.Value, axis: int, **attributes: int) -> ir.Value:
    """Transform `x`, whose last axis holds one (real) or two (complex) numbers, along another axis."""
    axis %= rank(x)
    if g.opset < _AXIS_AS_INPUT:
        return g.op.DFT(x, axis=axis, **attributes)
    return g.op.DFT(x, None, g.constant(np.int64(axis), "axis"), **attributes)


def _complex(g: Lowering, pair: Any) -> ir.Value:
    return g.op.Concat(*(g.op.Unsqueeze(part, [rank(part)]) for part in pair), axis=-1)


def _pair(g: Lowering, x: ir.Value) -> _Pair:
    real, imaginary = split_evenly(g, x, 2, -1)
    axis = [rank(x) - 1]
    return g.op.Squeeze(real, axis), g.op.Squeeze(imaginary, axis)


@HANDLERS.register("math.FFT")
def fft(g: Lowering, _: Any, x: Any) -> _Pair:
    """Transform along the last axis."""
    return _pair(g, _dft(g, _complex(g, x), -2))


@HANDLERS.register("math.FFT2")
def fft2(g: Lowering, _: Any, x: Any) -> _Pair:
    """Transform along the last two axes."""
    return _pair(g, _dft(g, _dft(g, _complex(g, x), -2), -3))


@HANDLERS.register("math.IFFT2")
def ifft2(g: Lowering, _: Any, x: Any) -> _Pair:
    """Inverse transform along the last two axes."""
    return _pair(g, _dft(g, _dft(g, _complex(g, x), -2, inverse=1), -3, inverse=1))


@HANDLERS.register("math.RFFT")
def rfft(g: Lowering, operation: Any, x: ir.Value) -> _Pair:
    """The first half of the transform of real numbers, truncated or padded to a length."""
    if operation.fft_length is not None:
        x = _fit(g, x, int(operation.fft_length))
    real, imaginary = _pair(g, _dft(g, g.op.Unsqueeze(x, [rank(x)]), -2, onesided=1))
    assert x.shape is not None
    return real, _real_at_the_ends(g, imaginary, x.shape[-1])


def _real_at_the_ends(g: Lowering, imaginary: ir.Value, length: Any) -> ir.Value:
    """Set the imaginary part of the mean and, for even lengths, of the middle frequency to exact zero.

    Rounding errors there would decide whether their angles are pi or -pi.
    """
    if not isinstance(length, int) or length < 3:
        return imaginary
    behind = 1 - length % 2
    within = g.op.Slice(imaginary, [1], [length // 2 + 1 - behind], [rank(imaginary) - 1])
    return g.op.Pad(within, [0] * (rank(imaginary) - 1) + [1] + [0] * (rank(imaginary) - 1) + [behind])


def _fit(g: Lowering, x: ir.Value, length: int) -> ir.Value:
    """Truncate the last axis, or pad it with zeros."""
    assert x.shape is not None
    size = x.shape[-1]
    if not isinstance(size, int) or size < length:
        margins = [0] * (2 * rank(x) - 1) + [length - size if isinstance(size, int) else length]
        x = g.op.Pad(x, margins)
    return x if size == length else g.op.Slice(x, [0], [length], [rank(x) - 1])


@HANDLERS.register("math.IRFFT")
def irfft(g: Lowering, operation: Any, x: Any) -> ir.Value:
    """Inverse transform from the first half; the other half is its mirrored complex conjugate."""
    real, imaginary = x
    assert real.shape is not None
    half = real.shape[-1]
    length = operation.fft_length
    if length is None and not isinstance(half, int):
        raise g.refuse("the length of an `irfft` is not known", "give `fft_length`")
    length = int(length) if length is not None else 2 * (half - 1)
    real, imaginary = (_fit(g, part, length // 2 + 1) for part in (real, imaginary))
    mirrored = np.arange((length - 1) // 2, 0, -1)
    places = g.constant(np.concatenate([np.arange(length // 2 + 1), mirrored]).astype(np.int64), "places")
    sign = np.concatenate([np.ones(length // 2 + 1), -np.ones(len(mirrored))])
    whole = g.op.Gather(real, places, axis=-1)
    turned = g.op.Mul(g.op.Gather(imaginary, places, axis=-1), operand(g, sign, g.output_dtype))
    return _pair(g, _dft(g, _complex(g, (whole, turned)), -2, inverse=1))[0]


def _window(operation: Any) -> NDArray[Any] | None:
    """Return the window of Keras, padded to the length of the transform."""
    length, transform = operation.sequence_length, operation.fft_length
    if operation.window is None:
        return None
    if isinstance(operation.window, str):
        bell = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46)}[operation.window]
        window = bell[0] - bell[1] * np.cos(2 * np.pi * np.arange(length) / length)
    else:
        window = np.asarray(ops.convert_to_numpy(operation.window))
    left = (transform - length) // 2
    return np.pad(window, (left, transform - length - left))


@HANDLERS.register("math.STFT")
def stft(g: Lowering, operation: Any, x: ir.Value) -> _Pair:
    """Transforms of sliding windows along the last axis."""
    length = int(operation.fft_length)
    if operation.center:
        margin = [0] * (rank(x) - 1) + [length // 2]
        x = g.op.Pad(x, margin * 2, mode="reflect")
    window = _window(operation)
    assert x.dtype is not None
    bell = None if window is None else operand(g, window, x.dtype)
    outer = [g.dim(x, axis) for axis in range(rank(x) - 1)]
    flat = g.op.Unsqueeze(g.op.Reshape(x, [-1, 0] if rank(x) == 2 else g.shape([-1, g.dim(x, -1)])), [2])
    spectrum = g.op.STFT(
        flat,
        g.constant(np.int64(operation.sequence_stride), "stride"),
        bell,
        g.constant(np.int64(length), "length"),
        onesided=1,
    )
    frames = g.output_shape[-2]
    spectrum.dtype, spectrum.shape = x.dtype, ir.Shape([None, frames, length // 2 + 1, 2])
    real, imaginary = _pair(g, spectrum)
    if rank(x) == 2:
        return real, imaginary
    dims = [*outer, g.dim(real, 1), length // 2 + 1]
    return reshape(g, real, dims), reshape(g, imaginary, dims)


@HANDLERS.register("math.ISTFT")
def istft(g: Lowering, operation: Any, x: Any) -> ir.Value:
    """Inverse transforms, windowed and overlap-added by a transposed convolution with an identity matrix."""
    length, stride = int(operation.fft_length), int(operation.sequence_stride)
    halves = [g.op.Reshape(part, g.shape([-1, g.dim(part, -2), g.dim(part, -1)])) for part in x]
    mirrored = np.arange((length - 1) // 2, 0, -1)
    places = g.constant(np.concatenate([np.arange(length // 2 + 1), mirrored]).astype(np.int64), "places")
    sign = np.concatenate([np.ones(length // 2 + 1), -np.ones(len(mirrored))])
    dtype = g.output_dtype
    whole = g.op.Gather(halves[0], places, axis=-1)
    turned = g.op.Mul(g.op.Gather(halves[1], places, axis=-1), operand(g, sign, dtype))
    frames = _pair(g, _dft(g, _complex(g, (whole, turned)), -2, inverse=1))[0]
    kernel = np.eye(length) * _synthesis(_window(operation), length, stride)[:, None]
    signal = g.op.ConvTranspose(
        g.op.Transpose(frames, perm=[0, 2, 1]),
        operand(g, kernel[:, None, :], dtype),
        strides=[stride],
        kernel_shape=[length],
    )
    start = length // 2 if operation.center else 0
    if operation.length is not None:
        stop = start + int(operation.length)
    else:
        stop = -(length // 2) if operation.center and length > 1 else np.iinfo(np.int64).max
    signal = g.op.Slice(signal, [start], [stop], [2])
    dims = [g.dim(x[0], axis) for axis in range(rank(x[0]) - 2)]
    return reshape(g, g.op.Squeeze(signal, [1]), [*dims, g.dim(signal, 2)])


def _synthesis(window: NDArray[Any] | None, length: int, stride: int) -> NDArray[Any]:
    """Return the synthesis window: overlapping products with the analysis window add up to one."""
    if window is None:
        return np.ones(length)
    steps = -(-length // stride)
    energy = np.pad(window**2, (0, steps * stride - length)).reshape(steps, stride).sum(0)
    energy = np.tile(energy, steps)[:length]
    return np.divide(window, energy, out=np.zeros(length), where=energy != 0)  # no frame covers these


def _extract_sequences(operation: Any, x: Any) -> Any:
    length, stride = operation.sequence_length, operation.sequence_stride
    total = ops.shape(x)[-1]
    count = 1 + (total - length) // stride
    starts = ops.expand_dims(ops.arange(count, dtype="int32") * stride, 1)
    return ops.take(x, starts + np.arange(length, dtype="int32"), axis=-1)


HANDLERS.add("math.ExtractSequences", composite(_extract_sequences))
