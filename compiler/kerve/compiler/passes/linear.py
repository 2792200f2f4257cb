"""Products with constant weights, and how scales and shifts of input or output channels fold into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.queries import (
    array_of,
    attribute_int,
    attribute_ints,
    dims_of,
    input_of,
    is_constant,
    is_op,
    rank_of,
)

__all__ = ["Linear", "linear_of"]

Array = NDArray[Any]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class _Form:
    """The layout of an operator's weights; in canonical form they are [group, output, input, position]."""

    canonical: Callable[[Array], Array]
    restored: Callable[[Array, tuple[int, ...]], Array]
    groups: int = 1


@dataclass(frozen=True)
class Linear:
    """A product with constant weights: `channels_in` along axis `axis_in`, `channels` along axis `axis`."""

    node: ir.Node
    axis_in: int
    axis: int
    channels_in: int
    channels: int
    form: _Form

    @property
    def weights(self) -> ir.Value:
        """The constant weights."""
        weights = self.node.inputs[1]
        assert weights is not None
        return weights

    @property
    def takes_bias(self) -> bool:
        """Whether the operator has a bias input."""
        return not is_op(self.node, "MatMul")

    @property
    def bias_constant(self) -> ir.Value | None:
        """The constant bias, if any."""
        return input_of(self.node, 2)

    @property
    def sees_zeros(self) -> bool:
        """Whether some outputs depend on zeros from outside the input."""
        if is_op(self.node, "ConvTranspose"):
            return True
        padded = any(attribute_ints(self.node, "pads") or [])
        return padded or self.node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")

    def bias(self) -> Vector:
        """Return the bias: one number, or one per channel."""
        array = array_of(self.bias_constant)
        if array is None:
            return np.zeros(1)
        return np.asarray(array, dtype=np.float64).reshape(-1) * self._factor("beta")

    def set_bias(self, value: ir.Value) -> None:
        """Set the bias to another constant."""
        self.node.resize_inputs(3)
        self.node.replace_input_with(2, value)
        self.node.attributes.pop("beta", None)

    def scaled(self, weights: Array, factor: Vector) -> Array:
        """Return weights that also multiply each channel of the output by its factor."""
        return self._times(weights, factor, (self.form.groups, -1, 1, 1))

    def scaled_in(self, weights: Array, factor: Vector) -> Array:
        """Return weights that also multiply each channel of the input by its factor."""
        return self._times(weights, factor, (self.form.groups, 1, -1, 1))

    def response(self, weights: Array, shift: Vector) -> Vector:
        """Return the contribution of a constant per input channel to each output channel."""
        canonical = self.form.canonical(weights)
        per_input = canonical.sum(axis=3, dtype=np.float64)
        grouped = shift.reshape(self.form.groups, -1)
        response: Vector = np.einsum("goi,gi->go", per_input, grouped).reshape(-1)
        return response * self._factor("alpha")

    def _times(self, weights: Array, factor: Vector, spread: tuple[int, ...]) -> Array:
        product = self.form.canonical(weights) * factor.astype(weights.dtype).reshape(spread)
        return self.form.restored(product, weights.shape)

    def _factor(self, name: str) -> float:
        attribute = self.node.attributes.get(name)
        return 1.0 if attribute is None else attribute.as_float()


def linear_of(node: ir.Node) -> Linear | None:
    """Return a node as a product with constant weights; None if it is not one."""
    weights, bias = input_of(node, 1), input_of(node, 2)
    if not is_op(node, *_READERS) or not is_constant(weights) or rank_of(node.outputs[0]) is None:
        return None
    if bias is not None and not is_constant(bias):
        return None
    assert weights is not None
    linear = _READERS[node.op_type](node, tuple(size or 0 for size in dims_of(weights)))
    if linear is None or (bias is not None and not _is_per_channel(dims_of(bias), linear.channels)):
        return None
    return linear


def _is_per_channel(sizes: tuple[int | None, ...], channels: int) -> bool:
    return all(size == 1 for size in sizes[:-1]) and (not sizes or sizes[-1] in (1, channels))


Sizes = tuple[int, ...]


def _conv(node: ir.Node, sizes: Sizes) -> Linear:
    groups = attribute_int(node, "group", 1)
    form = _Form(
        canonical=lambda weights: weights.reshape(groups, sizes[0] // groups, sizes[1], -1),
        restored=lambda canonical, shape: canonical.reshape(shape),
        groups=groups,
    )
    return Linear(node, 1, 1, sizes[1] * groups, sizes[0], form)


def _conv_transpose(node: ir.Node, sizes: Sizes) -> Linear:
    groups = attribute_int(node, "group", 1)
    form = _Form(
        canonical=lambda weights: weights.reshape(groups, sizes[0] // groups, sizes[1], -1).swapaxes(1, 2),
        restored=lambda canonical, shape: canonical.swapaxes(1, 2).reshape(shape),
        groups=groups,
    )
    return Linear(node, 1, 1, sizes[0], sizes[1] * groups, form)


#: Matrices of [input, output], and of [output, input].
_COLUMNS = _Form(
    canonical=lambda weights: weights.T[None, :, :, None],
    restored=lambda canonical, _: canonical[0, :, :, 0].T,
)
_ROWS = _Form(
    canonical=lambda weights: weights[None, :, :, None],
    restored=lambda canonical, _: canonical[0, :, :, 0],
)


def _matmul(node: ir.Node, sizes: Sizes) -> Linear | None:
    rank_in, rank = rank_of(node.inputs[0]), rank_of(node.outputs[0])
    if len(sizes) != 2 or rank_in is None or rank is None:
        return None
    return Linear(node, rank_in - 1, rank - 1, *sizes, _COLUMNS)


def _gemm(node: ir.Node, sizes: Sizes) -> Linear | None:
    if attribute_int(node, "transA", 0):
        return None
    if attribute_int(node, "transB", 0):
        return Linear(node, 1, 1, sizes[1], sizes[0], _ROWS)
    return Linear(node, 1, 1, sizes[0], sizes[1], _COLUMNS)


_READERS: dict[str, Callable[[ir.Node, Sizes], Linear | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
