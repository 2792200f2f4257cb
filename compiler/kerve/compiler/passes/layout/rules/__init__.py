"""The layout rules of operators, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from kerve.compiler.passes.layout.permutation import Perm
from kerve.compiler.passes.layout.placement import Placement, Rule, Slot
from kerve.compiler.passes.layout.rules.axes import (
    ARG_REDUCTION,
    NORMALIZATION,
    REDUCTION,
    SINGLE_AXIS,
    SOFTMAX,
)
from kerve.compiler.passes.layout.rules.channels import BATCH_NORMALIZATION, CONV, GLOBAL_POOL, MATMUL
from kerve.compiler.passes.layout.rules.elementwise import ELEMENTWISE, ELEMENTWISE_OPS
from kerve.compiler.passes.layout.rules.indexing import EXPAND, GATHER, PAD, SHAPE, SIZE, SLICE, TILE
from kerve.compiler.passes.layout.rules.shaping import RESHAPE, SQUEEZE
from kerve.compiler.passes.queries import is_op

__all__ = ["RULES", "place", "rule_of"]

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE_OPS, ELEMENTWISE),
    "ArgMax": ARG_REDUCTION,
    "ArgMin": ARG_REDUCTION,
    "BatchNormalization": BATCH_NORMALIZATION,
    "Concat": SINGLE_AXIS,
    "Conv": CONV,
    "Expand": EXPAND,
    "Gather": GATHER,
    "GlobalAveragePool": GLOBAL_POOL,
    "GlobalMaxPool": GLOBAL_POOL,
    "LayerNormalization": NORMALIZATION,
    "LogSoftmax": SOFTMAX,
    "MatMul": MATMUL,
    "Pad": PAD,
    "RMSNormalization": NORMALIZATION,
    "ReduceL1": REDUCTION,
    "ReduceL2": REDUCTION,
    "ReduceLogSum": REDUCTION,
    "ReduceLogSumExp": REDUCTION,
    "ReduceMax": REDUCTION,
    "ReduceMean": REDUCTION,
    "ReduceMin": REDUCTION,
    "ReduceProd": REDUCTION,
    "ReduceSum": REDUCTION,
    "ReduceSumSquare": REDUCTION,
    "Reshape": RESHAPE,
    "Shape": SHAPE,
    "Size": SIZE,
    "Slice": SLICE,
    "Softmax": SOFTMAX,
    "Split": SINGLE_AXIS,
    "Squeeze": SQUEEZE,
    "Tile": TILE,
    "TopK": SINGLE_AXIS,
    "Unsqueeze": SQUEEZE,
}


def rule_of(node: ir.Node) -> Rule | None:
    """Return the rule of a node's operator, if there is one."""
    return RULES.get(node.op_type) if is_op(node, node.op_type) else None


def place(node: ir.Node, slot: Slot, perm: Perm) -> Placement | None:
    """Return how the node works when the tensor in `slot` is stored under `perm`; None if it cannot."""
    rule = rule_of(node)
    return None if rule is None else rule.place(node, slot, perm)
