"""TextVectorization: sentences to words to indices, with the string operators of ONNX Runtime.

ONNX can split and join strings but not replace characters in them. So a text to be standardized is split into
characters (by ONNX Runtime's own Tokenizer), each is looked up, and they are joined again pairwise.
TensorFlow's rules apply: only ASCII letters are lowercased, only ASCII whitespace separates words.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import tracing
from kerve.compiler.lowering.layers.categorical import look_up
from kerve.compiler.lowering.layers.characters import characters, strings
from kerve.compiler.lowering.layers.encoding import label
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.control import loop
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import Symbol

__all__ = ["HANDLERS", "LOWER", "SPACES", "joined", "standardized"]

HANDLERS = Handlers()

#: Replacements of characters: ASCII capitals, punctuation, and whitespace.
LOWER = dict(zip(string.ascii_uppercase, string.ascii_lowercase, strict=True))
_UNPUNCTUATED = dict.fromkeys(string.punctuation, "")
SPACES = dict.fromkeys("\t\n\v\f\r", " ")
_STANDARDS: dict[str | None, dict[str, str]] = {
    None: {},
    "lower": LOWER,
    "strip_punctuation": _UNPUNCTUATED,
    "lower_and_strip_punctuation": LOWER | _UNPUNCTUATED,
}
_END = np.iinfo(np.int64).max


@HANDLERS.register("layers.TextVectorization", typed=True)
def text_vectorization(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """Standardize, split, form n-grams, look up, and encode or pad."""
    _refuse_what_has_no_form(g, layer)
    if callable(layer._standardize):
        inputs = _by_function(g, layer._standardize, inputs)
    words = _ngrams(g, layer, _split(g, layer, inputs))
    indices = look_up(g, layer._lookup_layer, words)
    length = layer._output_sequence_length
    if layer._output_mode != "int" or length is None:
        return indices
    padding = g.constant(np.zeros((1,) * (rank(indices) - 1) + (length,), np.int64))
    shape = g.op.Concat(g.op.Shape(indices, end=-1), [length], axis=0)
    padded = g.op.Concat(indices, g.op.Expand(padding, shape), axis=-1)
    return g.op.Slice(padded, [0], [length], [-1])


def _refuse_what_has_no_form(g: Lowering, layer: Any) -> None:
    if callable(layer._split):
        raise g.refuse(
            "its split is a Python function that returns ragged tensors, which ONNX does not have",
            "use one of the named rules of Keras, or prepare texts before the model",
        )
    if layer._ragged or (layer._output_mode == "one_hot" and layer._split is not None):
        raise g.refuse("it returns ragged tensors, which ONNX does not have", "use another output_mode")
    if g.opset < 20:
        raise g.refuse(
            "its strings need StringSplit, which came with opset 20", "compile with --opset 20 or newer"
        )


def _by_function(g: Lowering, function: Callable[..., Any], texts: ir.Value) -> ir.Value:
    """Standardize with a custom TensorFlow function, which is traced."""
    try:
        result = tracing.trace(g, function, (Symbol(texts),), {})
    except tracing.UntraceableError as error:
        raise g.refuse(
            f"its standardize: {error}",
            "use one of the named rules of Keras, or prepare texts before the model",
        ) from error
    value: ir.Value = result.value
    value.dtype, value.shape = ir.DataType.STRING, texts.shape
    return value


def _split(g: Lowering, layer: Any, texts: ir.Value) -> ir.Value:
    """Return the words of each text [texts, words], padded with empty strings; or the whole texts."""
    table = {} if callable(layer._standardize) else _STANDARDS[layer._standardize]
    if layer._split is None:
        if not table or rank(texts) == 1:
            return standardized(g, texts, table)
        flat = standardized(g, g.op.Reshape(texts, [-1]), table)
        whole = g.op.Reshape(flat, g.op.Shape(texts))
        whole.shape = texts.shape  # which decides how a one-hot encoding is shaped
        return whole
    if rank(texts) > 1:
        texts = g.op.Squeeze(texts, [-1])
    if rank(texts) != 1:
        raise g.refuse("it splits inputs with more than one text per row", "give it one text for each row")
    if layer._split == "character":
        return characters(g, standardized(g, texts, table))
    words, _ = g.ops.StringSplit(standardized(g, texts, table | SPACES), delimiter="", _outputs=2)
    return strings(words, texts)


def standardized(g: Lowering, texts: ir.Value, table: Mapping[str, str]) -> ir.Value:
    """Replace characters of texts [texts]."""
    if not table:
        return texts
    pieces = characters(g, texts)
    kinds = label(g, pieces, {key: kind for kind, key in enumerate(table, start=1)}, 0)
    replaced = g.op.Gather(g.constant(np.array(["", *table.values()], object), "characters"), kinds)
    return joined(g, g.op.Where(g.op.Equal(kinds, 0), pieces, replaced))


def joined(g: Lowering, pieces: ir.Value) -> ir.Value:
    """Join the pieces of each text [texts, pieces], pairwise until one is left."""
    empty = g.constant(np.array([[""]], object), "empty")
    rows = g.op.Shape(pieces, end=1)

    def pair(_: ir.Value, columns: Any) -> tuple[ir.Value, ir.Value]:
        count = g.op.Shape(columns.value, start=1)
        missing = g.op.Expand(empty, g.op.Concat(rows, g.op.Mod(count, 2), axis=0))
        even = g.op.Concat(columns.value, missing, axis=1)
        left, right = (g.op.Slice(even, [start], [_END], [1], [2]) for start in (0, 1))
        return g.op.StringConcat(left, right), g.op.Greater(count, 2)

    columns = g.op.Concat(pieces, g.op.Expand(empty, g.op.Concat(rows, [1], axis=0)), axis=1)
    more = g.op.Greater(g.op.Squeeze(g.op.Shape(columns, start=1)), 1)
    joined = loop(g, strings(columns, pieces), pair, start=more)
    return g.op.Squeeze(joined, [1])


def _ngrams(g: Lowering, layer: Any, words: ir.Value) -> ir.Value:
    """Join neighbouring words to n-grams of each width; the groups of each width are concatenated."""
    if layer._ngrams is None:
        return words
    if layer._split is None:
        raise g.refuse("it joins whole texts to n-grams", "split texts, or leave ngrams out")
    empty = g.constant(np.array("", object), "empty")
    groups = [_neighbours(g, words, width, empty) for width in layer._ngrams]
    grams = g.op.Concat(*groups, axis=1) if len(groups) > 1 else groups[0]
    if layer._output_mode != "int" or len(groups) == 1:
        return strings(grams, words)  # in order, or the order does not matter
    places = g.op.Range(0, g.op.Squeeze(g.op.Shape(grams, start=1)), 1)
    present = g.cast(g.op.Not(g.op.Equal(grams, empty)), "int64")
    count = g.op.Shape(grams, start=1)
    first = g.op.Sub(g.op.Mul(present, count), places)  # n-grams before padding, in their order
    _, order = g.ops.TopK(first, count, axis=1, _outputs=2)
    return strings(g.op.GatherElements(grams, order, axis=1), words)


def _neighbours(g: Lowering, words: ir.Value, width: int, empty: ir.Value) -> ir.Value:
    grams, space = words, g.constant(np.array(" ", object), "space")
    for offset in range(1, width):
        following = g.op.Slice(words, [offset], [_END], [1])
        grams = g.op.StringConcat(g.op.StringConcat(g.op.Slice(grams, [0], [-1], [1]), space), following)
        grams = g.op.Where(g.op.Equal(following, empty), empty, grams)
    return grams
