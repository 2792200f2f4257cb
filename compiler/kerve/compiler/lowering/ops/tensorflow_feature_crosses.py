"""TensorFlow's feature crosses, as which crossed columns of estimators and HashedCrossing are exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.layers.fingerprints import concatenated, farm_hash
from kerve.compiler.lowering.layers.uint64 import ByteStrings, UInt64Tensor
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.tracing import UntraceableError

__all__ = ["HANDLERS"]

HANDLERS = Handlers()

#: A feature: words [rows, columns], and a mask of those that are present.
_Feature = tuple[UInt64Tensor, ir.Value]

#: Modulus of hashes if no number of buckets is given, so that they are not negative as INT64.
_POSITIVE = np.iinfo(np.int64).max


@HANDLERS.register("tensorflow.SparseCross")
def cross(g: Lowering, attributes: Mapping[str, Any], *inputs: ir.Value) -> Any:
    """Return the bucket of each combination of a row's values, as a sparse tensor."""
    if not attributes["hashed_output"]:
        raise UntraceableError("ONNX has no form for crosses that are texts, only for hashed ones")
    if g.opset < 18:
        raise UntraceableError(
            "SparseCross needs BitwiseXor, which came with opset 18", "compile with --opset 18"
        )
    features = [*_sparse(g, attributes["N"], inputs), *_dense(g, inputs[3 * attributes["N"] :])]
    first, present = features[0]
    words = concatenated(attributes["hash_key"], first)
    for other, there in features[1:]:
        words = concatenated(
            UInt64Tensor(g, g.op.Unsqueeze(words.value, [2])),
            UInt64Tensor(g, g.op.Unsqueeze(other.value, [1])),
        )
        both = g.op.And(g.op.Unsqueeze(present, [2]), g.op.Unsqueeze(there, [1]))
        words, present = UInt64Tensor(g, _joined(g, words.value)), _joined(g, both)
    buckets = g.cast((words % (attributes["num_buckets"] or _POSITIVE)).value, "int64")
    return _sparse_tensor(g, buckets, present)


def _sparse(g: Lowering, count: int, inputs: Sequence[ir.Value]) -> Iterator[_Feature]:
    """Yield the sparse features in dense form. Inputs are all indices, then all values, then all shapes."""
    for places, values, size in zip(*(inputs[part * count :][:count] for part in range(3)), strict=True):
        nothing = g.op.Expand(g.constant(np.uint64(0)), size)
        absent = g.op.Expand(g.constant(np.bool_(False)), size)
        yield (
            UInt64Tensor(g, g.op.ScatterND(nothing, places, _hashed(g, values).value)),
            g.op.ScatterND(absent, places, _true(g, values)),
        )


def _dense(g: Lowering, inputs: Sequence[ir.Value]) -> Iterator[_Feature]:
    for values in inputs:
        flat = _hashed(g, g.op.Reshape(values, [-1])).value
        yield UInt64Tensor(g, g.op.Reshape(flat, g.op.Shape(values), allowzero=1)), _true(g, values)


def _true(g: Lowering, like: ir.Value) -> ir.Value:
    return g.op.Expand(g.constant(np.bool_(True)), g.op.Shape(like))


def _hashed(g: Lowering, values: ir.Value) -> UInt64Tensor:
    """Return the hashes of texts, and numbers unchanged."""
    if values.dtype == ir.DataType.STRING:
        return farm_hash(ByteStrings.of(g, values))
    return UInt64Tensor(g, g.cast(values, "uint64"))


def _joined(g: Lowering, grid: ir.Value) -> ir.Value:
    """Merge the last two of three axes; either may be of size 0, which rules out a size of -1."""
    width = g.op.Mul(g.op.Shape(grid, start=1, end=2), g.op.Shape(grid, start=2))
    return g.op.Reshape(grid, g.op.Concat(g.op.Shape(grid, end=1), width, axis=0), allowzero=1)


def _sparse_tensor(g: Lowering, values: ir.Value, present: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return the present values of each row as a sparse tensor, without gaps."""
    found = g.op.Transpose(g.op.NonZero(present), perm=[1, 0])
    order = g.op.CumSum(g.cast(present, "int64"), 1)
    column = g.op.Sub(g.op.Unsqueeze(g.op.GatherND(order, found), [1]), 1)
    longest = g.op.ReduceMax(g.op.Concat(g.op.Reshape(order, [-1]), [0], axis=0), keepdims=1)
    return (
        g.op.Concat(g.op.Slice(found, [0], [1], [1]), column, axis=1),
        g.op.GatherND(values, found),
        g.op.Concat(g.op.Shape(values, end=1), longest, axis=0),
    )
