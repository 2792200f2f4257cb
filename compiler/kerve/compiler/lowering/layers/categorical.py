"""Layers that map categories to indices: vocabulary lookups, bins, and the encodings of the indices."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.layers.encoding import encode, label, refuse_sparse
from kerve.compiler.lowering.layers.hashing import bucket
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS", "look_up"]

HANDLERS = Handlers()

#: Index of a masked token where tokens are counted: it is beyond any depth, so encodings drop it.
_DROPPED = np.iinfo(np.int64).max


@HANDLERS.register("layers.IndexLookup", "layers.IntegerLookup", "layers.StringLookup", typed=True)
def lookup(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """LabelEncoder, then the encoding of the layer."""
    return look_up(g, layer, inputs)


@HANDLERS.register("layers.CategoryEncoding", typed=True)
def category_encoding(
    g: Lowering, layer: Any, inputs: ir.Value, count_weights: ir.Value | None = None
) -> ir.Value:
    """Encode the input integers."""
    refuse_sparse(g, layer)
    dtype = dtypes.to_onnx(layer.dtype)
    return encode(g, inputs, layer.output_mode, layer.num_tokens, dtype, count_weights)


@HANDLERS.register("layers.Discretization", typed=True)
def discretization(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Encode the number of boundaries that each number reaches."""
    refuse_sparse(g, layer)
    if layer.bin_boundaries is None:
        raise g.refuse("it has no bin boundaries", "call its adapt() or give bin_boundaries=")
    indices = g.call(keras.ops.digitize, inputs, np.array(layer.bin_boundaries, np.float32))
    dtype = dtypes.to_onnx(layer.output_dtype)
    return encode(g, indices, layer.output_mode, len(layer.bin_boundaries) + 1, dtype)


def look_up(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Lower an IndexLookup: tokens to indices and their encoding, or indices to tokens."""
    refuse_sparse(g, layer)
    indices = _indices(g, layer, inputs)
    if layer.output_mode == "int":
        return indices
    depth = layer.max_tokens if layer.pad_to_max_tokens else layer.vocabulary_size()
    if layer.output_mode != "tf_idf":
        return encode(g, indices, layer.output_mode, depth, ir.DataType.INT64)
    weights = layer.idf_weights_const.numpy()
    counts = encode(g, indices, "count", depth, ir.tensor(weights).dtype)
    return g.op.Mul(counts, g.constant(weights, "idf_weights"))


def _indices(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    table = _table(g, layer)
    if layer.mask_token is not None:
        key, value = layer.mask_token, 0 if layer.output_mode == "int" else _DROPPED
        table |= {0: layer.mask_token} if layer.invert else {key: value}
    tokens = g.cast(inputs, layer._key_dtype)
    found = label(g, tokens, table, layer._default_value)
    if layer.invert or layer.num_oov_indices == 1:
        return found
    unknown = g.op.Equal(found, layer._default_value)
    if layer.num_oov_indices == 0:  # Keras raises an error here, and so does an out-of-range Gather
        beyond = g.op.Gather(g.constant(np.zeros(1, np.int64)), g.cast(unknown, "int64"))
        return g.op.Add(found, beyond)
    return g.op.Where(unknown, _spread(g, layer, tokens), found)


def _spread(g: Lowering, layer: Any, tokens: ir.Value) -> ir.Value:
    """Return, for each token, the out-of-vocabulary index that it has if it is unknown."""
    if tokens.dtype != ir.DataType.STRING and layer.oov_method == "floormod":
        places = g.op.Mod(tokens, layer.num_oov_indices)
    else:
        places = bucket(g, tokens, layer.num_oov_indices, layer.salt)
    return g.op.Add(places, layer._oov_start_index())


def _table(g: Lowering, layer: Any) -> dict[Any, Any]:
    """Return the vocabulary from Keras's hash table, in the order of its indices."""
    if layer.lookup_table is None or int(layer.lookup_table.size()) == 0:
        raise g.refuse(
            "it has no vocabulary",
            "call its adapt() or give vocabulary=; what adapt() found is kept in a .keras file, not in .h5",
        )
    keys, values = (_plain(tensor.numpy()) for tensor in layer.lookup_table.export())
    pairs = sorted(zip(keys, values, strict=True), key=lambda pair: pair[0] if layer.invert else pair[1])
    return dict(pairs)


def _plain(array: np.ndarray[Any, Any]) -> list[Any]:
    return [item.decode() if isinstance(item, bytes) else item for item in array.tolist()]
