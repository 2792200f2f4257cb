"""Proof that an ONNX model computes what its source computes."""

from __future__ import annotations

from kerve.compiler.verification.compare import Check, Tolerance, failures
from kerve.compiler.verification.data import Dataset
from kerve.compiler.verification.verify import Reference, Verified, verify

__all__ = ["Check", "Dataset", "Reference", "Tolerance", "Verified", "failures", "verify"]
