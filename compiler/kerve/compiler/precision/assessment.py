"""Checks that a reduced precision stays within its accuracy budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from kerve.compiler.budgets import BUDGETS
from kerve.compiler.errors import AccuracyBudgetError
from kerve.compiler.precision.data import Data
from kerve.compiler.precision.losses import Loss, Meter, meter_for
from kerve.compiler.precision.precisions import PRECISIONS
from kerve.compiler.precision.probing import Arrays, Model, batches, paired_outputs, round_up
from kerve.compiler.precision.sensitivity import LayerLoss, layer_losses
from kerve.compiler.verification import ReferenceRun, Runner, VerificationResult, output_traits, recheck

__all__ = ["Assessment", "assess", "default_budget", "losses_of"]

#: The number of rows on which layers are compared.
_LAYER_ROWS = 8

#: The most layers named in an error, and the share of the worst layer's error that they must add.
_NAMED = 3
_WORTH_NAMING = 0.05

#: The tolerance for other hardware, which rounds differently, as a multiple of the errors measured here.
_LEEWAY = 2.0


@dataclass(frozen=True)
class Assessment:
    """The measured losses of a reduced precision."""

    losses: Sequence[Loss]
    budget: Mapping[str, float]
    #: The error of each layer, those that add most first.
    layers: Sequence[LayerLoss]
    #: The comparison with the source, with tolerances that are valid on other hardware as well.
    verified: VerificationResult


def assess(
    float32: Path,
    reduced: Path,
    precision: str,
    data: Data,
    answered: Sequence[ReferenceRun],
    max_drop: float | None,
) -> Assessment:
    """Compare a reduced model with the float32 one, on `data`, and with the source, on `answered`.

    Raises `AccuracyBudgetError` if an output loses more than `max_drop`, or, if that is None, than the budget
    of the precision.
    """
    model = ir.load(reduced)
    losses = losses_of(lambda: Runner(float32), lambda: Runner(reduced), model, data)
    budget = default_budget(precision)
    if max_drop is not None:
        budget = dict.fromkeys(budget, max_drop)
    layers = sorted(layer_losses(float32, reduced, _few(model, data)), key=lambda each: -each.added)
    if any(loss.drop > budget[loss.measure] for loss in losses):
        raise AccuracyBudgetError(_over_budget(precision, losses, budget, data.assessed.origin, layers))
    return Assessment(losses, budget, layers, _verified(reduced, precision, answered))


def default_budget(precision: str) -> dict[str, float]:
    """Return the largest loss allowed for each measure."""
    budget = BUDGETS[precision]
    return {
        "accuracy": budget.accuracy,
        "rmse": budget.accuracy,
        "choices": budget.choices,
        "elements": budget.choices,
        "error": budget.error,
    }


def losses_of(
    baseline: Callable[[], Model], reduced: Callable[[], Model], model: ir.Model, data: Data
) -> list[Loss]:
    """Measure the loss of each output relative to a float32 baseline.

    `model` is the reduced one; the two are loaded one after the other.
    """
    meters: dict[str, Meter] = {}
    drawn = {name for name, basis in output_traits(model).items() if basis.drawn}
    for before, answers in paired_outputs(baseline, reduced, batches(model, data.assessed)):
        for name, after in answers.items():
            if name in drawn:  # effects of the precision cannot be distinguished from chance
                continue
            if name not in meters:
                meters[name] = meter_for(name, before[name], data.labels.get(name))
            meters[name].add(before[name], after)
    return [meter.loss(name) for name, meter in meters.items()]


def _few(model: ir.Model, data: Data) -> list[Arrays]:
    """Return some rows one by one: the outputs of all layers are held in memory for each."""
    return list(itertools.islice(batches(model, data.assessed, 1), _LAYER_ROWS))


def _over_budget(
    precision: str,
    losses: Sequence[Loss],
    budget: Mapping[str, float],
    origin: str,
    layers: Sequence[LayerLoss],
) -> str:
    over = [
        f"{loss} (allowed: {budget[loss.measure]:g})" for loss in losses if loss.drop > budget[loss.measure]
    ]
    worst = [
        f"'{each.layer}' ({each.taken:.2g} to {each.given:.2g})"
        for each in layers[:_NAMED]
        if each.added > _WORTH_NAMING * layers[0].added
    ]
    where = f" The relative error grows most in {', '.join(worst)}." if worst else ""
    return (
        f"{precision} loses more than its budget on {origin} data: {'; '.join(over)}.{where} "
        f"Try {PRECISIONS[precision].remedy}, or allow it with --max-drop"
    )


def _verified(path: Path, precision: str, answered: Sequence[ReferenceRun]) -> VerificationResult:
    """Measure the errors against the source; these, with some leeway, become the tolerances."""
    measured = recheck(path, answered)
    step = PRECISIONS[precision].step
    worst: dict[str, float] = {}
    for check in measured.checks:
        worst[check.output] = max(worst.get(check.output, 0.0), check.max_abs_error)
    allowed = {
        name: round_up(_LEEWAY * error + step * _largest(name, answered)) for name, error in worst.items()
    }
    checks = [replace(check, rtol=0.0, atol=allowed[check.output], unequal=0) for check in measured.checks]
    return replace(measured, checks=tuple(checks))


def _largest(output: str, answered: Sequence[ReferenceRun]) -> float:
    """Return the largest absolute value among the source's finite floating-point outputs."""
    arrays = [known.answers[output] for known in answered]
    return max(
        (
            float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
            for array in map(np.asarray, arrays)
            if array.dtype.kind == "f"
        ),
        default=0.0,
    )
