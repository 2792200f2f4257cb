"""Lookup tables of categories, and the encodings of their indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import transposed

__all__ = ["encode", "label", "look_up", "refuse_sparse"]


def encode(
    g: Lowering,
    indices: ir.Value,
    mode: str,
    depth: int,
    dtype: ir.DataType,
    weights: ir.Value | None = None,
) -> ir.Value:
    """Encode indices: "int", "one_hot", "multi_hot" or "count"; out-of-range ones are dropped."""
    if mode == "int":
        return g.cast(indices, dtype)
    indices = g.cast(indices, "int64")
    if rank(indices) == 0:
        indices = g.op.Unsqueeze(indices, [0])
    if mode == "one_hot":
        if rank(indices) > 1 and static_shape(indices)[-1] == 1:
            indices = g.op.Squeeze(indices, [-1])
        return g.cast(g.op.Equal(g.op.Unsqueeze(indices, [-1]), g.constant(np.arange(depth))), dtype)
    tokens = min(1, rank(indices) - 1)  # the axis of the tokens of one sample
    order = [axis for axis in range(rank(indices)) if axis != tokens] + [tokens]
    indices = transposed(g, indices, order)
    known = g.op.And(g.op.GreaterOrEqual(indices, 0), g.op.Less(indices, depth))
    slots = g.op.Where(known, indices, depth)  # an extra slot for dropped indices
    one, zero = (g.constant(np.full((), fill, dtype.numpy())) for fill in (1, 0))
    entries = g.op.Expand(one, g.op.Shape(indices)) if weights is None else transposed(g, weights, order)
    shape = g.op.Concat(g.op.Shape(indices, end=-1), [depth + 1], axis=0)
    reduction = {"reduction": "add"} if mode == "count" else {}
    filled = g.op.ScatterElements(
        g.op.Expand(zero, shape), slots, g.cast(entries, dtype), axis=-1, **reduction
    )
    return g.op.Slice(filled, [0], [depth], [-1])


def label(g: Lowering, tokens: ir.Value, table: Mapping[Any, Any], default: Any) -> ir.Value:
    """Look up keys (strings, INT64 or FLOAT) in a table; LabelEncoder has attributes for each type."""
    kinds = {str: "string", int: "int64", float: "float"}
    key, value = kinds[type(next(iter(table)))], kinds[type(default)]
    attributes = {
        f"keys_{key}s": list(table),
        f"values_{value}s": list(table.values()),
        f"default_{value}": default,
    }
    found = g.op.LabelEncoder(tokens, **attributes, _domain="ai.onnx.ml", _version=4)
    g.graph.opset_imports.setdefault("ai.onnx.ml", 4)
    found.dtype = dtypes.to_onnx({"float": "float32"}.get(value, value))
    found.shape = tokens.shape
    return found


def look_up(g: Lowering, keys: ir.Value, known: Any, values: Any, default: Any) -> ir.Value:
    """Look up keys in a TensorFlow table, given by arrays; keys that are not `known` get the `default`."""
    kind = ir.DataType.STRING if values.dtype.kind in "OSU" else ir.DataType.from_numpy(values.dtype)
    if not len(known):
        return g.op.Expand(g.constant(default), g.op.Shape(keys))
    order = np.argsort(known, kind="stable")  # TensorFlow's order differs between processes
    known, values = known[order], values[order]
    wide = keys if keys.dtype in (ir.DataType.STRING, ir.DataType.FLOAT) else g.cast(keys, "int64")
    table = dict(zip(_plain(known), _plain(values), strict=True))
    return g.cast(label(g, wide, table, _plain(default)), kind)


def _plain(array: Any) -> Any:
    """Return the elements of an array as Python strings and numbers."""
    listed = np.asarray(array).tolist()
    return keras.tree.map_structure(lambda x: x.decode() if isinstance(x, bytes) else x, listed)


def refuse_sparse(g: Lowering, layer: Any) -> None:
    """Refuse a layer that returns sparse tensors."""
    if layer.sparse:
        raise g.refuse("it returns sparse tensors, which ONNX Runtime does not take", "set sparse=False")
