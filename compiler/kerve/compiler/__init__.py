"""Keras artifact in, verified ONNX artifact out.

from kerve.compiler import compile_model
artifact = compile_model("digits.keras", repository="models", name="digits")
"""

import os

# Must be set before ONNX Runtime is imported, which otherwise sends telemetry; set it to 0 to allow that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from kerve.compiler.artifact import Artifact
from kerve.compiler.compile import compile_model
from kerve.compiler.errors import (
    AccuracyBudgetError,
    CompileError,
    ConversionError,
    LoadError,
    VerificationError,
)
from kerve.compiler.options import CompileOptions, VerifyOptions
from kerve.compiler.verify import Comparison, verify_model

__all__ = [
    "AccuracyBudgetError",
    "Artifact",
    "Comparison",
    "CompileError",
    "CompileOptions",
    "ConversionError",
    "LoadError",
    "VerificationError",
    "VerifyOptions",
    "compile_model",
    "verify_model",
]
