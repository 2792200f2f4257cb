"""Convert average pooling over small windows to convolutions.

AveragePool                    =>  Conv(equal weights)
AveragePool(pads, not counted) =>  Conv(equal weights, pads) -> Mul(window / elements of it inside the image)

Since version 19 of the operator, ONNX Runtime has no fast CPU kernel for it, blocked or not: in NASNetMobile,
its 40 pools take 3.5 times as long as those of version 11.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.queries import attribute_int, attribute_ints, dims_of, is_op, rank_of

__all__ = ["ConvolveMeans"]

#: The first version of the operator set whose AveragePool is slow.
_SLOW = 19

#: Number of elements of a window above which a pool, which reads no weights, is kept.
_LARGEST_WINDOW = 25


class ConvolveMeans(ExplainedPass):
    """Replace average pooling over small windows of images by depthwise convolutions."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in every graph of the model."""
        self.notes.clear()
        editor, modified = Editor(model), False
        if editor.opset < _SLOW:
            return ir.passes.PassResult(model, modified=False)
        for graph in list(model.graphs()):
            for node in list(graph):
                if is_op(node, "AveragePool"):
                    reason = _refusal(node)
                    if reason is None:
                        _convolve(node, editor)
                        modified = True
                    else:
                        self.note(node, f"remains a pool: {reason}")
        editor.close()
        return ir.passes.PassResult(model, modified)


def _refusal(pool: ir.Node) -> str | None:
    source, result = pool.inputs[0], pool.outputs[0]
    if source is None or rank_of(source) != 4 or rank_of(result) != 4 or result.dtype != ir.DataType.FLOAT:
        return "it does not pool images of float32"
    if prod(_window(pool)) > _LARGEST_WINDOW:
        return "its window is large"
    if attribute_int(pool, "ceil_mode", 0) or set(attribute_ints(pool, "dilations") or [1]) != {1}:
        return "it has ceil_mode or dilations"
    if pool.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "it computes its padding (auto_pad)"
    if any(pad >= size for pad, size in zip(_pads(pool), 2 * _window(pool), strict=True)):
        return "some of its windows may lie outside the image"
    if dims_of(source)[1] is None:
        return "the number of channels is dynamic"
    if _leaves_out(pool) and None in (*dims_of(source)[2:], *dims_of(result)[2:]):
        return "the share of a window inside the image depends on a dynamic size"
    return None


def _convolve(pool: ir.Node, editor: Editor) -> None:
    source, result = pool.inputs[0], pool.outputs[0]
    assert source is not None
    window, channels = _window(pool), dims_of(source)[1]
    assert channels is not None
    name = str(result.name)
    attributes = {"kernel_shape": window, "group": channels, "pads": _pads(pool), "strides": _strides(pool)}
    weights = np.full((channels, 1, *window), 1.0 / prod(window), dtype=np.float32)
    inputs = [source, editor.constant(weights, f"{name}:mean")]
    mean = editor.node("Conv", inputs, at=pool, attributes=attributes, like=result)
    if _leaves_out(pool):
        share = editor.constant(_share_outside(pool), f"{name}:share")
        mean = editor.node("Mul", [mean, share], at=pool, like=result)
    editor.replace(result, mean)


def _share_outside(pool: ir.Node) -> NDArray[np.float32]:
    """Return, for each element of the result, the window size divided by its elements inside the image."""
    assert pool.inputs[0] is not None
    sizes, results = dims_of(pool.inputs[0])[2:], dims_of(pool.outputs[0])[2:]
    inside = [
        _inside(int(size or 0), int(result or 0), window, stride, begin)
        for size, result, window, stride, begin in zip(
            sizes, results, _window(pool), _strides(pool), _pads(pool)[:2], strict=True
        )
    ]
    counts = np.outer(*inside)
    return (prod(_window(pool)) / counts).astype(np.float32)[None, None]


def _inside(size: int, result: int, window: int, stride: int, begin: int) -> NDArray[np.int64]:
    """Return the number of elements of each window along one axis that are inside the image."""
    first = np.arange(result) * stride - begin
    count: NDArray[np.int64] = np.minimum(first + window, size) - np.maximum(first, 0)
    return count


def _leaves_out(pool: ir.Node) -> bool:
    return any(_pads(pool)) and not attribute_int(pool, "count_include_pad", 0)


def _window(pool: ir.Node) -> list[int]:
    return attribute_ints(pool, "kernel_shape") or []


def _pads(pool: ir.Node) -> list[int]:
    return attribute_ints(pool, "pads") or [0, 0, 0, 0]


def _strides(pool: ir.Node) -> list[int]:
    return attribute_ints(pool, "strides") or [1, 1]
