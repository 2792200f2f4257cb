"""Fold scales and shifts of channels into the weights before or after them.

    Conv -> BatchNormalization                  =>  Conv          (ConvTranspose, Gemm alike)
    Conv -> Mul(c) -> Add(c)                    =>  Conv
    MatMul -> Add(c) -> BatchNormalization      =>  MatMul -> Add
    BatchNormalization -> MatMul                =>  MatMul -> Add (Conv without padding, Gemm alike)
    x -> Mul(c) -> Add(c) -> Sub(c) -> Div(c)   =>  x -> Mul -> Add

Transposes between weights and scales are skipped over. The factors are computed in double precision; results
differ from the original only by rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.affine import Affine, affine_of
from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.layout.nets import is_transpose
from kerve.compiler.passes.layout.permutation import perm_of
from kerve.compiler.passes.linear import Linear, linear_of
from kerve.compiler.passes.queries import array_of, is_constant, is_op, only_user, shape_dims

__all__ = ["FoldAffine"]

#: Above this, `x * scale + shift` loses precision by cancellation that `(x - mean) / deviation` keeps.
_LARGEST_SHIFT = 64.0

#: Weights that several nodes share are copied for a scale only up to this size.
_COPY_BYTES = 1 << 20

Vector = NDArray[np.float64]


class _Step(NamedTuple):
    """One affine node of a chain, and the axis of the chain's channels at this node."""

    node: ir.Node
    affine: Affine
    axis: int | None

    @property
    def constant(self) -> ir.Value:
        """The constant from which derived constants of this node get their names."""
        value = self.node.inputs[2] if is_op(self.node, "BatchNormalization") else _constant_input(self.node)
        assert value is not None
        return value


class FoldAffine(ExplainedPass):
    """Fold chains of affine nodes into the weights before them, or into one Mul and one Add."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold in every graph of the model."""
        self.notes.clear()
        editor = Editor(model)
        modified = False
        for graph in list(model.graphs()):
            for node in list(graph):
                if node.graph is graph:  # not removed by an earlier fold
                    modified |= self._fold(node, editor)
        editor.close()
        return ir.passes.PassResult(model, modified)

    def _fold(self, node: ir.Node, editor: Editor) -> bool:
        if (linear := linear_of(node)) is not None:
            chain = list(_chain(node.outputs[0], linear.axis))
            return self._into_weights_before(linear, chain, editor)
        if (affine := affine_of(node)) is None:
            return False
        chain = [_Step(node, affine, affine.axis), *_chain(node.outputs[0], affine.axis)]
        behind = _weights_behind(chain[-1])
        if behind is not None and self._into_weights_behind(behind, chain, editor):
            return True
        if is_op(node, "BatchNormalization"):
            self.note(node, "kept: no weights before or after it can absorb its scale and shift")
            return False
        return _into_one(_without_transposes(chain), editor)

    def _into_weights_before(self, linear: Linear, chain: list[_Step], editor: Editor) -> bool:
        if not chain:
            return False
        scale, shift = _product(chain)
        scales = bool(np.any(scale != 1.0))
        if not scales and len(chain) == 1 and not linear.takes_bias:
            return False  # a MatMul and its bias cannot be shortened
        if scales and not _may_copy(linear.weights):
            self.note(
                chain[0].node, f"kept: the weights '{linear.weights.name}' before it are shared and large"
            )
            return False
        if scales:
            factor = np.broadcast_to(scale, (linear.channels,))
            weights = editor.derive(linear.weights, f"x{_digest(factor)}", lambda w: linear.scaled(w, factor))
            linear.node.replace_input_with(1, weights)
        first, *rest = chain
        if linear.takes_bias:
            bias = np.broadcast_to(scale * linear.bias() + shift, (linear.channels,))
            linear.set_bias(_bias(linear, chain, bias, editor))
        adds = not linear.takes_bias and bool(np.any(shift != 0.0))
        _bypass(rest if adds else chain, editor)
        if adds:
            _become_add(first, shift, editor)
        return True

    def _into_weights_behind(self, linear: Linear, chain: list[_Step], editor: Editor) -> bool:
        scale, shift = _product(chain)
        shifts = bool(np.any(shift != 0.0))
        if shifts and linear.sees_zeros:
            self.note(
                chain[0].node, f"not folded into the {linear.node.op_type} after it, which pads with zeros"
            )
            return False
        if not _may_copy(linear.weights) or np.max(np.abs(shift)) > _LARGEST_SHIFT:
            return False
        weights = array_of(linear.weights)
        assert weights is not None
        added = linear.response(weights, np.broadcast_to(shift, (linear.channels_in,)))
        if np.any(scale != 1.0):
            factor = np.broadcast_to(scale, (linear.channels_in,))
            scaled = editor.derive(
                linear.weights, f"in x{_digest(factor)}", lambda w: linear.scaled_in(w, factor)
            )
            linear.node.replace_input_with(1, scaled)
        if shifts and linear.takes_bias:
            bias = np.broadcast_to(linear.bias() + added, (linear.channels,))
            linear.set_bias(_bias(linear, chain, bias, editor))
        elif shifts:
            _add_behind(linear, added, chain[0].constant, editor)
        _bypass(chain, editor)
        return True


def _weights_behind(last: _Step) -> Linear | None:
    """Return the product that is a chain's only reader, if its weights run along the chain's channels."""
    value, axis = last.node.outputs[0], last.axis
    while (node := only_user(value)) is not None and is_transpose(node):
        axis = None if axis is None else perm_of(node).index(axis)
        value = node.outputs[0]
    linear = None if node is None or node.inputs[0] is not value else linear_of(node)
    return linear if linear is not None and axis in (None, linear.axis_in) else None


def _without_transposes(chain: Sequence[_Step]) -> list[_Step]:
    """Return the part of a chain of arithmetic in which each node reads the one before it directly."""
    part = [chain[0]]
    for step in chain[1:]:
        if step.affine.data is not part[-1].node.outputs[0] or is_op(step.node, "BatchNormalization"):
            break
        part.append(step)
    return part


def _chain(value: ir.Value, axis: int | None) -> Iterator[_Step]:
    """Yield the affine nodes along the channels of a value that are its only readers, in sequence."""
    while (node := only_user(value)) is not None:
        if is_transpose(node):
            axis = None if axis is None else perm_of(node).index(axis)
        else:
            affine = affine_of(node)
            if affine is None or affine.data is not value:
                return
            if axis is not None and affine.axis not in (None, axis):
                return
            axis = affine.axis if axis is None else axis
            yield _Step(node, affine, axis)
        value = node.outputs[0]


def _product(chain: Sequence[_Step]) -> tuple[Vector, Vector]:
    """Return the combined scale and shift of all nodes of a chain."""
    scale, shift = np.ones(1), np.zeros(1)
    for step in chain:
        scale = scale * step.affine.scale
        shift = shift * step.affine.scale + step.affine.shift
    return scale, shift


def _bias(linear: Linear, chain: Sequence[_Step], bias: Vector, editor: Editor) -> ir.Value:
    """Return a constant for the bias of a product, named after the first constant it is made of."""
    source = linear.bias_constant or chain[0].constant
    weights = linear.weights.const_value
    assert weights is not None
    return editor.derive(source, f"bias-{_digest(bias)}", lambda _: bias.astype(weights.dtype.numpy()))


def _into_one(chain: Sequence[_Step], editor: Editor) -> bool:
    """Replace a chain by one Mul and one Add, as needed, if that is fewer nodes."""
    scale, shift = _product(chain)
    terms = [
        (op, term) for op, term, none in (("Mul", scale, 1.0), ("Add", shift, 0.0)) if np.any(term != none)
    ]
    if len(terms) >= len(chain) or np.max(np.abs(shift)) > _LARGEST_SHIFT:
        return False
    first, last = chain[0], chain[-1]
    value = first.affine.data
    output = last.node.outputs[0]
    assert output.dtype is not None
    for op, term in terms:
        constant = editor.constant(_aligned(term, output, last.axis), f"{first.constant.name}:{op.lower()}")
        value = editor.node(op, [value, constant], at=last.node, like=output)
    editor.replace(output, value)
    for step in reversed(chain[:-1]):
        graph = step.node.graph
        assert graph is not None
        graph.remove(step.node, safe=True)
    return True


def _become_add(step: _Step, shift: Vector, editor: Editor) -> None:
    """Replace one node of the chain by an Add of the whole shift."""
    output = step.node.outputs[0]
    digest = _digest(shift)
    constant = editor.derive(step.constant, f"add-{digest}", lambda _: _aligned(shift, output, step.axis))
    inputs = [step.affine.data, constant]
    editor.replace(output, editor.node("Add", inputs, at=step.node, like=output))


def _add_behind(linear: Linear, term: Vector, source: ir.Value, editor: Editor) -> None:
    """Insert an Add after a product that takes no bias."""
    output = linear.node.outputs[0]
    constant = editor.derive(source, f"add-{_digest(term)}", lambda _: _aligned(term, output, linear.axis))
    product = editor.node("MatMul", linear.node.inputs, at=linear.node, like=output)
    editor.replace(output, editor.node("Add", [product, constant], at=linear.node, like=output))


def _bypass(chain: Sequence[_Step], editor: Editor) -> None:
    for step in reversed(chain):
        editor.replace(step.node.outputs[0], step.affine.data)


def _aligned(term: Vector, value: ir.Value, axis: int | None) -> NDArray[np.generic]:
    """Return a term per channel in the type of the value, shaped to broadcast along its axis."""
    assert value.dtype is not None
    array = term.astype(value.dtype.numpy())
    if array.size == 1 or axis is None:
        return array.reshape(())
    return array.reshape((-1,) + (1,) * (len(shape_dims(value)) - 1 - axis))


def _may_copy(weights: ir.Value) -> bool:
    tensor = weights.const_value
    return len(weights.uses()) == 1 or (tensor is not None and tensor.nbytes <= _COPY_BYTES)


def _constant_input(node: ir.Node) -> ir.Value | None:
    return next((value for value in node.inputs if is_constant(value)), None)


def _digest(array: Vector) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
