"""Verification of an existing artifact in a reduced precision against its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler.precision.assessment import default_budget, losses_of
from kerve.compiler.precision.data import Data
from kerve.compiler.precision.losses import Loss
from kerve.compiler.verification import (
    Dataset,
    Reference,
    ReferenceRun,
    Runner,
    Tolerance,
    VerificationResult,
    recheck,
)

__all__ = ["RecheckResult", "recheck_reduced"]


@dataclass(frozen=True)
class RecheckResult:
    """The comparison of a reduced model with its source."""

    #: On the inputs in the artifact, with the recorded tolerances.
    verified: VerificationResult
    #: On the user's inputs, or on seeded inputs if it was evaluated on such, or else on those in the
    #: artifact; each with the largest drop allowed.
    losses: tuple[tuple[Loss, float], ...]


def recheck_reduced(
    path: Path,
    manifest: manifest_pb2.Manifest,
    golden: Dataset,
    reference: Reference,
    user_data: Path | None,
) -> RecheckResult:
    """Compare the reduced model at `path` with its source.

    Seeded inputs are used only if it was evaluated on such: they may be outside the ranges of user data.
    """
    record, model = manifest.reduction, ir.load(path)
    answered = [ReferenceRun(golden, reference(golden.inputs))]
    tolerances = {each.output: Tolerance(each.rtol, each.atol) for each in manifest.verification.checks}
    data = Data.of(model, golden, user_data, None)
    if user_data is None and any(loss.data != "seeded" for loss in record.losses):
        data = Data(golden, {}, golden)
    allowed = _allowed(manifest)
    losses = losses_of(lambda: reference, lambda: Runner(path), model, data)
    return RecheckResult(
        recheck(path, answered, tolerances), tuple((loss, allowed[loss.measure]) for loss in losses)
    )


def _allowed(manifest: manifest_pb2.Manifest) -> Mapping[str, float]:
    return default_budget(manifest.precision) | {
        loss.measure: loss.allowed for loss in manifest.reduction.losses
    }
