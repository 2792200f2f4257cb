"""Permutations of axes: `Transpose(x, perm=p)` puts axis `p[i]` of x at position i."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from kerve.compiler.passes.queries import attribute_ints, shape_dims

__all__ = ["Perm", "compose", "identity", "inverse", "is_identity", "keeps_order", "perm_of", "restrict"]

Perm = tuple[int, ...]


def identity(rank: int) -> Perm:
    """Return the permutation that changes nothing."""
    return tuple(range(rank))


def is_identity(perm: Perm) -> bool:
    """Whether the permutation changes nothing."""
    return perm == identity(len(perm))


def compose(first: Perm, then: Perm) -> Perm:
    """Return the composition of two permutations, applied in this order."""
    return tuple(first[axis] for axis in then)


def inverse(perm: Perm) -> Perm:
    """Return the inverse of a permutation."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def restrict(perm: Perm, kept: Iterable[int]) -> Perm:
    """Return the order of the kept axes, renumbered, under `perm`."""
    number = {axis: index for index, axis in enumerate(sorted(kept))}
    return tuple(number[axis] for axis in perm if axis in number)


def keeps_order(perm: Perm, dims: Sequence[int | ir.SymbolicDim | None]) -> bool:
    """Whether elements do not move in memory, because only axes of size one move."""
    order = [axis for axis in perm if dims[axis] != 1]
    return order == sorted(order)


def perm_of(transpose: ir.Node) -> Perm:
    """Return the permutation that a Transpose applies."""
    perm = attribute_ints(transpose, "perm")
    if perm is not None:
        return tuple(perm)
    value = transpose.inputs[0]
    assert value is not None
    return tuple(reversed(range(len(shape_dims(value)))))
