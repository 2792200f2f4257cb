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
from kerve.compiler.precision.probing import Arrays
from kerve.compiler.precision.sensitivity import layer_losses
from kerve.compiler.verification import (
    Dataset,
    Divergence,
    Reference,
    ReferenceRun,
    Runner,
    Tolerance,
    VerificationResult,
    recheck,
)

__all__ = ["RecheckResult", "first_changed_layer", "recheck_reduced"]

#: The growth of a layer's error, relative to the recorded error, that is significant.
_GROWTH = 2.0
#: The factor by which the layers after it may amplify that growth.
_AMPLIFIED = 30.0


@dataclass(frozen=True)
class RecheckResult:
    """The comparison of a reduced model with its source."""

    #: On the inputs in the artifact, with the recorded tolerances.
    verified: VerificationResult
    #: On the user's inputs, or on seeded inputs if it was evaluated on such, or else on those in the
    #: artifact; each with the largest drop allowed.
    losses: tuple[tuple[Loss, float], ...]

    @property
    def passed(self) -> bool:
        """Whether the artifact is equal within its tolerances, and all losses are within its budget."""
        return self.verified.passed and all(loss.drop <= allowed for loss, allowed in self.losses)


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


def first_changed_layer(
    float32: Path, path: Path, record: manifest_pb2.Reduction, inputs: Arrays
) -> Divergence | None:
    """Return the first layer of the model at `path` whose error is larger than the recorded one.

    `float32` is its newly compiled source. Returns None if no layer's error is clearly larger.
    """
    known = {each.layer: each.given for each in record.layers}
    now = {each.layer: each.given for each in layer_losses(float32, path, [inputs]) if each.layer in known}
    growth = {layer: error - known[layer] for layer, error in now.items()}
    least = max(growth.values(), default=0.0) / _AMPLIFIED
    grown = (layer for layer, by in growth.items() if by > max(least, _GROWTH * known[layer]))
    layer = next(grown, None)
    if layer is None:
        return None
    return Divergence(layer, f"relative error {now[layer]:.2g}, {known[layer]:.2g} when it was compiled")


def _allowed(manifest: manifest_pb2.Manifest) -> Mapping[str, float]:
    return default_budget(manifest.precision) | {
        loss.measure: loss.allowed for loss in manifest.reduction.losses
    }
