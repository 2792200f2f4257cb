"""Scaled dot-product attention: the Attention operator from opset 23 on, before that its decomposition.

In a fully masked row, Keras attends to all positions equally; ONNX's boolean masks would return NaN. So a
mask becomes a large negative number that is added to the scores, as in Keras.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import operand, reshape
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape

HANDLERS = Handlers()

#: The first opset with the Attention operator.
_ATTENTION = 23

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@HANDLERS.register("nn.DotProductAttention")
def dot_product_attention(
    g: Lowering,
    operation: Any,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    bias: ir.Value | None = None,
    mask: ir.Value | None = None,
    scale: float | None = None,
) -> ir.Value:
    """Attend with `query` [batch, time, heads, size] to `key` and `value` [batch, steps, heads, size].

    `bias` and `mask` (False: do not attend) are broadcast to [batch, heads, time, steps]. Scores are
    float32 at least. TensorFlow ignores the operation's `attn_logits_soft_cap`, and so does this.
    """
    dtype = g.output_dtype
    query, key, value = (g.cast(x, dtype) for x in (query, key, value))
    if scale is None:
        size = static_shape(key)[-1]
        if size is None:
            raise g.refuse(
                "the size of the attention's heads is dynamic", "give it, or the attention's scale"
            )
        scale = 1.0 / math.sqrt(size)
    causal = bool(operation.is_causal)
    if g.opset >= _ATTENTION and _has_operator(query, adds=bias is not None or mask is not None):
        implied = causal and mask is None  # with a mask, both determine which rows are empty
        added = _added(g, query, key, bias, mask, causal and not implied)
        return _operator(g, (query, key, value), added, scale, causal=implied)
    return _primitives(g, (query, key, value), _added(g, query, key, bias, mask, causal), scale)


def _has_operator(query: ir.Value, *, adds: bool) -> bool:
    """Whether the Attention operator is usable: it computes in float32, but adds masks in
    the query's type.

    A large negative number is infinite in float16, so that a fully masked row would attend to nothing.
    """
    return _score_type(query) == ir.DataType.FLOAT and not (adds and query.dtype == ir.DataType.FLOAT16)


def _primitives(
    g: Lowering, inputs: tuple[ir.Value, ir.Value, ir.Value], added: ir.Value | None, scale: float
) -> ir.Value:
    """Add the nodes that ONNX Runtime fuses: the scale directly after the product of query and key."""
    query, key, value = inputs
    dtype = query.dtype
    groups = _groups(query, key)
    if groups > 1:
        key, value = (g.call(keras.ops.repeat, x, groups, axis=2) for x in (key, value))
    scores = g.op.MatMul(g.op.Transpose(query, perm=[0, 2, 1, 3]), g.op.Transpose(key, perm=[0, 2, 3, 1]))
    scores = g.op.Mul(g.cast(scores, _score_type(query)), scale)
    if added is not None:
        scores = g.op.Add(scores, added)
    weights = g.op.Softmax(scores, axis=-1)
    assert dtype is not None
    attended = g.op.MatMul(g.cast(weights, dtype), g.op.Transpose(value, perm=[0, 2, 1, 3]))
    return g.op.Transpose(attended, perm=[0, 2, 1, 3])


def _operator(
    g: Lowering,
    inputs: tuple[ir.Value, ir.Value, ir.Value],
    added: ir.Value | None,
    scale: float,
    *,
    causal: bool,
) -> ir.Value:
    """Add one Attention node on [batch, time, heads * size]."""
    query, key, _ = inputs
    heads, others = static_shape(query)[2], static_shape(key)[2]
    if added is not None:  # ONNX Runtime requires the full lengths and the query's type
        assert query.dtype is not None
        added = g.op.Expand(g.cast(added, query.dtype), g.shape([1, 1, g.dim(query, 1), g.dim(key, 1)]))
    attended = g.op.Attention(
        *(g.op.Reshape(x, [0, 0, -1]) for x in inputs),
        added,
        q_num_heads=heads,
        kv_num_heads=others,
        scale=scale,
        is_causal=int(causal),
        softmax_precision=int(_score_type(query)),
    )
    return reshape(g, attended, [g.dim(query, 0), g.dim(query, 1), heads, -1])


def _groups(query: ir.Value, key: ir.Value) -> int:
    """Return how many query heads share a key head; 1 for a single key head, which MatMul broadcasts."""
    heads, others = static_shape(query)[2], static_shape(key)[2]
    return heads // others if heads and others and others > 1 else 1


def _added(
    g: Lowering,
    query: ir.Value,
    key: ir.Value,
    bias: ir.Value | None,
    mask: ir.Value | None,
    causal: bool,
) -> ir.Value | None:
    """Return the sum of bias and masks to add to the scores, None if there is none."""
    dtype = _score_type(query)
    kept = mask if not causal else _lower_triangle(g, query, key)
    if causal and mask is not None:
        kept = g.op.And(kept, mask)
    if kept is None:
        return None if bias is None else g.cast(bias, dtype)
    lowest = float(np.finfo(dtype.numpy()).max) * -0.7  # as in Keras
    masked = _where(g, kept, lowest, dtype)
    return masked if bias is None else g.op.Add(g.cast(bias, dtype), masked)


def _where(g: Lowering, kept: ir.Value, lowest: float, dtype: ir.DataType) -> ir.Value:
    if kept.const_value is not None:
        return g.constant(np.where(kept.const_value.numpy(), 0.0, lowest).astype(dtype.numpy()), "mask")
    return g.op.Where(kept, operand(g, 0.0, dtype), operand(g, lowest, dtype))


def _lower_triangle(g: Lowering, query: ir.Value, key: ir.Value) -> ir.Value:
    """Return the causal mask [time, steps]: which steps are not in the future."""
    time, steps = g.dim(query, 1), g.dim(key, 1)
    if isinstance(time, int) and isinstance(steps, int):
        return g.constant(np.tri(time, steps, dtype=bool), "causal")
    return g.op.GreaterOrEqual(g.op.Unsqueeze(_steps(g, query), [1]), _steps(g, key))


def _steps(g: Lowering, x: ir.Value) -> ir.Value:
    size = g.dim(x, 1)
    return g.op.Range(0, g.constant(np.int64(size)) if isinstance(size, int) else g.op.Squeeze(size, [0]), 1)


def _score_type(query: ir.Value) -> ir.DataType:
    assert query.dtype is not None
    return ir.DataType.FLOAT if query.dtype in _HALF else query.dtype
