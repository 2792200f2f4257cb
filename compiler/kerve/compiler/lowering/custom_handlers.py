"""Custom handlers for tf2onnx, for operators that are left to our handlers or converted differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

__all__ = ["TABLE"]

#: Operators that our handlers convert better than tf2onnx: it supports complex numbers, tables and strings
#: only in part, ragged tensors and hashes not at all, and rounds or loses the sizes of images. It divides
#: integers towards zero and compares them as float32, mishandles negative and empty segments, and quantizes
#: with ties to even.
_OURS = (
    "AdjustSaturation", "Angle", "AsString", "Complex", "ComplexAbs", "Conj", "CropAndResize",
    "DenseBincount", "ExtractImagePatches", "ExtractVolumePatches", "FFT", "FakeQuantWithMinMaxArgs",
    "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel", "FloorDiv", "FloorMod", "Greater",
    "IFFT", "IRFFT", "Imag", "InvertPermutation", "Less", "LookupTableFindV2",
    "LookupTableSizeV2", "MatrixBandPart", "RFFT", "RFFT2D", "RaggedTensorToTensor", "Real",
    "ReduceJoin", "ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "ScatterNd",
    "SegmentMax", "SegmentMean", "SegmentMin", "SegmentProd", "SegmentSum", "SparseCross", "SparseMatMul",
    "SparseSegmentMean", "SparseSegmentMeanWithNumSegments", "SparseSegmentSqrtN",
    "SparseSegmentSqrtNWithNumSegments", "SparseSegmentSum", "SparseSegmentSumWithNumSegments",
    "SparseSoftmaxCrossEntropyWithLogits", "SparseTensorDenseMatMul", "StaticRegexFullMatch",
    "StaticRegexReplace", "StringJoin",
    "StringLength", "StringLower", "StringNGrams", "StringSplitV2", "StringStrip", "StringToHashBucketFast",
    "StringToNumber", "StringUpper", "Substr",
    "TopKV2", "TruncateDiv", "UnicodeDecode", "UnicodeEncode", "UnsortedSegmentMax", "UnsortedSegmentMin",
    "UnsortedSegmentProd", "UnsortedSegmentSum",
)  # fmt: skip


def _leave(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave a node unchanged for a handler of ours."""
    return node


def _keep_apart(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave a node whose type is also the name of another ONNX operator."""
    node.domain = "tensorflow"
    return node


def _leave_one_hot(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Rename OneHot: in ONNX's operator of this name, -1 is the last class instead of none."""
    node.type = "OneHotOrNone"
    return node


def _diagonal(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave single diagonals: tf2onnx takes a batch of one row for several diagonals."""
    from tf2onnx.onnx_opset.tensor import MatrixDiag

    if len(node.input) == 1 or context.get_rank(node.input[1]) == 0:
        return node
    return MatrixDiag.version_12(context, node)


def _pad(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave padding of complex numbers, which tf2onnx converts to real numbers and back."""
    from tf2onnx.onnx_opset.nn import Pad

    if context.get_dtype(node.input[0]) not in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return Pad.version_11(context, node)
    node.type = "PadParts"
    return node


def _convolve_volumes(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Convert Conv3D as tf2onnx does, and set the groups, which it detects only in 2D."""
    from tf2onnx.onnx_opset.nn import ConvOp

    axis = 1 if node.get_attr_str("data_format") == "NCDHW" else -1
    channels, of_each = context.get_shape(node.input[0])[axis], context.get_shape(node.input[1])[-2]
    ConvOp.version_13(context, node)
    if channels > 0 and of_each > 0:
        node.set_attr("group", channels // of_each)
    return node


def _slice(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave slices with computed sizes, among which tf2onnx takes -1 literally."""
    from tf2onnx.onnx_opset.tensor import Slice

    if node.inputs[2].is_const():
        return Slice.version_11(context, node)
    node.type = "SliceOfSize"
    return node


def _leave_list(context: Any, node: Any, *arguments: Any, **options: Any) -> Any:
    """Leave lists of tensors, under names that tf2onnx's loops do not look for: those assume that a loop
    writes elements in order and one in each iteration. Lists of ragged rows are left to tf2onnx.
    """
    from tf2onnx.onnx_opset import controlflow

    if _is_ragged(node) and hasattr(controlflow, node.type):
        return getattr(controlflow, node.type).version_7(context, node, *arguments, **options)
    node.type = node.type.replace("TensorList", "List")
    return node


def _is_ragged(node: Any) -> bool:
    """Whether the elements of a list have TensorFlow's variant type, as rows of ragged tensors do."""
    return node.get_attr_value("element_dtype") == onnx.TensorProto.UNDEFINED


def _compare(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave comparisons of strings, which tf2onnx treats as numbers; convert others as it does."""
    from tf2onnx.onnx_opset.logical import Equal

    if context.get_dtype(node.input[0]) == onnx.TensorProto.STRING:
        node.type += "Texts"
    else:
        Equal.version_11(context, node)
    return node


def _zeros(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave strings, which tf2onnx would turn into numbers; convert other types as it does."""
    from tf2onnx.onnx_opset.generator import ZerosLike

    if context.get_dtype(node.input[0]) != onnx.TensorProto.STRING:
        ZerosLike.version_9(context, node)
    return node


def _select(context: Any, node: Any, *_: Any, **__: Any) -> None:
    """Convert with `handles_nan`: otherwise tf2onnx multiplies rejected values by zero, which keeps NaN."""
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", 1)
    Select.version_9(context, node)
    del node.attr["handles_nan"]


#: Operators of TensorFlow with names of different ONNX operators, which tf2onnx does not convert or converts
#: wrongly (it lowercases the equation of Einsum).
_NAMESAKES = ("Conv", "Einsum", "Mod", "NonMaxSuppression", "RegexFullMatch", "StringSplit", "TopK")

_LISTS = (
    "EmptyTensorList", "TensorListConcatLists", "TensorListConcatV2", "TensorListFromTensor",
    "TensorListGather", "TensorListGetItem", "TensorListLength", "TensorListPopBack", "TensorListPushBack",
    "TensorListReserve", "TensorListResize", "TensorListScatterIntoExistingList", "TensorListScatterV2",
    "TensorListSetItem", "TensorListStack",
)  # fmt: skip

#: The format of tf2onnx: a handler and its extra arguments.
TABLE: Mapping[str, tuple[Callable[..., Any], list[Any]]] = {
    **dict.fromkeys(_OURS, (_leave, [])),
    **dict.fromkeys(_NAMESAKES, (_keep_apart, [])),
    **dict.fromkeys(_LISTS, (_leave_list, [])),
    "Conv3D": (_convolve_volumes, []),
    "Equal": (_compare, []),
    "NotEqual": (_compare, []),
    **dict.fromkeys(("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3"), (_diagonal, [])),
    "OneHot": (_leave_one_hot, []),
    "Pad": (_pad, []),
    "Select": (_select, []),
    "SelectV2": (_select, []),
    "Slice": (_slice, []),
    "ZerosLike": (_zeros, []),
}
