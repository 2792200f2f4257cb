"""TensorFlow's operators on strings, and on the ragged tensors that result from splitting them.

They occur in exported preprocessing (mostly TextVectorization). A ragged tensor consists of its values and
the splits of its rows; handlers take these as the operators do.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.layers.characters import characters, code_points, strings
from kerve.compiler.lowering.layers.encoding import label
from kerve.compiler.lowering.layers.text import LOWER, SPACES, joined, standardized
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.tracing import UntraceableError

__all__ = [
    "HANDLERS",
    "flatten_texts",
    "is_present",
    "of_pieces",
    "pad_rows",
    "replaced",
    "restore_layout",
    "row_lengths",
    "separated",
    "taken",
    "text_of",
]

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]

_END = np.iinfo(np.int64).max


@HANDLERS.register("tensorflow.StringLower")
def lower(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Convert ASCII letters to lower case, as TensorFlow does without an encoding."""
    if attributes.get("encoding"):
        raise UntraceableError("StringLower has an ONNX form only for ASCII letters (without encoding)")
    return replaced(g, texts, LOWER)


@HANDLERS.register("tensorflow.StringUpper")
def upper(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Convert ASCII letters to upper case."""
    if attributes.get("encoding"):
        raise UntraceableError("StringUpper has an ONNX form only for ASCII letters (without encoding)")
    return replaced(g, texts, {small: large for large, small in LOWER.items()})


@HANDLERS.register("tensorflow.StringStrip")
def strip(g: Lowering, _: _Attributes, texts: ir.Value) -> ir.Value:
    """Strip ASCII whitespace at both ends."""
    row = flatten_texts(g, texts)
    pieces = characters(g, row)
    solid = g.cast(g.op.Equal(label(g, pieces, dict.fromkeys(["", *string.whitespace], 1), 0), 0), "int64")
    begun, continued = g.op.CumSum(solid, 1), g.op.CumSum(solid, 1, reverse=1)
    inside = g.op.And(g.op.Greater(begun, 0), g.op.Greater(continued, 0))
    return of_pieces(g, pieces, inside, texts)


@HANDLERS.register("tensorflow.StringJoin")
def join(g: Lowering, attributes: _Attributes, *texts: ir.Value) -> ir.Value:
    """Join texts elementwise; scalars are broadcast."""
    separator = text_of(attributes.get("separator", ""))
    whole, *others = texts
    for other in others:
        shapes = [each.shape for each in (whole, other) if each.shape is not None]
        if separator:
            whole = g.op.StringConcat(whole, g.constant(np.array(separator, object), "separator"))
        whole = g.op.StringConcat(whole, other)
        whole.dtype = ir.DataType.STRING
        whole.shape = max(shapes, key=len) if len(shapes) == 2 else None
    return whole


@HANDLERS.register("tensorflow.ReduceJoin")
def reduce_join(g: Lowering, attributes: _Attributes, texts: ir.Value, axes: ir.Value) -> ir.Value:
    """Join texts along the last axis."""
    if texts.shape is None or axes.const_value is None:
        raise UntraceableError("the rank or the axes of ReduceJoin are not known")
    rank = len(texts.shape)
    if [int(axis) % rank for axis in axes.const_value.numpy().reshape(-1)] != [rank - 1]:
        raise UntraceableError("ReduceJoin has an ONNX form over the last axis only")
    table = g.op.Reshape(texts, g.op.Concat([-1], g.op.Shape(texts, start=-1), axis=0))
    table.dtype, table.shape = ir.DataType.STRING, ir.Shape([None, texts.shape[-1]])
    if separator := text_of(attributes.get("separator", "")):
        table = separated(g, table, separator, g.op.Shape(table, start=1))
    rest = ir.Shape(texts.shape[:-1])
    whole = g.op.Reshape(joined(g, table), g.op.Shape(texts, end=-1))
    if attributes.get("keep_dims"):
        whole, rest = g.op.Unsqueeze(whole, [-1]), ir.Shape([*rest, 1])
    whole.dtype, whole.shape = ir.DataType.STRING, rest
    return whole


def separated(g: Lowering, pieces: ir.Value, separator: str, counts: ir.Value) -> ir.Value:
    """Prepend a separator to all but the first of the `counts` pieces of each row [texts, pieces]."""
    place = g.op.Range(0, g.op.Squeeze(g.op.Shape(pieces, start=1)), 1)
    follows = g.op.And(g.op.Greater(place, 0), g.op.Less(place, counts))
    between = g.op.Where(follows, *(g.constant(np.array(text, object), "text") for text in (separator, "")))
    return strings(g.op.StringConcat(between, pieces), pieces)


@HANDLERS.register("tensorflow.ZerosLike")
def empty(g: Lowering, _: _Attributes, texts: ir.Value) -> ir.Value:
    """Return empty strings in the shape of `texts`."""
    return g.op.Expand(g.constant(np.array("", object), "empty"), g.op.Shape(texts))


@HANDLERS.register("tensorflow.AsString")
def as_string(g: Lowering, attributes: _Attributes, numbers: ir.Value) -> ir.Value:
    """Format integers in decimal."""
    plain = int(attributes.get("width", -1)) < 0 and not attributes.get("fill")
    if numbers.dtype is None or not numbers.dtype.is_integer() or not plain:
        raise UntraceableError("AsString has an ONNX form only for integers, without width and fill")
    return g.cast(numbers, ir.DataType.STRING)


@HANDLERS.register("tensorflow.StringToNumber")
def to_number(g: Lowering, attributes: _Attributes, texts: ir.Value) -> ir.Value:
    """Parse numbers; the graph fails if a text is not a number, as in TensorFlow."""
    return g.cast(texts, ir.DataType(attributes.get("out_type", ir.DataType.FLOAT)))


@HANDLERS.register("tensorflow.StringSplitV2")
def split(g: Lowering, attributes: _Attributes, texts: ir.Value, separator: ir.Value) -> Any:
    """Split texts [texts] into a sparse tensor: the text and position of each word, the words, the shape."""
    if int(attributes.get("maxsplit", -1)) > 0:
        raise UntraceableError("StringSplitV2 with maxsplit has no ONNX form; split at every separator")
    if separator.const_value is None:
        raise UntraceableError("StringSplitV2 at a separator that is computed has no ONNX form")
    delimiter, texts = text_of(separator.const_value.numpy().item()), flatten_texts(g, texts)
    if not delimiter:
        texts = standardized(g, texts, SPACES)
    words, counts = g.ops.StringSplit(texts, delimiter=delimiter, _outputs=2)
    rows = g.op.Shape(words, end=1)
    if delimiter:  # TensorFlow splits an empty text into one word, ONNX Runtime into none
        blank = g.op.Expand(g.constant(np.array([[""]], object), "blank"), g.op.Concat(rows, [1], axis=0))
        words, counts = g.op.Concat(words, blank, axis=1), g.op.Max(counts, 1)
    words, counts.shape = strings(words, texts), ir.Shape([None])
    width = _longest(g, counts)
    places = _places(g, counts, width)
    return places, taken(g, words, places), g.op.Concat(rows, width, axis=0)


@HANDLERS.register("tensorflow.UnicodeDecode")
def unicode_decode(g: Lowering, _: _Attributes, texts: ir.Value) -> Any:
    """Return the row splits of the characters of all texts, and their code points."""
    pieces = characters(g, flatten_texts(g, texts))
    present = is_present(g, pieces)
    places = g.op.Transpose(g.op.NonZero(present), perm=[1, 0])
    counts = g.op.ReduceSum(g.cast(present, "int64"), [1], keepdims=0)
    codes = g.cast(code_points(g, taken(g, pieces, places)), "int32")
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
    """Return the (weighted) count of each number below a size, in each row, or whether it occurs."""
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
    """Return the count of each number below a size in each row, or only whether it occurs."""
    if weights.shape is None or weights.shape[0] != 0 or not _is_row(numbers):
        raise UntraceableError("RaggedBincount with weights, or of nested rows, has no ONNX form")
    assert weights.dtype is not None
    counts, size = row_lengths(g, splits), g.op.Reshape(g.cast(size, "int64"), [1])
    numbers = g.cast(numbers, "int64")
    rows = g.op.Slice(_places(g, counts, _longest(g, counts)), [0], [1], [1])
    slots = g.op.Where(g.op.Less(numbers, size), numbers, size)  # an extra slot for dropped numbers
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
    """Convert ragged rows, also nested ones, to a dense tensor, padded to the longest."""
    assert values.dtype is not None
    if shape.const_value is None:
        raise UntraceableError("RaggedTensorToTensor to a shape that is computed has no ONNX form")
    levels = list(_levels(g, [text_of(kind) for kind in attributes["row_partition_types"]], rows))
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
    """Return the sizes to which the first `count` axes are truncated or padded; None for the longest row."""
    assert shape.const_value is not None
    lengths = [*shape.const_value.numpy().reshape(-1).tolist(), *[-1] * count][:count]
    return [length if length >= 0 else None for length in lengths]


def _levels(g: Lowering, kinds: Sequence[str], rows: Sequence[ir.Value]) -> Iterator[ir.Value]:
    """Yield the number of values of each row, from the outermost level to the innermost."""
    size: Any = None  # the number of rows of the next level
    for kind, row in zip(kinds, rows, strict=True):
        if kind == "FIRST_DIM_SIZE":
            size = row
            continue
        counts = row_lengths(g, row) if kind == "ROW_SPLITS" else _counted(g, g.cast(row, "int64"), size)
        size = g.op.ReduceSum(counts)
        yield counts


def is_present(g: Lowering, pieces: ir.Value) -> ir.Value:
    """Return which pieces of texts [texts, pieces] are present; rows are padded with empty ones."""
    return g.op.Not(g.op.Equal(pieces, g.constant(np.array("", object), "empty")))


def of_pieces(g: Lowering, pieces: ir.Value, chosen: ir.Value, texts: ir.Value) -> ir.Value:
    """Join the chosen pieces [texts, pieces], in the shape of the texts that were split."""
    kept = g.op.Where(chosen, pieces, g.constant(np.array("", object), "empty"))
    return restore_layout(g, joined(g, strings(kept, pieces)), texts)


def pad_rows(g: Lowering, texts: ir.Value, counts: ir.Value) -> ir.Value:
    """Arrange texts in rows of `counts` texts each, padded with empty ones."""
    width = _longest(g, counts)
    empty = g.op.Expand(
        g.constant(np.array("", object), "empty"), g.op.Concat(g.op.Shape(counts), width, axis=0)
    )
    return strings(g.op.ScatterND(empty, _places(g, counts, width), texts), counts)


def row_lengths(g: Lowering, splits: ir.Value) -> ir.Value:
    """Return the number of values of each row from row splits."""
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
    """Return the count of each INT64 number below a size, in a vector or in each row of a matrix."""
    size = g.op.Reshape(g.cast(size, "int64"), [1])
    slots = g.op.Where(g.op.Less(numbers, size), numbers, size)  # an extra slot for dropped numbers
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
    """Whether a value is a vector; assumed if inference lost its shape."""
    return x.shape is None or len(x.shape) == 1


def flatten_texts(g: Lowering, texts: ir.Value) -> ir.Value:
    """Flatten texts to a vector."""
    if texts.shape is not None and len(texts.shape) == 1:
        return texts
    row = g.op.Reshape(texts, [-1])
    row.dtype, row.shape = ir.DataType.STRING, ir.Shape([None])
    return row


def replaced(g: Lowering, texts: ir.Value, table: Mapping[str, str]) -> ir.Value:
    """Replace characters of texts of any shape."""
    return restore_layout(g, standardized(g, flatten_texts(g, texts), table), texts)


def restore_layout(g: Lowering, row: ir.Value, texts: ir.Value) -> ir.Value:
    """Reshape a vector of texts to the shape of others."""
    result = (
        row if texts.shape is not None and len(texts.shape) == 1 else g.op.Reshape(row, g.op.Shape(texts))
    )
    result.dtype, result.shape = ir.DataType.STRING, texts.shape
    return result


def _longest(g: Lowering, counts: ir.Value) -> ir.Value:
    """Return the largest count [1], 0 if there is none."""
    return g.op.ReduceMax(g.op.Concat([0], counts, axis=0), keepdims=1)


def _places(g: Lowering, counts: ir.Value, width: ir.Value) -> ir.Value:
    """Return row and column [elements, 2] of the first `counts` elements of each row, row by row."""
    columns = g.op.Range(0, g.op.Squeeze(width), 1)
    return g.op.Transpose(g.op.NonZero(g.op.Less(columns, g.op.Unsqueeze(counts, [1]))), perm=[1, 0])


def taken(g: Lowering, texts: ir.Value, places: ir.Value) -> ir.Value:
    """Return the texts at indices [texts, axes], as a vector."""
    values = g.op.GatherND(texts, places)
    values.dtype, values.shape = ir.DataType.STRING, ir.Shape([None])
    return values


def text_of(value: Any) -> str:
    """Return an attribute, or an element of a constant, as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
