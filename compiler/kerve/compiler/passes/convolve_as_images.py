"""Convert convolutions and pooling of sequences to those of images of height one.

    x -> Conv -> Relu -> Conv -> y   =>   x -> Unsqueeze -> Conv -> Relu -> Conv -> Squeeze -> y

ONNX Runtime's CPU kernels for blocked (NCHWc) layouts support only images: sequences are convolved by im2col
and matrix products, channel by channel for depthwise filters (`benchmarks/sequences.py`). Operators between
two convolutions are converted, too, so that the data stays in blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.layout.rules.elementwise import ELEMENTWISE_OPS
from kerve.compiler.passes.queries import (
    attribute_int,
    attribute_ints,
    dims_of,
    elements,
    is_constant,
    is_op,
    rank_of,
)

__all__ = ["ConvolveAsImages"]

#: Operators that compute the same for images of height one.
_LIFTABLE = frozenset(
    {
        *ELEMENTWISE_OPS,
        *(
            "AveragePool",
            "BatchNormalization",
            "Concat",
            "Conv",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "MaxPool",
        ),
    }
)

_POOLS = ("AveragePool", "MaxPool")

#: Number of channels below which ONNX Runtime has no blocked kernel, or reordering costs
#: more than it gains.
_FEWEST_CHANNELS = 12

#: Window size times elements of the result below which the added views cost more than is gained.
_LEAST_WORK = 1 << 16

#: The axis of size one in an image, and the values of attributes for it.
_HEIGHT = 2
_ALONG_HEIGHT = {"dilations": [1], "kernel_shape": [1], "strides": [1]}


class ConvolveAsImages(ExplainedPass):
    """Add a height axis to sequences that are convolved."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in every graph of the model."""
        self.notes.clear()
        editor, modified = Editor(model), False
        for graph in list(model.graphs()):
            for part in _parts(graph):
                if any(_gains(node) for node in part):
                    _lift(part, editor)
                    modified = True
                else:
                    self._explain(part)
        editor.close()
        return ir.passes.PassResult(model, modified)

    def _explain(self, part: Iterable[ir.Node]) -> None:
        for node in part:
            if is_op(node, "Conv"):
                self.note(node, "remains a convolution of sequences: it has few channels, or little work")


def _parts(graph: ir.Graph | ir.Function) -> Iterator[list[ir.Node]]:
    """Yield the connected groups of nodes on sequences that could work on images."""
    part_of: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        if not _is_liftable(node):
            continue
        part = part_of[node] = [node]
        for value in node.inputs:
            before = None if value is None else value.producer()
            other = part_of.get(before) if before is not None else None
            if other is not None and other is not part:
                for each in part:
                    part_of[each] = other
                other.extend(part)
                part = other
    order = {node: index for index, node in enumerate(graph)}
    for part in {id(part): part for part in part_of.values()}.values():
        yield sorted(part, key=order.__getitem__)


def _is_liftable(node: ir.Node) -> bool:
    """Whether the node reads and writes only sequences of channels, and constants that broadcast to them."""
    if not is_op(node, *_LIFTABLE) or len(node.outputs) != 1 or rank_of(node.outputs[0]) != 3:
        return False
    given = [value for value in node.inputs if value is not None]
    return all(rank_of(value) in ((0, 1, 2, 3) if is_constant(value) else (0, 3)) for value in given)


def _gains(node: ir.Node) -> bool:
    """Whether ONNX Runtime has a kernel for images that is faster than the one for sequences."""
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    if is_op(node, *_POOLS):
        return _works(node, attribute_ints(node, "kernel_shape"))
    if not is_op(node, "Conv") or not is_constant(node.inputs[1]):
        return False
    source, weights = node.inputs[0], node.inputs[1]
    assert source is not None
    assert weights is not None
    channels, (count, each, window) = dims_of(source)[1], dims_of(weights)
    if channels is None or count is None or each is None or window in (None, 1):
        return False
    group = attribute_int(node, "group", 1)
    blocks = channels % 4 == 0 and channels >= _FEWEST_CHANNELS and (group == 1 or group == channels == count)
    return blocks and _works(node, [window])


def _works(node: ir.Node, window: list[int] | None) -> bool:
    """Whether a node computes so much that two views are negligible; a dynamic length counts as long."""
    result = node.outputs[0]
    return window is not None and (dims_of(result)[2] is None or elements(result) * window[0] >= _LEAST_WORK)


def _lift(part: Iterable[ir.Node], editor: Editor) -> None:
    lifted: dict[ir.Value, ir.Value] = {}  # images by their sequences
    for node in part:
        inputs = [None if value is None else _image(value, node, lifted, editor) for value in node.inputs]
        old = node.outputs[0]
        image = editor.node(
            node.op_type, inputs, at=node, dtype=old.dtype, shape=_taller(old), attributes=_attributes(node)
        )
        axes = editor.constant(np.array([_HEIGHT]), "axes")
        sequence = editor.node("Squeeze", [image, axes], at=node, like=old)
        lifted[sequence] = image
        editor.replace(old, sequence)


def _image(value: ir.Value, at: ir.Node, lifted: dict[ir.Value, ir.Value], editor: Editor) -> ir.Value:
    """Return the new input of a node; constants of rank 0 and 1 need no change."""
    rank = rank_of(value)
    if is_constant(value):
        return value if rank in (0, 1) else editor.derive(value, "image", _with_height)
    if rank == 0:
        return value
    if value not in lifted:
        axes = editor.constant(np.array([_HEIGHT]), "axes")
        shape = _taller(value)
        lifted[value] = editor.node("Unsqueeze", [value, axes], at=at, dtype=value.dtype, shape=shape)
    return lifted[value]


def _with_height(array: NDArray[Any]) -> NDArray[Any]:
    return np.expand_dims(array, -2)


def _taller(value: ir.Value) -> ir.Shape:
    assert value.shape is not None
    batch, channels, length = value.shape
    return ir.Shape([batch, channels, 1, length])


def _attributes(node: ir.Node) -> dict[str, Any]:
    attributes: dict[str, Any] = {name: each.value for name, each in node.attributes.items()}
    for name, along in _ALONG_HEIGHT.items():
        if (sizes := attribute_ints(node, name)) is not None:
            attributes[name] = along + sizes
    if (pads := attribute_ints(node, "pads")) is not None:
        attributes["pads"] = [0, pads[0], 0, pads[1]]
    if is_op(node, "Concat"):
        axis = attribute_int(node, "axis", 1) % 3
        attributes["axis"] = axis + 1 if axis >= _HEIGHT else axis
    return attributes
