"""Whose fault an error is: an author's code may fail on symbols in any way, ours must not."""

from __future__ import annotations

import traceback

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import tracing

__all__ = ["BUG_REPORT_REQUEST", "bug_report_request", "is_kerve_defect"]

#: What a warning says after a defect of ours that was got round.
BUG_REPORT_REQUEST = ": this is a defect of kerve, please report the model"

#: What both the author's code and ours call.
_LIBRARIES = frozenset(
    {"keras", "ml_dtypes", "numpy", "onnx", "onnx_ir", "onnxscript", "optree", "tensorflow", "tf2onnx"}
)

#: What our code raises to say that it has no form for something.
_ANSWERS = (ConversionError, tracing.TensorsOnlyError, tracing.UntraceableError)

#: What nobody raises to say something.
_SLIPS = (AssertionError, AttributeError, LookupError, NameError)


def is_kerve_defect(error: Exception) -> bool:
    """Whether an error that went through a handler of ours is a defect of it.

    It is, unless what was called last, apart from libraries, is the author's (the body of a loop, say).
    """
    if isinstance(error, _ANSWERS):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = (str(frame.f_globals.get("__name__", "")) for frame in reversed(frames))
    last = next((name for name in names if name.partition(".")[0] not in _LIBRARIES), "")
    return last.startswith("kerve.")


def bug_report_request(error: Exception) -> str:
    """Return what to say of an error that met an author's code: nothing, unless code of ours slipped."""
    return BUG_REPORT_REQUEST if isinstance(error, _SLIPS) and is_kerve_defect(error) else ""
