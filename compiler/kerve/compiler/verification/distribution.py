"""Comparison of random outputs: samples of both sides must have the same distribution."""

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

#: Each side is called this often, but after the minimum number of calls for at most this many seconds.
_DRAWS, _FEWEST_DRAWS, _SECONDS = 400, 100, 20.0

#: The most elements of an output that are compared, evenly spaced.
_MOST_ELEMENTS = 4096

#: The most standard errors between the means of equal distributions, and the probability that one element of
#: equal distributions fails the test of their shapes.
_STANDARD_ERRORS = 7.0
_CHANCE = 1e-10

_Array = NDArray[np.float64]
_Samples = dict[str, _Array]


def compare_drawn(
    runner: Runner, reference: Reference, dataset: Dataset, outputs: Collection[str]
) -> list[Check]:
    """Call both sides repeatedly on the same inputs and compare the distributions of each element.

    Means and variances may differ by a multiple of their standard errors, distribution functions by the limit
    of the Kolmogorov-Smirnov test (N. Smirnov, 1948); both limits are wide enough for equal models to pass.
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

    Both sides are rounded first, so that values that differ by rounding errors only become equal.
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
