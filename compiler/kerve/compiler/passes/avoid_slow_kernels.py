"""Replacement of operators whose ONNX Runtime CPU kernels are slow.

Some kernels call functions of the C library for each element, or rearrange data in a loop over all axes;
vectorized operators compute the same results (`benchmarks/kernels.py`).

    Softmax(axis before several others)   =>  Reshape -> Softmax -> Reshape
    Pow(x, 0.5), Pow(x, -1), Pow(x, 4)    =>  Sqrt, Reciprocal, two Mul
    Add -> LayerNormalization             =>  Add -> Unsqueeze -> LayerNormalization -> Squeeze
    ReduceLogSumExp                       =>  ReduceMax, Clip, Exp, ReduceSum and Log
    Resize(nearest, by integer factors)   =>  the same with the coordinate mode that has a fast kernel
    AveragePool of volumes                =>  of their slices as images, then of the slices as rows
    Resize(nearest) of volumes            =>  of their slices as images, then of the slices as rows

Replacing one operator by several pays only for many elements. Operators with slow but parallel kernels (Elu,
Selu, Softplus) are kept: on two cores their decompositions are no faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.queries import (
    array_of,
    attribute_int,
    attribute_ints,
    axes_of,
    dims_of,
    elements,
    input_of,
    is_op,
    is_scalar,
    only_user,
    rank_of,
    same_dim,
    shape_dims,
)

__all__ = ["AvoidSlowKernels"]

#: Number of elements from which on several operators are faster than a slow one.
_MANY = 1 << 15

_LOWEST, _HIGHEST = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)


class AvoidSlowKernels(ExplainedPass):
    """Replace operators whose CPU kernels are slow by others that compute the same."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in every graph of the model."""
        self.notes.clear()
        editor, modified = Editor(model), False
        for graph in list(model.graphs()):
            for node in list(graph):
                modified |= self._rewrite(node, editor)
        editor.close()
        return ir.passes.PassResult(model, modified)

    def _rewrite(self, node: ir.Node, editor: Editor) -> bool:
        rule = _RULES.get(node.op_type) if is_op(node, node.op_type) else None
        if rule is None or node.outputs[0].dtype != ir.DataType.FLOAT or rank_of(node.outputs[0]) is None:
            return False
        written = rule(_Writer(node, editor))
        if isinstance(written, str):
            self.note(node, f"kept: {written}")
        elif written is not None:
            editor.replace(node.outputs[0], written)
        return isinstance(written, ir.Value)


class _Writer:
    """Adds nodes that replace one; by default, results have the type and shape of its first input."""

    def __init__(self, node: ir.Node, editor: Editor) -> None:
        assert node.inputs[0] is not None
        self.node, self.x, self.result = node, node.inputs[0], node.outputs[0]
        self._editor = editor

    def __call__(
        self,
        op_type: str,
        *inputs: ir.Value | float | None,
        like: ir.Value | None = None,
        shape: ir.Shape | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Add a node; numbers among the inputs become constants."""
        values = [self.constant(np.float32(x)) if isinstance(x, float) else x for x in inputs]
        like = like or (self.x if shape is None else None)
        return self._editor.node(
            op_type, values, at=self.node, like=like, dtype=self.x.dtype, shape=shape, attributes=attributes
        )

    def viewed(self, x: ir.Value, *sizes: int) -> ir.Value:
        """Add a Reshape to the batch followed by these sizes."""
        shape = ir.Shape([shape_dims(x)[0], *sizes])
        return self("Reshape", x, self.constant(np.array([0, *sizes])), shape=shape)

    def opset_at_least(self, version: int) -> bool:
        """Whether the model uses this version of the operator set or a later one."""
        return self._editor.opset >= version

    def constant(self, array: Any) -> ir.Value:
        """Add an array or a number as a constant."""
        return self._editor.constant(array, f"{self.result.name}:constant")


#: Returns the replacement of a node's result, or the reason why the node is kept, or None
#: if it is obvious.
_Rule = Callable[[_Writer], ir.Value | str | None]


def _of_many(rule: _Rule) -> _Rule:
    """Apply a rule that adds several operators only for many elements."""

    def checked(write: _Writer) -> ir.Value | str | None:
        if rank_of(write.x) is None or elements(write.x) < _MANY:
            return "it has few elements"
        return rule(write)

    return checked


def _flatten_behind(write: _Writer) -> ir.Value | str | None:
    """Flatten the axes after `axis`: swapping it with the last one is fast only for neighbours."""
    dims = shape_dims(write.result)
    axis = attribute_int(write.node, "axis", -1) % len(dims)
    if axis >= len(dims) - 2:
        return None
    # dynamic sizes up to the axis are copied (0), one of the others may be inferred (-1)
    sizes = [dim if isinstance(dim, int) else 0 if at <= axis else -1 for at, dim in enumerate(dims)]
    if sizes.count(-1) > 1 or 0 in dims:
        return "several sizes after its axis are dynamic"
    flat = ir.Shape([*dims[: axis + 1], None])
    source = write("Reshape", write.x, write.constant(np.array([0] * (axis + 1) + [-1])), shape=flat)
    result = write(write.node.op_type, source, shape=flat, axis=axis)
    return write("Reshape", result, write.constant(np.array(sizes)), like=write.result)


def _power(write: _Writer) -> ir.Value | str | None:
    exponent = input_of(write.node, 1)
    if not is_scalar(exponent) or write.x.dtype != ir.DataType.FLOAT or rank_of(exponent) != 0:
        return None
    array = array_of(exponent)
    assert array is not None
    rule = _POWERS.get(float(array.item()))
    return None if rule is None else rule(write, write.x)


#: These powers as TensorFlow computes them in a graph. (Squares and cubes have fast kernels, and occur in
#: patterns that ONNX Runtime fuses.)
_POWERS: Mapping[float, Callable[[_Writer, ir.Value], ir.Value]] = {
    0.5: lambda write, x: write("Sqrt", x),
    -0.5: lambda write, x: write("Reciprocal", write("Sqrt", x)),
    -1.0: lambda write, x: write("Reciprocal", x),
    -2.0: lambda write, x: write("Reciprocal", write("Mul", x, x)),
    4.0: lambda write, x: _squared(write, write("Mul", x, x)),
}


def _squared(write: _Writer, x: ir.Value) -> ir.Value:
    return write("Mul", x, x)


def _apart_from_sum(write: _Writer) -> ir.Value | str | None:
    """Prevent fusion to SkipLayerNormalization, which takes five times as long as Add and
    LayerNormalization.

    ONNX Runtime fuses only sums that the normalization reads directly.
    """
    x, node = write.x, write.node
    if rank_of(x) != 3 or not is_op(x.producer(), "Add") or only_user(x) is not node or len(node.outputs) > 1:
        return None
    first, inner = write.constant(np.array([0])), ir.Shape([1, *shape_dims(x)])
    attributes = {name: each.value for name, each in node.attributes.items()}
    attributes["axis"] = attribute_int(node, "axis", -1) % 3 + 1
    apart = write("Unsqueeze", x, first, shape=inner)
    normalized = write("LayerNormalization", apart, *node.inputs[1:], shape=inner, **attributes)
    return write("Squeeze", normalized, first, like=write.result)


def _log_sum_exp(write: _Writer) -> ir.Value | str | None:
    """Compute as the kernel does: relative to the largest element, clipped to finite values."""
    dims = shape_dims(write.x)
    axes, chosen = input_of(write.node, 1), axes_of(write.node, len(dims), 1)
    if axes is None or not chosen:
        return "its axes are not a constant input"
    keeps = attribute_int(write.node, "keepdims", 1)
    column = ir.Shape([1 if axis in chosen else dim for axis, dim in enumerate(dims)])
    largest = write("ReduceMax", write.x, axes, shape=column, keepdims=1)
    base = write("Clip", largest, _LOWEST, _HIGHEST, shape=column)
    parts = write("Exp", write("Sub", write.x, base))
    total = write("ReduceSum", parts, axes, like=write.result, keepdims=keeps)
    base = base if keeps else write("Squeeze", base, axes, like=write.result)
    return write("Add", write("Log", total, like=write.result), base, like=write.result)


def _resize(write: _Writer) -> ir.Value | str | None:
    """Resize by integer factors: all rounding modes choose the same element, and axes are independent.

    The kernel is fast only in one mode, and only for images.
    """
    attributes = {name: each.value for name, each in write.node.attributes.items()}
    copies = attributes == _BY_COPY
    if not copies and any(value not in _BY_ROUNDING.get(name, ()) for name, value in attributes.items()):
        return None
    factors = _factors(write)
    if factors is None:
        return "its factors are not known integers"
    if len(factors) == 5:
        return _resize_volumes(write, factors)
    return None if copies else write("Resize", *write.node.inputs, like=write.result, **_BY_COPY)


#: Attributes of a Resize that is rewritten, and those of its replacement.
_BY_ROUNDING = {
    "coordinate_transformation_mode": ("half_pixel",),
    "mode": ("nearest",),
    "nearest_mode": ("round_prefer_ceil", "round_prefer_floor"),
}
_BY_COPY: Mapping[str, Any] = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


def _resize_volumes(write: _Writer, factors: list[int]) -> ir.Value | str | None:
    """Resize each slice of the volumes as an image, then the slices, each as a row."""
    sizes = [size or 0 for size in dims_of(write.x)]
    if 0 in sizes[1:] or factors[:2] != [1, 1]:
        return "sizes of its volumes are dynamic"
    _, channels, depth, height, width = sizes
    deeper, higher, wider = (size * factor for size, factor in zip(sizes[2:], factors[2:], strict=True))
    batch = shape_dims(write.x)[0]

    def resized(x: ir.Value, rows: int, columns: int) -> ir.Value:
        _, one, two, three = dims_of(x)
        assert two is not None
        assert three is not None
        scales = write.constant(np.array([1, 1, rows, columns], dtype=np.float32))
        shape = ir.Shape([batch, one, two * rows, three * columns])
        return write("Resize", x, None, scales, shape=shape, **_BY_COPY)

    images = resized(write.viewed(write.x, channels * depth, height, width), *factors[3:])
    rows = resized(write.viewed(images, channels, depth, higher * wider), factors[2], 1)
    return write.viewed(rows, channels, deeper, higher, wider)


def _average_volumes(write: _Writer) -> ir.Value | str | None:
    """Average slices as images, then the slices as rows: since opset 19, volumes have no fast kernel."""
    node = write.node
    window = attribute_ints(node, "kernel_shape") or []
    if len(window) != 3 or not write.opset_at_least(19):
        return None
    before, after = dims_of(write.x), dims_of(write.result)
    if None in before[1:] or None in after[1:]:
        return "its sizes are dynamic"
    if attribute_int(node, "ceil_mode", 0) or "auto_pad" in node.attributes or "dilations" in node.attributes:
        return "it has auto_pad, ceil_mode or dilations"
    strides = attribute_ints(node, "strides") or [1, 1, 1]
    pads = attribute_ints(node, "pads") or [0] * 6
    channels, depth, height, width = (int(size or 0) for size in before[1:])
    deep, high, wide = (int(size or 0) for size in after[2:])

    def pooled(images: ir.Value, size: tuple[int, int, int], **windows: Any) -> ir.Value:
        shape = ir.Shape([shape_dims(write.x)[0], *size])
        counted = attribute_int(node, "count_include_pad", 0)
        return write("AveragePool", images, shape=shape, count_include_pad=counted, **windows)

    images = pooled(
        write.viewed(write.x, channels * depth, height, width),
        (channels * depth, high, wide),
        kernel_shape=window[1:],
        strides=strides[1:],
        pads=[*pads[1:3], *pads[4:]],
    )
    rows = pooled(
        write.viewed(images, channels, depth, high * wide),
        (channels, deep, high * wide),
        kernel_shape=[window[0], 1],
        strides=[strides[0], 1],
        pads=[pads[0], 0, pads[3], 0],
    )
    return write.viewed(rows, channels, deep, high, wide)


def _factors(write: _Writer) -> list[int] | None:
    """Return the factor of each size in a Resize, None if one is not a static integer."""
    if rank_of(write.x) is None:
        return None
    scales = array_of(input_of(write.node, 2))
    if scales is not None and scales.size:
        whole = [int(scale) for scale in scales]
        return whole if min(whole) > 0 and np.array_equal(whole, scales) else None
    factors = []
    for before, after in zip(shape_dims(write.x), shape_dims(write.result), strict=True):
        if isinstance(before, int) and isinstance(after, int) and before > 0 and after % before == 0:
            factors.append(after // before)
        elif same_dim(before, after):
            factors.append(1)
        else:
            return None
    return factors


_RULES: Mapping[str, _Rule] = {
    "AveragePool": _average_volumes,
    "LayerNormalization": _apart_from_sum,
    "LogSoftmax": _of_many(_flatten_behind),
    "Pow": _power,
    "ReduceLogSumExp": _of_many(_log_sum_exp),
    "Resize": _resize,
    "Softmax": _of_many(_flatten_behind),
}
