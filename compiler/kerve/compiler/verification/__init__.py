"""Proof that an ONNX model computes what its source computes."""

from __future__ import annotations

from kerve.compiler.verification.answering import Answered, ask
from kerve.compiler.verification.basis import Basis, bases_of
from kerve.compiler.verification.compare import Check, Tolerance, failures
from kerve.compiler.verification.data import Dataset, from_file, more_rows, seeded
from kerve.compiler.verification.diagnosis import Divergence, diagnose
from kerve.compiler.verification.runner import Reference, Runner
from kerve.compiler.verification.verify import Verified, recheck, verify

__all__ = [
    "Answered",
    "Basis",
    "Check",
    "Dataset",
    "Divergence",
    "Reference",
    "Runner",
    "Tolerance",
    "Verified",
    "ask",
    "bases_of",
    "diagnose",
    "failures",
    "from_file",
    "more_rows",
    "recheck",
    "seeded",
    "verify",
]
