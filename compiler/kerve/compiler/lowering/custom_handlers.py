"""Operators of TensorFlow that tf2onnx leaves to handlers of ours, or converts otherwise than by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

__all__ = ["TABLE"]

#: Operators that tf2onnx would convert but whose handlers do better: it knows complex numbers, tables and
#: strings in part, ragged tensors and hashes not at all, and of images it rounds sizes or loses them.
_OURS = (
    "Angle", "AsString", "Complex", "ComplexAbs", "Conj", "CropAndResize", "DenseBincount",
    "ExtractImagePatches", "ExtractVolumePatches", "FFT", "IFFT", "IRFFT", "Imag", "LookupTableFindV2",
    "LookupTableSizeV2", "RFFT", "RFFT2D", "RaggedTensorToTensor", "Real", "ResizeArea",
    "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "StaticRegexReplace", "StringLower",
    "StringSplitV2", "StringToHashBucketFast", "StringToNumber", "StringUpper", "UnicodeDecode",
    "UnicodeEncode",
)  # fmt: skip


def _leave(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Tell tf2onnx that all is done about a node."""
    return node


def _leave_one_hot(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave what ONNX has an operator of the same name for, in which -1 is the last class, not none."""
    node.type = "OneHotOrNone"
    return node


def _compare(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave comparisons of texts, which tf2onnx takes for numbers; convert others as it does."""
    from tf2onnx.onnx_opset.logical import Equal

    if context.get_dtype(node.input[0]) == onnx.TensorProto.STRING:
        node.type += "Texts"
    else:
        Equal.version_11(context, node)
    return node


def _select(context: Any, node: Any, *_: Any, **__: Any) -> None:
    """Choose numbers; tf2onnx multiplies what is not chosen by zero, which may be NaN."""
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", 1)
    Select.version_9(context, node)
    del node.attr["handles_nan"]


#: As tf2onnx takes them: a handler, and what it is given beside a node.
TABLE: Mapping[str, tuple[Callable[..., Any], list[Any]]] = {
    **dict.fromkeys(_OURS, (_leave, [])),
    "Equal": (_compare, []),
    "NotEqual": (_compare, []),
    "OneHot": (_leave_one_hot, []),
    "Select": (_select, []),
    "SelectV2": (_select, []),
}
