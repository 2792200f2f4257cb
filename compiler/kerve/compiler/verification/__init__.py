"""Proof that an ONNX model computes what its source computes."""

from __future__ import annotations

from kerve.compiler.verification.compare import Check, Tolerance, failures
from kerve.compiler.verification.data import Dataset, from_file
from kerve.compiler.verification.diagnosis import Divergence, diagnose
from kerve.compiler.verification.verify import Reference, Verified, verify

__all__ = [
    "Check",
    "Dataset",
    "Divergence",
    "Reference",
    "Tolerance",
    "Verified",
    "diagnose",
    "failures",
    "from_file",
    "verify",
]
