"""TensorFlow's operators on strings, and on the ragged tensors that splitting them gives.

What exported preprocessing (TextVectorization, above all) is made of. A ragged tensor is its values and where
its rows begin; a handler takes these as the operator does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from re import _constants as constants  # type: ignore[attr-defined]  # what its own parser returns
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.foreign import UntraceableError
from kerve.compiler.lowering.layers.characters import characters, code_points, strings
from kerve.compiler.lowering.layers.text import LOWER, SPACES, joined, standardized
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]

_END = np.iinfo(np.int64).max
_ASCII = range(1, 128)

#: What stands for the match in a rewrite: RE2's name of all of it, and of a group around all of it.
_BACKREFERENCE = re.compile(r"\\[01]")


@HANDLERS.register("tensorflow.StringLower")
def lower(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Lower the letters of ASCII, as TensorFlow does without an encoding."""
    if attributes.get("encoding"):
        raise UntraceableError("StringLower of all of Unicode's letters has no ONNX form, of ASCII's it has")
    return _replaced(g, texts, LOWER)


@HANDLERS.register("tensorflow.StringUpper")
def upper(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Raise the letters of ASCII."""
    if attributes.get("encoding"):
        raise UntraceableError("StringUpper of all of Unicode's letters has no ONNX form, of ASCII's it has")
    return _replaced(g, texts, {small: large for large, small in LOWER.items()})


@HANDLERS.register("tensorflow.StaticRegexReplace")
def regex_replace(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Replace single characters that a pattern lists, or one text by another."""
    pattern, rewrite = _text(attributes["pattern"]), _text(attributes["rewrite"])
    parsed = _parsed(pattern)
    listed, plain = _listed(pattern, parsed, removed=not rewrite), _BACKREFERENCE.sub("", rewrite)
    if attributes.get("replace_global", 1) and "\\" not in plain:
        if listed is not None:
            return _replaced(g, texts, {each: _rewritten(rewrite, each) for each in listed})
        if literal := _literal(pattern, parsed):
            return _swapped(g, texts, literal, _rewritten(rewrite, literal))
    raise UntraceableError(
        f"ONNX cannot replace what matches {pattern!r}, only a text or each of a list of characters, as [,!?]"
    )


def _rewritten(rewrite: str, match: str) -> str:
    return _BACKREFERENCE.sub(lambda _: match, rewrite)


def _swapped(g: Lowering, texts: ir.Value, old: str, new: str) -> ir.Value:
    """Replace one text by another wherever it occurs: split at it, and join by the other."""
    row = _row(g, texts)
    pieces, counts = g.ops.StringSplit(row, delimiter=old, _outputs=2)
    pieces = strings(pieces, row)
    if new:
        place = g.op.Range(0, g.op.Squeeze(g.op.Shape(pieces, start=1)), 1)
        follows = g.op.And(g.op.Greater(place, 0), g.op.Less(place, g.op.Unsqueeze(counts, [1])))
        between = g.op.Where(follows, *(g.constant(np.array(text, object), "text") for text in (new, "")))
        pieces = strings(g.op.StringConcat(between, pieces), row)
    return _as_they_lay(g, joined(g, pieces), texts)


@HANDLERS.register("tensorflow.ZerosLike")
def empty(g: Lowering, _: _Attributes, texts: ir.Value) -> ir.Value:
    """Return a text without characters for each."""
    return g.op.Expand(g.constant(np.array("", object), "empty"), g.op.Shape(texts))


@HANDLERS.register("tensorflow.AsString")
def as_string(g: Lowering, attributes: _Attributes, numbers: ir.Value) -> ir.Value:
    """Write whole numbers in decimal."""
    plain = int(attributes.get("width", -1)) < 0 and not attributes.get("fill")
    if numbers.dtype is None or not numbers.dtype.is_integer() or not plain:
        raise UntraceableError("ONNX writes only whole numbers as AsString does, and without width or fill")
    return g.cast(numbers, ir.DataType.STRING)


@HANDLERS.register("tensorflow.StringToNumber")
def to_number(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Read numbers; the graph fails where a text is none, as TensorFlow does."""
    return g.cast(texts, ir.DataType(attributes.get("out_type", ir.DataType.FLOAT)))


@HANDLERS.register("tensorflow.StringSplitV2")
def split(g: Lowering, attributes: _Attributes, texts: ir.Value, separator: ir.Value) -> Any:
    """Split texts [texts]: the words one after the other, in which text each is and where, and the counts."""
    if int(attributes.get("maxsplit", -1)) > 0:
        raise UntraceableError("StringSplitV2 with maxsplit has no ONNX form; split at every separator")
    if separator.const_value is None:
        raise UntraceableError("StringSplitV2 at a separator that is computed has no ONNX form")
    delimiter, texts = _text(separator.const_value.numpy().item()), _row(g, texts)
    if not delimiter:
        texts = standardized(g, texts, SPACES)
    words, counts = g.ops.StringSplit(texts, delimiter=delimiter, _outputs=2)
    rows = g.op.Shape(words, end=1)
    if delimiter:  # of no text, too, TensorFlow makes a word; ONNX Runtime makes none
        blank = g.op.Expand(g.constant(np.array([[""]], object), "blank"), g.op.Concat(rows, [1], axis=0))
        words, counts = g.op.Concat(words, blank, axis=1), g.op.Max(counts, 1)
    words, counts.shape = strings(words, texts), ir.Shape([None])
    width = _longest(g, counts)
    places = _places(g, counts, width)
    return places, _taken(g, words, places), g.op.Concat(rows, width, axis=0)


@HANDLERS.register("tensorflow.UnicodeDecode")
def unicode_decode(g: Lowering, _: _Attributes, texts: ir.Value) -> Any:
    """Return where the characters of each text begin, and the code points of all."""
    pieces = characters(g, _row(g, texts))
    there = g.op.Not(g.op.Equal(pieces, g.constant(np.array("", object), "empty")))
    places = g.op.Transpose(g.op.NonZero(there), perm=[1, 0])
    counts = g.op.ReduceSum(g.cast(there, "int64"), [1], keepdims=0)
    codes = g.cast(code_points(g, _taken(g, pieces, places)), "int32")
    return g.op.Concat([0], g.op.CumSum(counts, 0), axis=0), codes


@HANDLERS.register("tensorflow.UnicodeEncode")
def unicode_encode(_g: Lowering, _: _Attributes, codes: ir.Value, _splits: ir.Value) -> ir.Value:
    """Return the characters that were decoded just before, one string for each, as `unicode_split` does."""
    value: ir.Value | None = codes
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "LabelEncoder":
            found = node.inputs[0]
            assert found is not None
            return found
        if node.op_type not in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
            break
        value = node.inputs[0]
    raise UntraceableError("UnicodeEncode of code points that are computed has no ONNX form")


@HANDLERS.register("tensorflow.DenseBincount")
def bincount(
    g: Lowering, attributes: _Attributes, numbers: ir.Value, size: ir.Value, weights: ir.Value
) -> ir.Value:
    """Count how often each number below a size occurs (in each row), weigh it, or tell whether it does."""
    if weights.shape is None:
        raise UntraceableError("whether DenseBincount has weights is not known")
    assert weights.dtype is not None
    added = None if 0 in weights.shape else weights
    is_binary = bool(attributes.get("binary_output"))
    return g.cast(_counted(g, g.cast(numbers, "int64"), size, added, is_binary=is_binary), weights.dtype)


@HANDLERS.register("tensorflow.RaggedBincount")
def ragged_bincount(
    g: Lowering,
    attributes: _Attributes,
    splits: ir.Value,
    numbers: ir.Value,
    size: ir.Value,
    weights: ir.Value,
) -> ir.Value:
    """Count how often each number below a size occurs in each row, or only whether it does."""
    if weights.shape is None or weights.shape[0] != 0 or not _is_row(numbers):
        raise UntraceableError("RaggedBincount with weights, or of rows in rows, has no ONNX form")
    assert weights.dtype is not None
    counts, size = _between(g, splits), g.op.Reshape(g.cast(size, "int64"), [1])
    numbers = g.cast(numbers, "int64")
    rows = g.op.Slice(_places(g, counts, _longest(g, counts)), [0], [1], [1])
    slots = g.op.Where(g.op.Less(numbers, size), numbers, size)  # one more, for what is dropped
    zeros = g.op.Expand(g.constant(np.int64(0)), g.op.Concat(g.op.Shape(counts), g.op.Add(size, 1), axis=0))
    filled = g.op.ScatterND(
        zeros,
        g.op.Concat(rows, g.op.Unsqueeze(slots, [1]), axis=1),
        g.op.Expand(g.constant(np.int64(1)), g.op.Shape(numbers)),
        reduction="none" if attributes.get("binary_output") else "add",
    )
    counted = g.cast(g.op.Slice(filled, [0], size, [1]), weights.dtype)
    counted.dtype, counted.shape = weights.dtype, ir.Shape([None, None])
    return counted


@HANDLERS.register("tensorflow.RaggedTensorToTensor")
def ragged_to_dense(
    g: Lowering,
    attributes: _Attributes,
    shape: ir.Value,
    values: ir.Value,
    default: ir.Value,
    *rows: ir.Value,
) -> ir.Value:
    """Lay rows of various lengths, and rows within rows, beside each other, filled up to the longest."""
    assert values.dtype is not None
    if shape.const_value is None:
        raise UntraceableError("RaggedTensorToTensor to a shape that is computed has no ONNX form")
    levels = list(_levels(g, [_text(kind) for kind in attributes["row_partition_types"]], rows))
    widths = [_longest(g, counts) for counts in levels]
    places = _places(g, levels[0], widths[0])
    for counts, width in zip(levels[1:], widths[1:], strict=True):
        found = _places(g, counts, width)
        outer, column = (g.op.Slice(found, [part], [part + 1], [1]) for part in (0, 1))
        places = g.op.Concat(g.op.Gather(places, g.op.Squeeze(outer, [1])), column, axis=1)
    inner = g.op.Shape(values, start=1)
    empty = g.op.Expand(default, g.op.Concat(g.op.Shape(levels[0]), *widths, inner, axis=0))
    dense = g.op.ScatterND(empty, places, values)
    lengths = _lengths(shape, len(levels) + 1)
    for axis, length in enumerate(lengths):
        if length is not None:
            sizes = (g.op.Shape(dense, end=axis), [length], g.op.Shape(dense, start=axis + 1))
            margin = g.op.Expand(default, g.op.Concat(*sizes, axis=0))
            dense = g.op.Slice(g.op.Concat(dense, margin, axis=axis), [0], [length], [axis])
    dense.dtype = values.dtype
    dense.shape = ir.Shape([*lengths, *(values.shape[1:] if values.shape is not None else ())])
    return dense


def _lengths(shape: ir.Value, count: int) -> list[int | None]:
    """Return what each of so many first axes is cut or filled up to; None for the longest row."""
    assert shape.const_value is not None
    told = [*shape.const_value.numpy().reshape(-1).tolist(), *[-1] * count][:count]
    return [length if length >= 0 else None for length in told]


def _levels(g: Lowering, kinds: Sequence[str], rows: Sequence[ir.Value]) -> Iterator[ir.Value]:
    """Return how many values each row has, from the outermost rows to the innermost."""
    size: Any = None  # of how many rows the next level is
    for kind, row in zip(kinds, rows, strict=True):
        if kind == "FIRST_DIM_SIZE":
            size = row
            continue
        counts = _between(g, row) if kind == "ROW_SPLITS" else _counted(g, g.cast(row, "int64"), size)
        size = g.op.ReduceSum(counts)
        yield counts


def _between(g: Lowering, splits: ir.Value) -> ir.Value:
    splits = g.cast(splits, "int64")
    return g.op.Sub(g.op.Slice(splits, [1], [_END]), g.op.Slice(splits, [0], [-1]))


def _counted(
    g: Lowering,
    numbers: ir.Value,
    size: ir.Value,
    weights: ir.Value | None = None,
    *,
    is_binary: bool = False,
) -> ir.Value:
    """Return how often each INT64 number below a size occurs in a row of them, or in each of several."""
    size = g.op.Reshape(g.cast(size, "int64"), [1])
    slots = g.op.Where(g.op.Less(numbers, size), numbers, size)  # one more, for what is dropped
    added = g.op.Expand(g.constant(np.int64(1)), g.op.Shape(numbers)) if weights is None else weights
    rows = g.op.Shape(numbers, end=-1)
    zero = g.cast_like(g.constant(np.int64(0)), added)
    zeros = g.op.Expand(zero, g.op.Concat(rows, g.op.Add(size, 1), axis=0))
    reduction = "none" if is_binary else "add"
    filled = g.op.ScatterElements(zeros, slots, added, axis=-1, reduction=reduction)
    counts = g.op.Slice(filled, [0], size, [-1])
    assert added.dtype is not None
    counts.dtype, counts.shape = added.dtype, ir.Shape([None] * (1 if _is_row(numbers) else 2))
    return counts


def _is_row(x: ir.Value) -> bool:
    """Whether elements lie in one row; those of which inference lost the shape may."""
    return x.shape is None or len(x.shape) == 1


def _row(g: Lowering, texts: ir.Value) -> ir.Value:
    """Return texts as they follow each other, in one row."""
    if texts.shape is not None and len(texts.shape) == 1:
        return texts
    row = g.op.Reshape(texts, [-1])
    row.dtype, row.shape = ir.DataType.STRING, ir.Shape([None])
    return row


def _replaced(g: Lowering, texts: ir.Value, table: Mapping[str, str]) -> ir.Value:
    """Replace characters of texts, however they lie."""
    return _as_they_lay(g, standardized(g, _row(g, texts), table), texts)


def _as_they_lay(g: Lowering, row: ir.Value, texts: ir.Value) -> ir.Value:
    """Arrange texts in one row as others lie."""
    result = (
        row if texts.shape is not None and len(texts.shape) == 1 else g.op.Reshape(row, g.op.Shape(texts))
    )
    result.dtype, result.shape = ir.DataType.STRING, texts.shape
    return result


def _longest(g: Lowering, counts: ir.Value) -> ir.Value:
    """Return the greatest count [1], 0 if there is none."""
    return g.op.ReduceMax(g.op.Concat([0], counts, axis=0), keepdims=1)


def _places(g: Lowering, counts: ir.Value, width: ir.Value) -> ir.Value:
    """Return row and column [elements, 2] of what fills so many columns of each row, row by row."""
    columns = g.op.Range(0, g.op.Squeeze(width), 1)
    return g.op.Transpose(g.op.NonZero(g.op.Less(columns, g.op.Unsqueeze(counts, [1]))), perm=[1, 0])


def _taken(g: Lowering, texts: ir.Value, places: ir.Value) -> ir.Value:
    values = g.op.GatherND(texts, places)
    values.dtype, values.shape = ir.DataType.STRING, ir.Shape([None])
    return values


def _parsed(pattern: str) -> list[Any]:
    """Return what a pattern consists of; a group around all of it changes nothing."""
    try:
        parsed = list(parser.parse(pattern, re.ASCII))
    except re.error:
        return []
    if len(parsed) == 1 and parsed[0][0] is constants.SUBPATTERN and parsed[0][1][1:3] == (0, 0):
        return list(parsed[0][1][3])
    return parsed


def _literal(pattern: str, parsed: list[Any]) -> str:
    """Return the text that is all that a pattern matches, "" if there is none."""
    plain = all(each[0] is constants.LITERAL for each in parsed) and "(?" not in pattern
    return "".join(chr(each[1]) for each in parsed) if plain else ""


def _listed(pattern: str, parsed: list[Any], *, removed: bool) -> list[str] | None:
    """Return the characters that a pattern matches, if it matches one at a time.

    Where they are `removed`, one or more at a time are the same.
    """
    if removed and len(parsed) == 1 and parsed[0][0] is constants.MAX_REPEAT and parsed[0][1][0] == 1:
        parsed = list(parsed[0][1][2])
    if len(parsed) != 1:
        return None
    kind, content = parsed[0]
    if kind is constants.LITERAL:
        return [chr(content)]
    if kind is not constants.IN or content[0][0] is constants.NEGATE:
        return None
    if any(each[0] is constants.CATEGORY and "NOT" in str(each[1]) for each in content):
        return None
    literal = {chr(each[1]) for each in content if each[0] is constants.LITERAL}
    known = {chr(code) for code in _ASCII if re.fullmatch(pattern, chr(code), re.ASCII)}
    ranges = [each[1] for each in content if each[0] is constants.RANGE]
    return sorted(literal | known | {chr(code) for low, high in ranges for code in range(low, high + 1)})


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
