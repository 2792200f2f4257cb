"""Convolution layers: one Conv (two where separable), the bias in it, then the activation."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.convolution import (
    conv_form,
    convolve,
    convolve_separably,
    convolve_transposed,
    depthwise_form,
)
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.windows import Windows

HANDLERS = Handlers()


@HANDLERS.register("layers.Conv1D", "layers.Conv2D", "layers.Conv3D")
def conv(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Conv, grouped or not; causal padding is padding before."""
    kernel = g.weight(layer.kernel, conv_form, role="conv")
    outputs = convolve(g, inputs, kernel, _bias(g, layer), _windows(layer), layer.data_format)
    return _activated(g, layer, outputs)


@HANDLERS.register("layers.DepthwiseConv1D", "layers.DepthwiseConv2D")
def depthwise_conv(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Conv with one group for each channel."""
    kernel = g.weight(layer.kernel, depthwise_form, role="depthwise")
    outputs = convolve(g, inputs, kernel, _bias(g, layer), _windows(layer), layer.data_format)
    return _activated(g, layer, outputs)


@HANDLERS.register("layers.SeparableConv1D", "layers.SeparableConv2D")
def separable_conv(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """A depthwise Conv and a pointwise one, with nothing between."""
    depthwise = g.weight(layer.depthwise_kernel, depthwise_form, role="depthwise")
    pointwise = g.weight(layer.pointwise_kernel, conv_form, role="conv")
    outputs = convolve_separably(
        g, inputs, depthwise, pointwise, _bias(g, layer), _windows(layer), layer.data_format
    )
    return _activated(g, layer, outputs)


@HANDLERS.register("layers.Conv1DTranspose", "layers.Conv2DTranspose", "layers.Conv3DTranspose")
def conv_transpose(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """ConvTranspose."""
    kernel = g.weight(layer.kernel, conv_form, role="conv")
    outputs = convolve_transposed(
        g, inputs, kernel, _bias(g, layer), _windows(layer), layer.output_padding, layer.data_format
    )
    return _activated(g, layer, outputs)


def _windows(layer: Any) -> Windows:
    return Windows.of(layer.kernel_size, layer.strides, layer.padding, layer.dilation_rate)


def _bias(g: Lowering, layer: Any) -> ir.Value | None:
    return g.weight(layer.bias) if layer.use_bias else None


def _activated(g: Lowering, layer: Any, outputs: ir.Value) -> ir.Value:
    return outputs if layer.activation is None else g.call(layer.activation, outputs)
