"""TensorFlow's operators on parts of texts: lengths, substrings, n-grams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.layers.characters import characters, strings, utf8
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.tensorflow_strings import (
    flatten_texts,
    is_present,
    of_pieces,
    pad_rows,
    row_lengths,
    taken,
    text_of,
)
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.tracing import UntraceableError

__all__ = ["HANDLERS"]

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]

_END = np.iinfo(np.int64).max


@HANDLERS.register("tensorflow.StringLength")
def length(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Count the bytes of texts, or their characters."""
    row = flatten_texts(g, texts)
    if _counts_characters(attributes):
        counts = g.op.ReduceSum(g.cast(is_present(g, characters(g, row)), "int64"), [1], keepdims=0)
    else:
        counts = g.op.Squeeze(utf8(g, row, 0)[1], [1])
    result = g.op.Reshape(g.cast(counts, "int32"), g.op.Shape(texts))
    result.dtype, result.shape = ir.DataType.INT32, texts.shape
    return result


@HANDLERS.register("tensorflow.Substr")
def substring(
    g: Lowering, attributes: _Attributes, texts: ir.Value, begin: ir.Value, size: ir.Value
) -> ir.Value:
    """Return `size` characters of each text from `begin` on, which counts from the end if negative."""
    if not _counts_characters(attributes):
        raise UntraceableError(
            "Substr counts bytes, but ONNX's strings consist of characters",
            'give tf.strings.substr unit="UTF8_CHAR"',
        )
    if any(each.shape is None or len(each.shape) for each in (begin, size)):
        raise UntraceableError("Substr has an ONNX form only if all texts are cut at the same place")
    pieces = characters(g, flatten_texts(g, texts))
    begin, size = g.cast(begin, "int64"), g.cast(size, "int64")
    counts = g.op.ReduceSum(g.cast(is_present(g, pieces), "int64"), [1], keepdims=1)
    first = g.op.Where(g.op.Less(begin, 0), g.op.Add(counts, begin), begin)
    # A begin outside of the text makes the graph fail, as in TensorFlow, by an out-of-range Gather.
    beyond = g.op.Or(g.op.Less(first, 0), g.op.Greater(first, counts))
    first = g.op.Add(first, g.op.Gather(g.constant(np.zeros(1, np.int64)), g.cast(beyond, "int64")))
    place = g.op.Range(0, g.op.Squeeze(g.op.Shape(pieces, start=1)), 1)
    inside = g.op.And(g.op.GreaterOrEqual(place, first), g.op.Less(place, g.op.Add(first, size)))
    return of_pieces(g, pieces, inside, texts)


@HANDLERS.register("tensorflow.StringNGrams")
def ngrams(g: Lowering, attributes: _Attributes, words: ir.Value, splits: ir.Value) -> Any:
    """Form the n-grams of each row for each width; return them and their row splits."""
    if attributes.get("pad_width", 0) or attributes.get("preserve_short_sequences", 0):
        raise UntraceableError("StringNGrams with padding or preserve_short_sequences has no ONNX form")
    separator = g.constant(np.array(text_of(attributes["separator"]), object), "separator")
    counts = row_lengths(g, splits)
    rows = pad_rows(g, words, counts)
    column = g.op.Range(0, g.op.Squeeze(g.op.Shape(rows, start=1)), 1)
    grams, whole = [], []
    for width in attributes["ngram_widths"]:
        gram = rows
        for offset in range(1, width):
            following = g.op.Slice(rows, [offset], [_END], [1])
            gram = g.op.StringConcat(
                g.op.StringConcat(g.op.Slice(gram, [0], [-1], [1]), separator), following
            )
        last = g.op.Sub(g.op.Unsqueeze(counts, [1]), width - 1)  # from here on, a row has too few words
        grams.append(gram)
        whole.append(g.op.Less(g.op.Slice(column, [0], g.op.Shape(gram, start=1)), last))
    is_whole = g.op.Concat(*whole, axis=1)
    places = g.op.Transpose(g.op.NonZero(is_whole), perm=[1, 0])
    found = g.op.ReduceSum(g.cast(is_whole, "int64"), [1], keepdims=0)
    starts = g.op.Concat([0], g.op.CumSum(found, 0), axis=0)
    assert splits.dtype is not None
    return taken(g, strings(g.op.Concat(*grams, axis=1), words), places), g.cast(starts, splits.dtype)


def _counts_characters(attributes: _Attributes) -> bool:
    return text_of(attributes.get("unit", "BYTE")) == "UTF8_CHAR"
