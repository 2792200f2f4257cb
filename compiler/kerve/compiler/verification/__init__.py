"""Verification that an ONNX model computes the same as its source."""

from __future__ import annotations

from kerve.compiler.verification.compare import Check, Tolerance, failures
from kerve.compiler.verification.data import Dataset, from_file, more_rows, seeded
from kerve.compiler.verification.diagnosis import Divergence, diagnose, first_changed
from kerve.compiler.verification.reference_runs import ReferenceRun, run_reference
from kerve.compiler.verification.runner import Reference, Runner
from kerve.compiler.verification.traits import OutputTraits, output_traits
from kerve.compiler.verification.verify import VerificationResult, recheck, verify

__all__ = [
    "Check",
    "Dataset",
    "Divergence",
    "OutputTraits",
    "Reference",
    "ReferenceRun",
    "Runner",
    "Tolerance",
    "VerificationResult",
    "diagnose",
    "failures",
    "first_changed",
    "from_file",
    "more_rows",
    "output_traits",
    "recheck",
    "run_reference",
    "seeded",
    "verify",
]
