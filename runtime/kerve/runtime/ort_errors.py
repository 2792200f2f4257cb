"""The exceptions of ONNX Runtime: its own classes, which have no common base, and RuntimeError."""

from onnxruntime.capi import onnxruntime_pybind11_state as state

__all__ = ["ORT_ERRORS"]

ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception)),
)
