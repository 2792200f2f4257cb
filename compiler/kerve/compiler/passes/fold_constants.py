"""Fold what depends only on constants or static shapes."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

from kerve.compiler.passes.queries import elements, is_op, rank_of

__all__ = ["FoldConstants"]

#: Constants with more elements are left to ONNX Runtime, which folds them when it loads the model.
_LARGEST_INPUT = 1 << 13
_LARGEST_OUTPUT = 1 << 18

#: Random operators that are missing in onnxscript's own list.
_RANDOM = ("Bernoulli",)


class FoldConstants(ir.passes.InPlacePass):
    """onnxscript's constant folding."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold all that can be folded."""
        result = optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=_LARGEST_INPUT,
            output_size_limit=_LARGEST_OUTPUT,
            should_fold=_should_fold,
        )
        return ir.passes.PassResult(model, result.modified)


def _should_fold(node: ir.Node) -> bool | None:
    """Return False for what onnxscript must not fold, None to leave the decision to it."""
    text = any(value is not None and value.dtype == ir.DataType.STRING for value in node.inputs)
    return False if text or node.op_type in _RANDOM or _repeats(node) else None


def _repeats(node: ir.Node) -> bool:
    """Whether it gathers a large constant from a small one, such as a scale per weight from one per group."""
    given, made = node.inputs[0] if is_op(node, "Gather") else None, node.outputs[0]
    if given is None or rank_of(given) is None or rank_of(made) is None:
        return False
    return elements(made) > max(elements(given), _LARGEST_INPUT)
