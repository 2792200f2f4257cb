"""Attribution of errors: user code may fail on symbols in any way, kerve's own code must not."""

from __future__ import annotations

import traceback

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import tracing

__all__ = ["BUG_REPORT_REQUEST", "bug_report_request", "is_kerve_defect"]

#: Suffix of the warning after a defect of kerve that was worked around.
BUG_REPORT_REQUEST = ": this is a defect of kerve, please report the model"

#: Libraries that both user code and kerve call.
_LIBRARIES = frozenset(
    {"keras", "ml_dtypes", "numpy", "onnx", "onnx_ir", "onnxscript", "optree", "tensorflow", "tf2onnx"}
)

#: Exceptions that kerve raises for what has no ONNX form.
_ANSWERS = (ConversionError, tracing.TensorsOnlyError, tracing.UntraceableError)

#: Exceptions that are never raised on purpose.
_SLIPS = (AssertionError, AttributeError, LookupError, NameError)


def is_kerve_defect(error: Exception) -> bool:
    """Whether an error raised through one of kerve's handlers is a defect of kerve.

    It is, unless the innermost frame outside libraries is user code, such as the body of a loop.
    """
    if isinstance(error, _ANSWERS):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = (str(frame.f_globals.get("__name__", "")) for frame in reversed(frames))
    last = next((name for name in names if name.partition(".")[0] not in _LIBRARIES), "")
    return last.startswith("kerve.")


def bug_report_request(error: Exception) -> str:
    """Return the bug report request if an error in user code is a defect of kerve, otherwise ""."""
    return BUG_REPORT_REQUEST if isinstance(error, _SLIPS) and is_kerve_defect(error) else ""
