"""Reshapes that flatten an image into one axis of features, or split such an axis into an image.

In another layout they change the order of the features. If only operators with constants are between such a
Reshape and the weights of a matrix product (Flatten -> Dense, Dense -> Reshape), the rows or columns of the
weights, and the constants, are reordered instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import Perm
from kerve.compiler.passes.layout.placement import Placement, Slot
from kerve.compiler.passes.layout.rules.elementwise import ELEMENTWISE_OPS
from kerve.compiler.passes.queries import (
    attribute_int,
    dims_of,
    input_of,
    is_constant,
    is_op,
    is_scalar,
    only_user,
    rank_of,
)

__all__ = ["move", "place"]


class _Weights(NamedTuple):
    """An axis of a constant along the features."""

    node: ir.Node
    input: int
    axis: int


def place(reshape: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Return the placement with the image under `perm`; the flat side keeps its shape, in another order."""
    image = slot.value(reshape)
    if perm[0] != 0 or image is None or _weights(reshape, slot, dims_of(image)[1:]) is None:
        return None
    if slot.side == "input":
        return Placement((perm, None), (None,))
    return Placement((None, None), (perm,))


def move(reshape: ir.Node, placement: Placement, editor: Editor) -> None:
    """Reorder the constants that absorb the change, if this placement is an absorption."""
    inner, outer = placement.inputs[0], placement.outputs[0]
    if (perm := inner or outer) is None or (inner and outer):
        return
    slot = Slot("input" if inner else "output", 0)
    image = slot.value(reshape)
    assert image is not None
    stored = dims_of(image)
    sizes = [size for _, size in sorted(zip(perm, stored, strict=True))][1:]
    order = [axis - 1 for axis in perm[1:]]
    weights = _weights(reshape, slot, sizes)
    assert weights is not None
    for node, index, axis in weights:
        source = node.inputs[index]
        assert source is not None
        key = f"axis{axis}of{'x'.join(map(str, sizes))}as{''.join(map(str, order))}"
        derived = editor.derive(source, key, partial(_reordered, axis=axis, sizes=sizes, order=order))
        node.replace_input_with(index, derived)


def _reordered(array: NDArray[Any], axis: int, sizes: Sequence[Any], order: Sequence[int]) -> NDArray[Any]:
    """Split one axis into the axes of the image, reorder those, and merge them again."""
    apart = array.reshape(array.shape[:axis] + tuple(sizes) + array.shape[axis + 1 :])
    places = [*range(axis), *(axis + place for place in order), *range(axis + len(sizes), apart.ndim)]
    return apart.transpose(places).reshape(array.shape)


def _weights(reshape: ir.Node, slot: Slot, sizes: Sequence[int | None]) -> list[_Weights] | None:
    """Return the constants along the features; None if something else depends on their order."""
    flat = reshape.outputs[0] if slot.side == "input" else reshape.inputs[0]
    if flat is None or rank_of(flat) != 2 or None in sizes:
        return None
    features = prod(size for size in sizes if size is not None)
    if dims_of(flat)[1] != features:
        return None
    return _below(flat, features) if slot.side == "input" else _above(flat, features)


def _below(flat: ir.Value, features: int) -> list[_Weights] | None:
    """Return the constants along the features down to the products that sum over them."""
    found: list[_Weights] = []
    pending = [flat]
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            return None
        for node, index in value.uses():
            if node.graph is not flat.graph:
                return None
            if index == 0 and _multiplies_constant(node):
                found.append(_Weights(node, 1, attribute_int(node, "transB", 0)))
                continue
            through = _through(node, index, features)
            if through is None:
                return None
            found.extend(through)
            pending.append(node.outputs[0])
    return found


def _above(flat: ir.Value, features: int) -> list[_Weights] | None:
    """Return the constants along the features up to the product that computes them."""
    found: list[_Weights] = []
    while True:
        node = flat.producer()
        if node is None or only_user(flat) is None:
            return None
        if _multiplies_constant(node):
            found.append(_Weights(node, 1, 1 - attribute_int(node, "transB", 0)))
            bias = _along_features(node, 2, features)
            return None if bias is None else found + bias
        data = [
            index for index, value in enumerate(node.inputs) if value is not None and not is_constant(value)
        ]
        through = _through(node, data[0], features) if len(data) == 1 else None
        if through is None:
            return None
        found.extend(through)
        source = node.inputs[data[0]]
        assert source is not None
        flat = source


def _multiplies_constant(node: ir.Node) -> bool:
    return (
        is_op(node, "MatMul", "Gemm")
        and not attribute_int(node, "transA", 0)
        and is_constant(node.inputs[1])
        and rank_of(node.inputs[1]) == 2
    )


def _through(node: ir.Node, data: int, features: int) -> list[_Weights] | None:
    """Return the constants of an operator that treats features independently; None for other operators."""
    if not is_op(node, *ELEMENTWISE_OPS, "BatchNormalization"):
        return None
    if len(node.outputs) != 1 or rank_of(node.outputs[0]) != 2 or dims_of(node.outputs[0])[1] != features:
        return None
    found: list[_Weights] = []
    for index in range(len(node.inputs)):
        along = [] if index == data else _along_features(node, index, features)
        if along is None:
            return None
        found.extend(along)
    return found


def _along_features(node: ir.Node, index: int, features: int) -> list[_Weights] | None:
    """Return the constant in one input if it has an axis of features; None if it is not constant."""
    value = input_of(node, index)
    if value is None or is_scalar(value):
        return []
    if not is_constant(value):
        return None
    dims = dims_of(value)
    if dims[-1] != features:
        return [] if dims[-1] == 1 else None
    return [_Weights(node, index, len(dims) - 1)]
