"""Merge Casts through a wider type, which has no effect."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import is_op

__all__ = ["MergeCasts"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_SHORT_FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_WIDE_INTS = (ir.DataType.INT32, ir.DataType.INT64)

#: The types that represent every value of a type.
_HOLDERS: Mapping[ir.DataType, tuple[ir.DataType, ...]] = {
    ir.DataType.BOOL: (
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT16,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        *_WIDE_INTS,
        *_SHORT_FLOATS,
        *_FLOATS,
    ),
    ir.DataType.UINT8: (
        ir.DataType.INT16,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        *_WIDE_INTS,
        *_SHORT_FLOATS,
        *_FLOATS,
    ),
    ir.DataType.INT8: (ir.DataType.INT16, *_WIDE_INTS, *_SHORT_FLOATS, *_FLOATS),
    ir.DataType.UINT16: (ir.DataType.UINT32, ir.DataType.UINT64, *_WIDE_INTS, *_FLOATS),
    ir.DataType.INT16: (*_WIDE_INTS, *_FLOATS),
    ir.DataType.UINT32: (ir.DataType.UINT64, ir.DataType.INT64, ir.DataType.DOUBLE),
    ir.DataType.INT32: (ir.DataType.INT64, ir.DataType.DOUBLE),
    ir.DataType.FLOAT16: _FLOATS,
    ir.DataType.BFLOAT16: _FLOATS,
    ir.DataType.FLOAT: (ir.DataType.DOUBLE,),
}


class MergeCasts(ir.passes.InPlacePass):
    """Remove Casts to the same type, and the first of two Casts if it is lossless."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merge in every graph of the model."""
        editor = Editor(model)
        modified = False
        for graph in list(model.graphs()):
            for node in list(graph):
                if is_op(node, "Cast"):
                    modified |= _merge(node, editor)
        return ir.passes.PassResult(model, modified)


def _merge(cast: ir.Node, editor: Editor) -> bool:
    value, result = cast.inputs[0], cast.outputs[0]
    if value is None or value.dtype is None:
        return False
    target = ir.DataType(cast.attributes["to"].as_int())
    if value.dtype == target:
        editor.replace(result, value)
        return True
    inner = value.producer()
    source = None if inner is None or not is_op(inner, "Cast") else inner.inputs[0]
    if source is None or source.dtype is None or value.dtype not in _HOLDERS.get(source.dtype, ()):
        return False
    if source.dtype == target:
        editor.replace(result, source)
        return True
    if target not in _HOLDERS.get(source.dtype, ()) and not target.is_floating_point():
        return False  # integers and floats out of range are converted differently
    cast.replace_input_with(0, source)
    return True
