"""Characters and bytes of strings: ONNX Runtime's own Tokenizer splits them, tables map the characters."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.layers.encoding import label
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import static_shape

__all__ = ["characters", "code_points", "strings", "utf8"]

#: The characters that `utf8` supports: the Basic Multilingual Plane, and the pictographs above it.
_KNOWN = (range(1, 0xD800), range(0xE000, 0x10000), range(0x1F000, 0x1FB00))
_PADDING, _UNKNOWN = -1, -2


def characters(g: Lowering, texts: ir.Value) -> ir.Value:
    """Split texts [texts] into characters [texts, characters], padded with empty strings."""
    if g.opset < 20:
        raise g.refuse(
            "its strings need operators that came with opset 20", "compile with --opset 20 or newer"
        )
    g.graph.opset_imports.setdefault("com.microsoft", 1)
    g.warn("it splits texts with Tokenizer, an operator of ONNX Runtime only; no other runtime has it")
    options = {"separators": [""], "mark": 0, "mincharnum": 1, "pad_value": ""}
    blank = g.constant(np.array([""], object), "blank")  # without a text, Tokenizer returns no columns either
    filled = g.op.Concat(texts, blank, axis=0)
    pieces = g.op.Tokenizer(filled, **options, _domain="com.microsoft", _version=1)
    return strings(g.op.Slice(pieces, [0], [-1], [0]), texts)


def strings(value: ir.Value, rows: ir.Value) -> ir.Value:
    """Set the type and shape of 2-D strings; ONNX's inference does not support all of the operators."""
    value.dtype = ir.DataType.STRING
    value.shape = ir.Shape([static_shape(rows)[0], None])
    return value


def code_points(g: Lowering, pieces: ir.Value) -> ir.Value:
    """Return the INT64 code points of single characters, and negative numbers for padding and others."""
    table = {"": _PADDING} | {chr(code): code for codes in _KNOWN for code in codes}
    return label(g, pieces, table, _UNKNOWN)


def utf8(g: Lowering, texts: ir.Value, padding: int) -> tuple[ir.Value, ir.Value]:
    """Return the bytes of texts [texts] as INT64 [texts, bytes], padded with zeros, and
    lengths [texts, 1].

    There are at least `padding` zeros. An unsupported character makes the graph fail: an out-of-range Gather
    is the only way to raise an error in ONNX.
    """
    op = g.op
    # Add a text, which is removed at the end: without any, the Reshapes below could not infer their sizes.
    texts = op.Concat(texts, g.constant(np.array([""], object), "empty"), axis=0)
    texts.dtype, texts.shape = ir.DataType.STRING, ir.Shape([None])
    codes = code_points(g, characters(g, texts))
    unknown = g.cast(op.Equal(codes, _UNKNOWN), "int64")
    codes = op.Add(codes, op.Gather(g.constant(np.zeros(1, np.int64)), unknown))
    limits = g.constant(np.array([0, 0x80, 0x800, 0x10000]), "limits")
    sizes = op.ReduceSum(
        g.cast(op.GreaterOrEqual(op.Unsqueeze(codes, [2]), limits), "int64"), [2], keepdims=0
    )
    length = op.ReduceSum(sizes, [1], keepdims=1)
    width = op.Add(op.ReduceMax(op.Concat(op.Reshape(length, [-1]), [0], axis=0), [0], keepdims=1), padding)
    # byte j of n of a character holds the six bits from 6 (n - 1 - j) on; the first byte holds the rest
    order = g.constant(np.arange(4))
    behind = op.Sub(op.Sub(op.Unsqueeze(sizes, [2]), 1), order)
    powers = g.constant(np.array([1, 64, 64**2, 64**3]), "powers")
    high = op.Div(op.Unsqueeze(codes, [2]), op.Gather(powers, op.Max(behind, 0)))
    marks = op.Gather(g.constant(np.array([0, 0, 0xC0, 0xE0, 0xF0]), "marks"), op.Unsqueeze(sizes, [2]))
    first = op.Equal(order, 0)
    values = op.Where(first, op.Add(high, marks), op.Add(op.Mod(high, 64), 0x80))
    starts = op.Unsqueeze(op.CumSum(sizes, 1, exclusive=1), [2])
    places = op.Where(
        op.GreaterOrEqual(behind, 0), op.Add(starts, order), width
    )  # the rest go to an extra column
    flat = op.Concat(op.Shape(texts), [-1], axis=0)
    zeros = op.Expand(g.constant(np.int64(0)), op.Concat(op.Shape(texts), op.Add(width, 1), axis=0))
    filled = op.ScatterElements(zeros, op.Reshape(places, flat), op.Reshape(values, flat), axis=1)
    here = op.Slice(op.Slice(filled, [0], width, [1]), [0], [-1], [0])
    return here, op.Slice(length, [0], [-1], [0])
