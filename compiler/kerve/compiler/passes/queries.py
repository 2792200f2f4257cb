"""Queries of nodes and values."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = [
    "BATCH",
    "LAYER_KEY",
    "array_of",
    "attribute_int",
    "attribute_ints",
    "axes_of",
    "dims_of",
    "elements",
    "input_of",
    "is_constant",
    "is_op",
    "is_scalar",
    "location",
    "only_user",
    "rank_of",
    "same_dim",
    "shape_dims",
]

#: The name of the dynamic batch size, which servers never let be zero.
BATCH = "batch"

#: Metadata key of a node for the path of the Keras layer that it came from.
LAYER_KEY = "kerve.layer"

#: Assumed value of a dynamic size; the same on every axis, so that costs do not depend on their order.
_OPEN = 8

Dim = int | ir.SymbolicDim


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Whether the node is one of these operators of ONNX's own domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input, None if it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initializer that callers cannot override."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def array_of(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the elements of a constant, None for anything else."""
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    return value.const_value.numpy()


def is_scalar(value: ir.Value | None) -> bool:
    """Whether the value is a constant of one element."""
    return (
        value is not None
        and is_constant(value)
        and value.const_value is not None
        and value.const_value.size == 1
    )


def rank_of(value: ir.Value | None) -> int | None:
    """Return the number of dimensions, None if it is not known."""
    return None if value is None or value.shape is None else len(value.shape)


def shape_dims(value: ir.Value) -> tuple[Dim, ...]:
    """Return the dimensions of a value of known rank."""
    assert value.shape is not None, f"the rank of {value.name} is not known"
    return value.shape.dims


def dims_of(value: ir.Value) -> tuple[int | None, ...]:
    """Return the dimensions of a value of known rank, None for each dynamic one."""
    return tuple(dim if isinstance(dim, int) else None for dim in shape_dims(value))


def elements(value: ir.Value) -> int:
    """Return the number of elements of a value of known rank; an estimate if sizes are dynamic."""
    return prod(_OPEN if size is None else size for size in dims_of(value))


def same_dim(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are known to be equal: the same number, or the same name."""
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return a.value is not None and a.value == b.value


def attribute_int(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or the operator's default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def attribute_ints(node: ir.Node, name: str) -> list[int] | None:
    """Return a list attribute, None if it is absent."""
    attribute = node.attributes.get(name)
    return None if attribute is None else [int(item) for item in attribute.as_ints()]


def axes_of(node: ir.Node, rank: int, index: int, *, default: Sequence[int] = ()) -> tuple[int, ...] | None:
    """Return the axes that a node has as attribute `axes` or as input `index`, as non-negative numbers.

    `default` is used if none are given; the result is None if they are known only at run time.
    """
    axes = attribute_ints(node, "axes")
    if axes is None and (value := input_of(node, index)) is not None:
        array = array_of(value)
        if array is None:
            return None
        axes = np.atleast_1d(array).tolist()
    return tuple(axis % rank for axis in axes) if axes is not None else tuple(default)


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the node that reads the value, if nothing else does."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses))[0]


def location(node: ir.Node) -> str:
    """Return a name of a node for messages: its Keras layer and its operator."""
    layer = node.metadata_props.get(LAYER_KEY)
    return f"{layer}/{node.op_type}" if layer else f"{node.op_type}"
