"""Hashing and HashedCrossing: TensorFlow's buckets, computed with 64-bit arithmetic in the graph.

Keras hashes a number by its decimal representation, and a string by its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.layers.encoding import encode, label, refuse_sparse
from kerve.compiler.lowering.layers.fingerprints import concatenated, farm_hash, sip_hash
from kerve.compiler.lowering.layers.uint64 import ByteStrings, UInt64Tensor
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape

__all__ = ["HANDLERS", "bucket"]

HANDLERS = Handlers()

#: The initial fingerprint of TensorFlow's `cross_hashed`.
_CROSS_KEY = 0xDECAFCAFFE


@HANDLERS.register("layers.Hashing", typed=True)
def hashing(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Encode the bucket of each value."""
    refuse_sparse(g, layer)
    if layer.output_mode == "one_hot" and static_shape(inputs)[-1] == 1:
        inputs = g.op.Squeeze(inputs, [-1])
    masked = layer.mask_value is not None and layer.num_bins > 1
    buckets = bucket(g, inputs, layer.num_bins - masked, layer.salt if layer.strong_hash else None)
    if masked:
        is_text = inputs.dtype == ir.DataType.STRING
        mask = label(g, inputs, {layer.mask_value: 1}, 0) if is_text else g.op.Equal(inputs, layer.mask_value)
        buckets = g.op.Where(g.cast(mask, "bool"), g.constant(np.int64(0)), g.op.Add(buckets, 1))
    return encode(g, buckets, layer.output_mode, layer.num_bins, dtypes.to_onnx(layer.dtype))


@HANDLERS.register("layers.HashedCrossing", typed=True)
def hashed_crossing(g: Lowering, layer: Any, inputs: Sequence[ir.Value]) -> ir.Value:
    """Encode the bucket of each combination of values."""
    refuse_sparse(g, layer)
    _require_bits(g)
    crossed: UInt64Tensor | int = _CROSS_KEY
    for feature in inputs:
        flat = _flat(g, feature)
        is_text = feature.dtype == ir.DataType.STRING
        crossed = concatenated(
            crossed,
            farm_hash(ByteStrings.of(g, flat)) if is_text else UInt64Tensor(g, g.cast(flat, "uint64")),
        )
    assert isinstance(crossed, UInt64Tensor)
    buckets = _in_place(g, crossed % layer.num_bins, inputs[0])
    return encode(g, buckets, layer.output_mode, layer.num_bins, dtypes.to_onnx(layer.dtype))


def bucket(g: Lowering, x: ir.Value, buckets: int, salt: Sequence[int] | None = None) -> ir.Value:
    """Return the bucket of each value (INT64): FarmHash, or SipHash if the layer has a salt."""
    if buckets == 1:
        return g.op.Expand(g.constant(np.int64(0)), g.op.Shape(x))
    _require_bits(g)
    text = ByteStrings.of(g, _flat(g, x))
    hashed = farm_hash(text) if salt is None else sip_hash(text, salt)
    return _in_place(g, hashed % buckets, x)


def _flat(g: Lowering, x: ir.Value) -> ir.Value:
    return x if rank(x) == 1 else g.op.Reshape(x, [-1])


def _in_place(g: Lowering, flat: UInt64Tensor, x: ir.Value) -> ir.Value:
    """Return words as INT64 in the shape of `x`."""
    found = g.cast(flat.value, "int64")
    if rank(x) != 1:
        found = g.op.Reshape(found, g.op.Shape(x))
        found.shape = x.shape
    return found


def _require_bits(g: Lowering) -> None:
    if g.opset < 18:
        raise g.refuse(
            "its hash needs BitwiseXor, which came with opset 18", "compile with --opset 18 or newer"
        )
