"""Products with constant weights, and how these take a scale and a shift of the output's channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.reading import (
    array_of,
    attribute_int,
    dims_of,
    input_of,
    is_constant,
    is_op,
    rank_of,
)

__all__ = ["Linear", "linear_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Linear:
    """A product with constant weights, `channels` wide along axis `axis` of its output."""

    node: ir.Node
    axis: int
    channels: int
    #: Multiplies the weights such that each channel of the output is multiplied by its factor.
    scaled: Callable[[Array, Array], Array]

    @property
    def weights(self) -> ir.Value:
        """The constant it multiplies by."""
        weights = self.node.inputs[1]
        assert weights is not None
        return weights

    @property
    def takes_bias(self) -> bool:
        """Whether the operator adds a bias by itself."""
        return not is_op(self.node, "MatMul")

    @property
    def bias_constant(self) -> ir.Value | None:
        """The constant it adds, if any."""
        return input_of(self.node, 2)

    def bias(self) -> NDArray[np.float64]:
        """Return what it adds to each channel: one number, or one per channel."""
        array = array_of(self.bias_constant)
        if array is None:
            return np.zeros(1)
        beta = self.node.attributes.get("beta")
        return np.asarray(array, dtype=np.float64).reshape(-1) * (1.0 if beta is None else beta.as_float())

    def set_bias(self, value: ir.Value) -> None:
        """Let it add another constant."""
        self.node.resize_inputs(3)
        self.node.replace_input_with(2, value)
        self.node.attributes.pop("beta", None)


def linear_of(node: ir.Node) -> Linear | None:
    """Read a node as a product with constant weights; None if it is not that."""
    weights, bias = input_of(node, 1), input_of(node, 2)
    if not is_op(node, *_READERS) or not is_constant(weights) or rank_of(node.outputs[0]) is None:
        return None
    if bias is not None and not is_constant(bias):
        return None
    assert weights is not None
    linear = _READERS[node.op_type](node, dims_of(weights))
    if linear is None or (bias is not None and (dims_of(bias) or (1,))[-1] not in (1, linear.channels)):
        return None
    return linear


Sizes = tuple[int | None, ...]


def _conv(node: ir.Node, sizes: Sizes) -> Linear:
    def scaled(weights: Array, factor: Array) -> Array:
        product: Array = weights * factor.astype(weights.dtype).reshape(-1, *(1,) * (weights.ndim - 1))
        return product

    return Linear(node, 1, sizes[0] or 0, scaled)


def _conv_transpose(node: ir.Node, sizes: Sizes) -> Linear:
    groups = attribute_int(node, "group", 1)

    def scaled(weights: Array, factor: Array) -> Array:
        inputs, per_group = weights.shape[:2]
        grouped = weights.reshape(groups, inputs // groups, per_group, -1)
        spread = factor.astype(weights.dtype).reshape(groups, 1, per_group, 1)
        product: Array = (grouped * spread).reshape(weights.shape)
        return product

    return Linear(node, 1, (sizes[1] or 0) * groups, scaled)


def _matmul(node: ir.Node, sizes: Sizes) -> Linear | None:
    rank = rank_of(node.outputs[0])
    if len(sizes) != 2 or rank is None:
        return None
    return Linear(
        node, rank - 1, sizes[1] or 0, lambda weights, factor: weights * factor.astype(weights.dtype)
    )


def _gemm(node: ir.Node, sizes: Sizes) -> Linear | None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and len(dims_of(bias)) == 2 and dims_of(bias)[0] != 1:
        return None  # a bias for each row
    if attribute_int(node, "transB", 0):
        return Linear(node, 1, sizes[0] or 0, lambda w, factor: w * factor.astype(w.dtype)[:, None])
    return Linear(node, 1, sizes[1] or 0, lambda w, factor: w * factor.astype(w.dtype))


_READERS: dict[str, Callable[[ir.Node, Sizes], Linear | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
