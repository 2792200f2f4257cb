"""Proof that an ONNX model computes what its source computes."""

from __future__ import annotations

from kerve.compiler.verification.compare import Check, Tolerance, failures
from kerve.compiler.verification.data import Dataset, from_file, more_rows, seeded
from kerve.compiler.verification.diagnosis import Divergence, diagnose
from kerve.compiler.verification.runner import Runner
from kerve.compiler.verification.verify import Answered, Reference, Verified, recheck, verify

__all__ = [
    "Answered",
    "Check",
    "Dataset",
    "Divergence",
    "Reference",
    "Runner",
    "Tolerance",
    "Verified",
    "diagnose",
    "failures",
    "from_file",
    "more_rows",
    "recheck",
    "seeded",
    "verify",
]
