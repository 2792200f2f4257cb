"""Operators of TensorFlow that tf2onnx leaves to handlers of ours, or converts otherwise than by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

__all__ = ["TABLE"]

#: Operators that tf2onnx would convert but whose handlers do better: it knows complex numbers, tables and
#: strings in part, ragged tensors and hashes not at all, and of images it rounds sizes or loses them. It
#: divides integers towards zero and compares them as float32, takes segments for what all of them hold, and
#: quantizes with ties to even.
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
    """Tell tf2onnx that all is done about a node."""
    return node


def _keep_apart(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave what ONNX has another operator of the same name for."""
    node.domain = "tensorflow"
    return node


def _leave_one_hot(_context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave what ONNX has an operator of the same name for, in which -1 is the last class, not none."""
    node.type = "OneHotOrNone"
    return node


def _diagonal(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave one diagonal: tf2onnx takes a batch of one row for several of them."""
    from tf2onnx.onnx_opset.tensor import MatrixDiag

    if len(node.input) == 1 or context.get_rank(node.input[1]) == 0:
        return node
    return MatrixDiag.version_12(context, node)


def _pad(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave complex numbers, of which tf2onnx makes real ones and complex ones again."""
    from tf2onnx.onnx_opset.nn import Pad

    if context.get_dtype(node.input[0]) not in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return Pad.version_11(context, node)
    node.type = "PadParts"
    return node


def _convolve_volumes(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Convolve volumes in groups, which tf2onnx sees in images alone; convert others as it does."""
    from tf2onnx.onnx_opset.nn import ConvOp

    axis = 1 if node.get_attr_str("data_format") == "NCDHW" else -1
    channels, of_each = context.get_shape(node.input[0])[axis], context.get_shape(node.input[1])[-2]
    ConvOp.version_13(context, node)
    if channels > 0 and of_each > 0:
        node.set_attr("group", channels // of_each)
    return node


def _slice(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave sizes that are computed, of which tf2onnx takes -1 for a number."""
    from tf2onnx.onnx_opset.tensor import Slice

    if node.inputs[2].is_const():
        return Slice.version_11(context, node)
    node.type = "SliceOfSize"
    return node


def _leave_list(context: Any, node: Any, *arguments: Any, **options: Any) -> Any:
    """Leave lists of tensors, under names that tf2onnx's loops do not look for: to these, whatever a loop
    writes, it writes in order, and once in each round. Lists of ragged rows stay tf2onnx's.
    """
    from tf2onnx.onnx_opset import controlflow

    if _is_ragged(node) and hasattr(controlflow, node.type):
        return getattr(controlflow, node.type).version_7(context, node, *arguments, **options)
    node.type = node.type.replace("TensorList", "List")
    return node


def _is_ragged(node: Any) -> bool:
    """Whether the elements of a list are of TensorFlow's type for anything, as rows of ragged tensors are."""
    return node.get_attr_value("element_dtype") == onnx.TensorProto.UNDEFINED


def _compare(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave comparisons of texts, which tf2onnx takes for numbers; convert others as it does."""
    from tf2onnx.onnx_opset.logical import Equal

    if context.get_dtype(node.input[0]) == onnx.TensorProto.STRING:
        node.type += "Texts"
    else:
        Equal.version_11(context, node)
    return node


def _zeros(context: Any, node: Any, *_: Any, **__: Any) -> Any:
    """Leave texts, of which tf2onnx would make numbers; convert others as it does."""
    from tf2onnx.onnx_opset.generator import ZerosLike

    if context.get_dtype(node.input[0]) != onnx.TensorProto.STRING:
        ZerosLike.version_9(context, node)
    return node


def _select(context: Any, node: Any, *_: Any, **__: Any) -> None:
    """Choose numbers; tf2onnx multiplies what is not chosen by zero, which may be NaN."""
    from tf2onnx.onnx_opset.controlflow import Select

    node.set_attr("handles_nan", 1)
    Select.version_9(context, node)
    del node.attr["handles_nan"]


#: Operators of TensorFlow with the names of others in ONNX, which tf2onnx does not convert, or not rightly
#: (capitals in an equation of Einsum become small letters).
_NAMESAKES = ("Conv", "Einsum", "Mod", "NonMaxSuppression", "RegexFullMatch", "StringSplit", "TopK")

_LISTS = (
    "EmptyTensorList", "TensorListConcatLists", "TensorListConcatV2", "TensorListFromTensor",
    "TensorListGather", "TensorListGetItem", "TensorListLength", "TensorListPopBack", "TensorListPushBack",
    "TensorListReserve", "TensorListResize", "TensorListScatterIntoExistingList", "TensorListScatterV2",
    "TensorListSetItem", "TensorListStack",
)  # fmt: skip

#: As tf2onnx takes them: a handler, and what it is given beside a node.
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
