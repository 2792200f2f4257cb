"""The convolutions of `keras.ops.nn`, and the layouts of their kernels in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import (
    Windows,
    from_channels_first,
    padded,
    spatial_sizes,
    to_channels_first,
)

__all__ = [
    "HANDLERS",
    "conv_form",
    "convolve",
    "convolve_separably",
    "convolve_transposed",
    "depthwise_form",
    "transposed_padding",
]

HANDLERS = Handlers()


def conv_form(kernel: NDArray[Any]) -> NDArray[Any]:
    """Reorder [*sizes, a, b] to [b, a, *sizes]; a, b are in, out, or out, in if transposed."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def depthwise_form(kernel: NDArray[Any]) -> NDArray[Any]:
    """Reorder [*sizes, channels, multiplier] to [channels * multiplier, 1, *sizes]."""
    *sizes, channels, multiplier = kernel.shape
    return np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(channels * multiplier, 1, *sizes)


def convolve(
    g: Lowering,
    x: ir.Value,
    kernel: ir.Value,
    bias: ir.Value | None,
    windows: Windows,
    data_format: str,
) -> ir.Value:
    """Convolve; `kernel` is [out, in / groups, *sizes], from which the number of groups follows."""
    x = to_channels_first(g, x, data_format)
    return from_channels_first(g, _convolve(g, x, kernel, bias, windows), data_format)


def convolve_separably(
    g: Lowering,
    x: ir.Value,
    depthwise: ir.Value,
    pointwise: ir.Value,
    bias: ir.Value | None,
    windows: Windows,
    data_format: str,
) -> ir.Value:
    """Convolve each channel separately, then mix the channels."""
    x = _convolve(g, to_channels_first(g, x, data_format), depthwise, None, windows)
    points = Windows.of((1,) * len(windows.sizes), 1, "valid")
    return from_channels_first(g, _convolve(g, x, pointwise, bias, points), data_format)


def convolve_transposed(
    g: Lowering,
    x: ir.Value,
    kernel: ir.Value,
    bias: ir.Value | None,
    windows: Windows,
    output_padding: Any,
    data_format: str,
) -> ir.Value:
    """Apply a transposed convolution, the gradient of a convolution; `kernel` is [in, out, *sizes]."""
    pads, added = transposed_padding(windows, output_padding)
    y = g.op.ConvTranspose(
        to_channels_first(g, x, data_format),
        kernel,
        bias,
        kernel_shape=windows.sizes,
        strides=windows.strides,
        dilations=windows.dilations,
        pads=pads,
        output_padding=added,
    )
    return from_channels_first(g, y, data_format)


def transposed_padding(windows: Windows, output_padding: Any) -> tuple[list[int], list[int]]:
    """Return ONNX's `pads` and `output_padding` of a transposed convolution.

    Keras specifies the size of the output and TensorFlow crops the full result to it, the larger half at the
    end. The amount does not depend on the size of the input.
    """
    count = len(windows.sizes)
    wanted = (
        (output_padding,) * count
        if output_padding is None or isinstance(output_padding, int)
        else output_padding
    )
    crops = []
    for extent, stride, extra in zip(windows.extents, windows.strides, wanted, strict=True):
        if windows.padding == "valid":
            crops.append(min(0, extent - stride) if extra is None else -extra)
        else:
            crops.append(extent - stride if extra is None else extent - extent % 2 - extra)
    cropped = [max(crop, 0) for crop in crops]
    begins = [crop // 2 for crop in cropped]
    ends = [crop - begin for crop, begin in zip(cropped, begins, strict=True)]
    return begins + ends, [max(-crop, 0) for crop in crops]


@HANDLERS.register("nn.Conv")
def conv(g: Lowering, operation: Any, inputs: ir.Value, kernel: ir.Value) -> ir.Value:
    """Conv; the groups follow from the kernel's input channels."""
    kernel, windows = _operands(g, operation, kernel, conv_form)
    return convolve(g, inputs, kernel, None, windows, _data_format(operation))


@HANDLERS.register("nn.DepthwiseConv")
def depthwise_conv(g: Lowering, operation: Any, inputs: ir.Value, kernel: ir.Value) -> ir.Value:
    """Conv with one group per channel."""
    kernel, windows = _operands(g, operation, kernel, depthwise_form)
    return convolve(g, inputs, kernel, None, windows, _data_format(operation))


@HANDLERS.register("nn.SeparableConv")
def separable_conv(
    g: Lowering, operation: Any, inputs: ir.Value, depthwise_kernel: ir.Value, pointwise_kernel: ir.Value
) -> ir.Value:
    """A depthwise Conv and a pointwise one."""
    depthwise, windows = _operands(g, operation, depthwise_kernel, depthwise_form)
    pointwise = _reordered(g, pointwise_kernel, conv_form)
    return convolve_separably(g, inputs, depthwise, pointwise, None, windows, _data_format(operation))


@HANDLERS.register("nn.ConvTranspose")
def conv_transpose(g: Lowering, operation: Any, inputs: ir.Value, kernel: ir.Value) -> ir.Value:
    """ConvTranspose with the padding for TensorFlow's output size."""
    kernel, windows = _operands(g, operation, kernel, conv_form)
    return convolve_transposed(
        g, inputs, kernel, None, windows, operation.output_padding, _data_format(operation)
    )


def _convolve(
    g: Lowering, x: ir.Value, kernel: ir.Value, bias: ir.Value | None, windows: Windows
) -> ir.Value:
    """Add one Conv of a value in channels first."""
    channels, kernel_channels = static_shape(x)[1], static_shape(kernel)[1]
    groups = channels // kernel_channels if channels and kernel_channels else 1
    if windows.pads_in_graph(spatial_sizes(x)):
        x, windows = padded(g, x, windows), replace(windows, padding="valid")
    return g.op.Conv(x, kernel, bias, group=groups, **windows.attributes(spatial_sizes(x)))


def _operands(
    g: Lowering, operation: Any, kernel: ir.Value, form: Callable[[NDArray[Any]], NDArray[Any]]
) -> tuple[ir.Value, Windows]:
    sizes = static_shape(kernel)[:-2]
    if None in sizes and operation.padding != "valid":  # for which tf2onnx computes too small outputs
        raise g.refuse(
            f"a convolution with padding '{operation.padding}' by a kernel of dynamic size",
            "give the kernel a fixed size, or pad with `ops.pad` and convolve with padding 'valid'",
        )
    windows = Windows.of(sizes, operation.strides, operation.padding, operation.dilation_rate)
    return _reordered(g, kernel, form), windows


def _reordered(g: Lowering, kernel: ir.Value, form: Callable[[NDArray[Any]], NDArray[Any]]) -> ir.Value:
    """Convert a kernel to ONNX's layout: directly if it is constant, with nodes if it is computed."""
    if kernel.const_value is not None:
        return g.constant(form(kernel.const_value.numpy()), "kernel")
    sizes, rank = static_shape(kernel)[:-2], len(static_shape(kernel))
    if form is conv_form:
        return g.op.Transpose(kernel, perm=[rank - 1, rank - 2, *range(rank - 2)])
    moved = g.op.Transpose(kernel, perm=[rank - 2, rank - 1, *range(rank - 2)])
    return g.op.Reshape(moved, [-1, 1, *sizes])


def _data_format(operation: Any) -> str:
    return str(operation.data_format or keras.config.image_data_format())
