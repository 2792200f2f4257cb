"""Conversion between Keras's dtype names and ONNX's data types."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.errors import ConversionError

__all__ = ["FIRST_OPSET_FLOAT8", "from_onnx", "is_float", "is_integer", "require", "to_onnx"]

_ONNX: dict[str, ir.DataType] = {
    "bool": ir.DataType.BOOL,
    "int8": ir.DataType.INT8,
    "int16": ir.DataType.INT16,
    "int32": ir.DataType.INT32,
    "int64": ir.DataType.INT64,
    "uint8": ir.DataType.UINT8,
    "uint16": ir.DataType.UINT16,
    "uint32": ir.DataType.UINT32,
    "uint64": ir.DataType.UINT64,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "float32": ir.DataType.FLOAT,
    "float64": ir.DataType.DOUBLE,
    "float8_e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "float8_e5m2": ir.DataType.FLOAT8E5M2,
    "complex64": ir.DataType.COMPLEX64,
    "complex128": ir.DataType.COMPLEX128,
    "string": ir.DataType.STRING,
}
#: The first operator set with 8-bit floats.
FIRST_OPSET_FLOAT8 = 19
_KERAS = {onnx: keras for keras, onnx in _ONNX.items()}


def to_onnx(keras_dtype: str) -> ir.DataType:
    """Return the ONNX type of a Keras dtype name."""
    if keras_dtype not in _ONNX:
        raise ConversionError(f"dtype '{keras_dtype}' has no ONNX type; cast to one of: {', '.join(_ONNX)}")
    return _ONNX[keras_dtype]


def from_onnx(onnx_dtype: ir.DataType) -> str:
    """Return Keras's name of an ONNX type."""
    if onnx_dtype not in _KERAS:
        raise ConversionError(f"ONNX type {onnx_dtype.name} has no Keras dtype")
    return _KERAS[onnx_dtype]


def require(dtype: ir.DataType, opset: int) -> None:
    """Raise `ConversionError` for a type that an operator set does not have."""
    if dtype in (ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2) and opset < FIRST_OPSET_FLOAT8:
        raise ConversionError(
            f"ONNX has {from_onnx(dtype)} from operator set {FIRST_OPSET_FLOAT8} on, got --opset {opset}; "
            f"compile with --opset {FIRST_OPSET_FLOAT8} or newer"
        )


def is_float(dtype: ir.DataType) -> bool:
    """Whether values of this type are real floating point numbers."""
    return dtype.is_floating_point() and dtype not in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)


def is_integer(dtype: ir.DataType) -> bool:
    """Whether values of this type are integers (booleans are not)."""
    return dtype.is_integer()
