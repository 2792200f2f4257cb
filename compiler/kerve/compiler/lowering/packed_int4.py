"""Lower weights that Keras packs two to a byte (int4, GPTQ, AWQ) to ONNX's 4-bit integers.

Keras unpacks and dequantizes such weights in every call. Unchanged, its code would do so while the model is
lowered, and the file would hold weights of eight times the size. ONNX Runtime evaluates subgraphs of
constants when it loads a model: so the file is as small as Keras's, and computes as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import ml_dtypes
from keras.src import quantizers
from keras.src.layers.core import dense, einsum_dense, embedding, reversible_embedding

from kerve.compiler.lowering.initializers import as_array
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import Symbol, is_symbol

__all__ = ["replacements"]

#: The first operator set with 4-bit types.
_FIRST_OPSET = 21

_TYPES = {"int8": ml_dtypes.int4, "uint8": ml_dtypes.uint4}


def replacements(g: Lowering) -> Iterator[tuple[object, str, object]]:
    """Return (owner, attribute, replacement) for the functions that unpack and dequantize weights."""
    if g.graph.opset_imports[""] < _FIRST_OPSET:
        return
    yield quantizers, "unpack_int4", _unpacked(g, quantizers.unpack_int4)
    for module in (dense, einsum_dense, embedding, reversible_embedding):
        if hasattr(module, "dequantize_with_sz_map"):  # not in all of them before Keras 3.15
            yield module, "dequantize_with_sz_map", _real(g, module.dequantize_with_sz_map)


def _unpacked(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    def unpack_int4(packed: Any, orig_len: int, axis: int = 0, dtype: str = "int8") -> Any:
        numbers = original(packed, orig_len, axis, dtype)
        if is_symbol(numbers):
            return numbers
        narrow = as_array(numbers).astype(_TYPES[dtype])
        return Symbol(g.cast(g.constant(narrow, "packed"), dtype))

    return unpack_int4


def _real(g: Lowering, original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep one scale per group, instead of expanding it to one per weight."""

    def dequantize_with_sz_map(
        weights_matrix: Any, scale: Any, zero: Any, g_idx: Any, **axis: int
    ) -> Any:  # not an argument in Keras 3.12
        weights, scale, zero = (Symbol(g.to_value(each)) for each in (weights_matrix, scale, zero))
        return original(weights, scale, zero, keras.ops.convert_to_tensor(g_idx), **axis)

    return dequantize_with_sz_map
