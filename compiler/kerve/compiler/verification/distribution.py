"""Outputs that are drawn anew on each call: equal when samples of both sides have one distribution."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerve.compiler.verification.compare import Check, Tolerance
from kerve.compiler.verification.data import Dataset
from kerve.compiler.verification.runner import Reference, Runner

__all__ = ["compare_drawn"]

#: How often each side is called, and for how many seconds at most (but never less than the fewest).
_DRAWS, _FEWEST_DRAWS, _SECONDS = 400, 100, 20.0

#: How many elements of an output are looked at, evenly spaced.
_MOST_ELEMENTS = 4096

#: How many standard errors the means of equal distributions may be apart, and the chance that one element
#: of equal distributions is taken for different by their shapes.
_STANDARD_ERRORS = 7.0
_CHANCE = 1e-10

_Array = NDArray[np.float64]
_Samples = dict[str, _Array]


def compare_drawn(
    runner: Runner, reference: Reference, dataset: Dataset, outputs: Collection[str]
) -> list[Check]:
    """Call both sides again and again on the same inputs and compare, element by element.

    Means and variances may differ by their standard errors, distribution functions by what the test of
    Kolmogorov and Smirnov allows (N. Smirnov, 1948), both so wide that equal models pass.
    """
    want, got = _draw(reference, dataset, outputs), _draw(runner, dataset, outputs)
    return [_check(got[name], want[name], dataset, name) for name in outputs]


def _draw(model: Reference | Runner, dataset: Dataset, outputs: Collection[str]) -> _Samples:
    draws: dict[str, list[_Array]] = {name: [] for name in outputs}
    end = time.monotonic() + _SECONDS
    for count in range(_DRAWS):
        if count >= _FEWEST_DRAWS and time.monotonic() > end:
            break
        answers = model(dataset.inputs)
        for name in outputs:
            flat = np.asarray(answers[name]).reshape(-1)
            draws[name].append(flat[:: -(-flat.size // _MOST_ELEMENTS) or 1].astype(np.float64))
    return {name: np.stack(each) for name, each in draws.items()}


def _check(got: _Array, want: _Array, dataset: Dataset, output: str) -> Check:
    dimensions = dict(dataset.sizes)
    batch_size = dimensions.pop("batch", 0)
    tolerance = Tolerance.of(np.dtype(np.float32))
    about: Mapping[str, Any] = {
        "data": dataset.origin,
        "batch_size": batch_size,
        "dimensions": dimensions,
        "output": output,
        "rtol": tolerance.rtol,
        "atol": tolerance.atol,
        "drawn": True,
    }
    if got.shape[1:] != want.shape[1:]:
        return Check(**about, problem=f"has {got.shape[1]} elements, the source has {want.shape[1]}")
    apart = np.abs(got.mean(0) - want.mean(0))
    size = np.abs(want.mean(0))
    rounding = tolerance.rtol * size + tolerance.atol * np.abs(want).max(initial=1.0)
    equal = _same_mean(got, want, rounding)
    equal &= _same_mean(_squared_deviation(got), _squared_deviation(want), np.square(rounding))
    unequal = ~equal | (_distance(got, want, rounding) > _farthest(len(got), len(want)))
    return Check(
        **about,
        max_abs_error=float(apart.max(initial=0.0)),
        mean_abs_error=float(apart.mean()) if apart.size else 0.0,
        max_rel_error=float((apart / np.maximum(size, 1e-5)).max(initial=0.0)),
        nan_mismatches=int(np.count_nonzero(np.isnan(got).any(0) != np.isnan(want).any(0))),
        unequal=int(np.count_nonzero(unequal)),
    )


def _same_mean(got: _Array, want: _Array, rounding: _Array) -> NDArray[np.bool_]:
    error = np.sqrt(got.var(0) / len(got) + want.var(0) / len(want))
    same: NDArray[np.bool_] = np.abs(got.mean(0) - want.mean(0)) <= _STANDARD_ERRORS * error + rounding
    return same


def _squared_deviation(samples: _Array) -> _Array:
    deviation: _Array = samples - samples.mean(0)
    return deviation * deviation


def _distance(got: _Array, want: _Array, rounding: _Array) -> _Array:
    """Return the largest difference of the two distribution functions, for each element.

    Both sides are rounded first, so that what differs by rounding alone does not fall on two sides.
    """
    distances = np.zeros(want.shape[1])
    for index, step in enumerate(2 * rounding):
        ours, theirs = (np.sort(np.round(side[:, index] / step)) for side in (got, want))
        places = np.union1d(ours, theirs)
        below = [np.searchsorted(side, places, "right") / len(side) for side in (ours, theirs)]
        distances[index] = np.abs(below[0] - below[1]).max(initial=0.0)
    return distances


def _farthest(ours: int, theirs: int) -> float:
    return math.sqrt(-math.log(_CHANCE / 2) / 2 * (1 / ours + 1 / theirs))
