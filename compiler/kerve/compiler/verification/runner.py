"""Running the compiled model, and the interface of its source for the verification."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from kerve.compiler.errors import CompileError, ConversionError, VerificationError
from kerve.compiler.opsets import DEFAULT_OPSET

__all__ = ["Reference", "Runner"]

_BFLOAT16 = "tensor(bfloat16)"

#: ONNX Runtime's error for an operator without a kernel; the number is the operator set of its last change.
_NO_KERNEL = re.compile(
    r"Could not find an implementation for (?P<operator>\w+)\((?P<opset>\d+)\) node with name '(?P<node>.*?)'"
)

#: The source model as a function: named inputs to named outputs.
Reference = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]


class Runner:
    """An ONNX file in ONNX Runtime on the CPU, called with named arrays."""

    def __init__(self, path: Path, *, optimized: bool = True) -> None:
        """Load the file; raises `VerificationError` if ONNX Runtime cannot.

        Raises `ConversionError` if it lacks an operator only in the file's operator set. Without `optimized`,
        ONNX Runtime's graph optimizations are disabled.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Its threads sleep between runs; spinning, they would slow down the source.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own classes, which share no public base
            raise _refusal(error) from error
        self.inputs = tuple(str(value.name) for value in self._session.get_inputs())
        self._types = {str(value.name): value.type for value in self._session.get_outputs()}
        self.outputs = tuple(self._types)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return all outputs; arrays that are not inputs of the model are ignored."""
        try:
            if _BFLOAT16 in self._types.values():
                return self._run_values(inputs)
            feeds = {name: _given(inputs[name]) for name in self.inputs}
            results = self._session.run(list(self.outputs), feeds)
        except Exception as error:  # onnxruntime raises its own classes, which share no public base
            raise VerificationError(
                f"the compiled model fails on inputs that its source accepts: {error}"
            ) from error
        return dict(zip(self.outputs, results, strict=True))

    def _run_values(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = {name: _given(inputs[name]) for name in self.inputs}
        feeds = {
            name: value if isinstance(value, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(value)
            for name, value in given.items()
        }
        results = self._session.run_with_ort_values(list(self.outputs), feeds)
        return {
            name: _bfloat16(value) if self._types[name] == _BFLOAT16 else value.numpy()
            for name, value in zip(self.outputs, results, strict=True)
        }


def _refusal(error: Exception) -> CompileError:
    """Return the error for a file that ONNX Runtime does not load."""
    missing = _NO_KERNEL.search(str(error))
    if missing is None or int(missing["opset"]) <= DEFAULT_OPSET:
        return VerificationError(f"ONNX Runtime cannot load the compiled model: {error}")
    # It accepts an operator set before it has kernels for everything that changed in it.
    return ConversionError(
        f"node '{missing['node']}': the installed ONNX Runtime has no {missing['operator']} of operator set "
        f"{missing['opset']}; compile with --opset {int(missing['opset']) - 1}"
    )


def _given(array: NDArray[Any]) -> Any:
    array = np.asarray(array)  # NumPy and Keras return a single bool as a scalar, which is not accepted
    if array.dtype.name != "bfloat16":  # not accepted as a NumPy array
        return array
    bits = array.view(np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ir.DataType.BFLOAT16)


def _bfloat16(value: Any) -> NDArray[Any]:
    """Copy a bfloat16 value, which ONNX Runtime cannot convert to NumPy."""
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, ml_dtypes.bfloat16).reshape(value.shape())
