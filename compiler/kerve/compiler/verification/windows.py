"""Check that no window of a model is larger than its input at given sizes.

TensorFlow crashes (SIGFPE) if a pooling window is larger than its input, so such sizes are never tried on the
source: fully convolutional models need a minimum size, which only the graph shows.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from kerve.compiler.passes.queries import attribute_ints

__all__ = ["windows_fit"]

_WINDOWS = frozenset({"AveragePool", "Conv", "LpPool", "MaxPool"})


def windows_fit(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether all windows fit for inputs of these shapes, as far as sizes can be inferred."""
    if not any(node.op_type in _WINDOWS for node in model.graph):
        return True
    sized = model.clone()
    for node in sized.graph.all_nodes():
        for value in node.outputs:
            value.shape = None  # inference would keep existing shapes
    for value in sized.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    common.ShapeInferencePass(check_type=False, strict_mode=False)(sized)
    return all(_has_room(node) for node in sized.graph if node.op_type in _WINDOWS)


def _has_room(node: ir.Node) -> bool:
    sizes = _sizes(node.inputs[0])
    window = attribute_ints(node, "kernel_shape") or _sizes(node.inputs[1])
    if len(window) != len(sizes):
        return True
    if node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME"):
        return all(sizes)
    dims = len(window)
    pads = attribute_ints(node, "pads") or [0] * 2 * dims
    dilations = attribute_ints(node, "dilations") or [1] * dims
    axes = zip(sizes, pads[:dims], pads[dims:], dilations, window, strict=True)
    return all(size + before + after > step * (width - 1) for size, before, after, step, width in axes)


def _sizes(value: ir.Value | None) -> list[int]:
    """Return the known spatial sizes of a value."""
    shape = () if value is None or value.shape is None else tuple(value.shape)[2:]
    return [size for size in shape if isinstance(size, int)]
