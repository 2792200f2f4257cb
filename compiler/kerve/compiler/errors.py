"""The ways in which a compile can fail, each with the exit code of the command."""

from __future__ import annotations

__all__ = [
    "AccuracyBudgetError",
    "CompileError",
    "ConversionError",
    "LoadError",
    "TargetError",
    "VerificationError",
]


class CompileError(Exception):
    """A compile stopped; nothing was written."""

    exit_code = 1


class LoadError(CompileError):
    """The source is missing, damaged, hostile, or not a model."""

    exit_code = 3


class ConversionError(CompileError):
    """Something in the model has no ONNX form; the message names the layer, the operation and a remedy."""

    exit_code = 4


class VerificationError(CompileError):
    """The compiled model answers differently from its source."""

    exit_code = 5


class TargetError(CompileError):
    """The model cannot be compiled for the target, or not on this machine."""

    exit_code = 7


class AccuracyBudgetError(CompileError):
    """A reduced precision loses more than its accuracy budget."""

    exit_code = 6
