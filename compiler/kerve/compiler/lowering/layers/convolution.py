"""Convolution layers: one Conv (two if separable) with the bias, then the activation."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.addition import add_bias, broadcasts
from kerve.compiler.lowering.ops.convolution import (
    conv_form,
    convolve,
    convolve_separably,
    convolve_transposed,
    depthwise_form,
)
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import Windows

HANDLERS = Handlers()


@HANDLERS.register("layers.Conv1D", "layers.Conv2D", "layers.Conv3D")
def conv(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Conv, grouped or not; causal padding is added before."""
    kernel = g.weight(layer.kernel, conv_form, role="conv")
    bias = _bias_within(g, layer, inputs)
    outputs = convolve(g, inputs, kernel, bias, _windows(layer), layer.data_format)
    return _activated(g, layer, outputs, bias)


@HANDLERS.register("layers.DepthwiseConv1D", "layers.DepthwiseConv2D")
def depthwise_conv(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Conv with one group per channel."""
    kernel = g.weight(layer.kernel, depthwise_form, role="depthwise")
    bias = _bias_within(g, layer, inputs)
    outputs = convolve(g, inputs, kernel, bias, _windows(layer), layer.data_format)
    return _activated(g, layer, outputs, bias)


@HANDLERS.register("layers.SeparableConv1D", "layers.SeparableConv2D")
def separable_conv(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """A depthwise Conv followed by a pointwise one."""
    depthwise = g.weight(layer.depthwise_kernel, depthwise_form, role="depthwise")
    pointwise = g.weight(layer.pointwise_kernel, conv_form, role="conv")
    bias = _bias_within(g, layer, inputs)
    outputs = convolve_separably(g, inputs, depthwise, pointwise, bias, _windows(layer), layer.data_format)
    return _activated(g, layer, outputs, bias)


@HANDLERS.register("layers.Conv1DTranspose", "layers.Conv2DTranspose", "layers.Conv3DTranspose")
def conv_transpose(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """ConvTranspose."""
    kernel = g.weight(layer.kernel, conv_form, role="conv")
    bias = _bias_within(g, layer, inputs)
    outputs = convolve_transposed(
        g, inputs, kernel, bias, _windows(layer), layer.output_padding, layer.data_format
    )
    return _activated(g, layer, outputs, bias)


def _windows(layer: Any) -> Windows:
    return Windows.of(layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)


def _bias_within(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value | None:
    """Return the bias if Conv can add it, that is, if Keras adds it along the channels for any image size."""
    if not layer.use_bias:
        return None
    outputs = layer.compute_output_shape(static_shape(inputs))
    return g.weight(layer.bias) if broadcasts(outputs, _bias_shape(layer)) else None


def _bias_shape(layer: Any) -> tuple[int, ...]:
    size, ones = layer.bias.shape[0], (1,) * layer.rank
    return (1, *ones, size) if layer.data_format == "channels_last" else (1, size, *ones)


def _activated(g: Lowering, layer: Any, outputs: ir.Value, bias: ir.Value | None) -> ir.Value:
    if layer.use_bias and bias is None:
        outputs = add_bias(g, outputs, layer.bias, _bias_shape(layer))
    return outputs if layer.activation is None else g.call(layer.activation, outputs)
