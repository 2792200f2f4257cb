"""Axes split, reordered and merged by einops patterns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import operand, rank, reshape
from kerve.compiler.lowering.ops.shaping import transposed
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.register("einops.Rearrange")
def rearrange(g: Lowering, _: Any, tensor: ir.Value, pattern: str, **sizes: int) -> ir.Value:
    """Split, reorder and merge axes by name, as in `b (h d) -> b h d`."""
    left, right = (_groups(side) for side in pattern.split("->"))
    if len(left) != rank(tensor):
        raise g.refuse(
            f"`{pattern}` names {len(left)} axes of a tensor of rank {rank(tensor)}", "name them all"
        )
    dims: dict[str, int | ir.Value] = {}
    for axis, group in enumerate(left):
        known = math.prod(sizes[name] for name in group if name in sizes)
        for name in group:
            dims[name] = sizes[name] if name in sizes else _quotient(g, g.dim(tensor, axis), known)
    names = [name for group in left for name in group]
    x = tensor if all(len(group) == 1 for group in left) else reshape(g, tensor, [dims[n] for n in names])
    wanted = [name for group in right for name in group]
    x = transposed(g, x, [names.index(name) for name in wanted])
    if all(len(group) == 1 for group in right):
        return x
    return reshape(g, x, [_product(g, [dims[name] for name in group]) for group in right])


def _groups(side: str) -> list[list[str]]:
    groups: list[list[str]] = []
    inside = False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word in "()":
            inside = word == "("
            groups += [[]] if inside else []
        elif inside:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _quotient(g: Lowering, dim: int | ir.Value, divisor: int) -> int | ir.Value:
    if isinstance(dim, int):
        return dim // divisor
    return dim if divisor == 1 else g.op.Div(dim, g.constant(np.array([divisor]), "divisor"))


def _product(g: Lowering, dims: Sequence[int | ir.Value]) -> int | ir.Value:
    known = math.prod(dim for dim in dims if isinstance(dim, int))
    product: int | ir.Value = known
    for dim in dims:
        if isinstance(dim, ir.Value):
            whole = isinstance(product, int)
            product = dim if whole and product == 1 else g.op.Mul(dim, operand(g, product, ir.DataType.INT64))
    return product
