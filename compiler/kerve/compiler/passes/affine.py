"""Affine nodes, which scale and shift channels: BatchNormalization and arithmetic with constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.queries import array_of, attribute_int, dims_of, is_op, rank_of

__all__ = ["Affine", "affine_of", "batch_normalization"]

#: Types in which reassociating the arithmetic keeps sufficient precision.
_EXACT_ENOUGH = (ir.DataType.FLOAT, ir.DataType.DOUBLE)

_EPSILON = 1e-5  # the operator's default


@dataclass(frozen=True)
class Affine:
    """`scale * data + shift` in double precision; both run along one axis of the data, or are scalars."""

    data: ir.Value
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    axis: int | None

    @property
    def scales(self) -> bool:
        """Whether any scale differs from 1."""
        return bool(np.any(self.scale != 1.0))


def affine_of(node: ir.Node) -> Affine | None:
    """Return a node as scale and shift of its one variable input; None if it is not affine."""
    if len(node.outputs) != 1 or node.outputs[0].dtype not in _EXACT_ENOUGH:
        return None
    if is_op(node, "BatchNormalization"):
        return _of_batch_normalization(node)
    return _of_arithmetic(node) if is_op(node, *_TERMS) else None


def batch_normalization(node: ir.Node) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return scale and shift per channel of BatchNormalization at inference; None if not constant."""
    if len(node.inputs) != 5 or attribute_int(node, "training_mode", 0):
        return None
    arrays = [array_of(value) for value in node.inputs[1:]]
    if any(array is None for array in arrays):
        return None
    gamma, beta, mean, variance = (np.asarray(array, dtype=np.float64) for array in arrays)
    epsilon = node.attributes.get("epsilon")
    scale = gamma / np.sqrt(variance + (_EPSILON if epsilon is None else epsilon.as_float()))
    return scale, beta - mean * scale


def _of_batch_normalization(node: ir.Node) -> Affine | None:
    terms = batch_normalization(node)
    data = node.inputs[0]
    if terms is None or data is None or rank_of(data) is None:
        return None
    return Affine(data, *terms, axis=1)


#: Scale and shift of an operator with a constant c, by the index of the constant.
_TERMS: dict[str, dict[int, Any]] = {
    "Add": {0: lambda c: (np.ones_like(c), c), 1: lambda c: (np.ones_like(c), c)},
    "Sub": {0: lambda c: (-np.ones_like(c), c), 1: lambda c: (np.ones_like(c), -c)},
    "Mul": {0: lambda c: (c, np.zeros_like(c)), 1: lambda c: (c, np.zeros_like(c))},
    "Div": {1: lambda c: (1.0 / c, np.zeros_like(c))},
}


def _of_arithmetic(node: ir.Node) -> Affine | None:
    for place, terms in _TERMS[node.op_type].items():
        constant, data = array_of(node.inputs[place]), node.inputs[1 - place]
        if constant is None or data is None or array_of(data) is not None:
            continue
        axis = _channel_axis(constant, data)
        if axis is not None:
            with np.errstate(divide="ignore"):
                scale, shift = terms(np.asarray(constant, dtype=np.float64).reshape(-1))
            if np.all(np.isfinite(scale)) and np.all(np.isfinite(shift)):
                return Affine(data, scale, shift, axis=None if constant.size == 1 else axis)
    return None


def _channel_axis(constant: NDArray[Any], data: ir.Value) -> int | None:
    """Return the one axis of the data along which the constant varies; None if there are several."""
    rank = rank_of(data)
    if rank is None or rank == 0 or constant.ndim > rank:
        return None
    if constant.size == 1:
        return 0
    sizes = (1,) * (rank - constant.ndim) + constant.shape
    axes = [axis for axis, size in enumerate(sizes) if size != 1]
    return axes[0] if len(axes) == 1 and dims_of(data)[axes[0]] == sizes[axes[0]] else None
