"""Keras artifact in, verified ONNX artifact out.

from kerve.compiler import compile_model
artifact = compile_model("digits.keras", repository="models", name="digits")
"""

from kerve.compiler.artifact import Artifact
from kerve.compiler.compile import compile_model
from kerve.compiler.errors import (
    AccuracyBudgetError,
    CompileError,
    ConversionError,
    LoadError,
    VerificationError,
)
from kerve.compiler.options import CompileOptions

__all__ = [
    "AccuracyBudgetError",
    "Artifact",
    "CompileError",
    "CompileOptions",
    "ConversionError",
    "LoadError",
    "VerificationError",
    "compile_model",
]
