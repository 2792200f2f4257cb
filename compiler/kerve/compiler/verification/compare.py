"""Comparison of two tensors, and the tolerances for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SMALLEST", "Check", "Tolerance", "compare", "failures"]

#: Relative and absolute tolerance for outputs of each dtype; outputs of other dtypes must be equal.
_TOLERANCES: dict[str, tuple[float, float]] = {
    "float64": (1e-4, 1e-5),
    "float32": (1e-4, 1e-5),
    "float16": (2e-2, 2e-3),
    "bfloat16": (5e-2, 1e-2),
}

#: The same for outputs with intermediate results of a type. When rounded to so few digits, a difference in
#: the last bit may change a number by a whole step.
_ON_THE_WAY = _TOLERANCES | {"int8": (5e-2, 1e-2), "float8e4m3fn": (1e-1, 5e-2)}

#: The smallest range by which the tolerance of a full-precision output is scaled. Outputs of a smaller range,
#: such as probabilities of many classes, may result from numbers of the order of 1, or from kernels that are
#: accurate to 1e-7.
SMALLEST = 0.02


@dataclass(frozen=True)
class Tolerance:
    """The limit on |compiled - source|: `rtol |source| + atol max(smallest, largest |source|)`, per element.

    The absolute part grows with the output's range, because rounding errors do: a value near zero among
    values near a thousand is itself a difference of thousands.
    """

    rtol: float
    atol: float
    smallest: float = 1.0

    @classmethod
    def of(cls, dtype: np.dtype[Any], computed_in: str = "") -> Tolerance:
        """Return the tolerance for outputs of one dtype, with intermediate results of type `computed_in`."""
        if dtype.name in _TOLERANCES and computed_in in _ON_THE_WAY:
            return max(cls(*_TOLERANCES[dtype.name]), cls(*_ON_THE_WAY[computed_in]), key=lambda it: it.rtol)
        smallest = SMALLEST if dtype.name in ("float32", "float64") else 1.0
        return cls(*_TOLERANCES.get(dtype.name, (0.0, 0.0)), smallest)


@dataclass(frozen=True)
class Check:
    """One output compared on one set of inputs."""

    data: str
    batch_size: int
    dimensions: Mapping[str, int]
    output: str
    rtol: float
    atol: float
    max_abs_error: float = 0.0
    mean_abs_error: float = 0.0
    max_rel_error: float = 0.0
    nan_mismatches: int = 0
    unequal: int = 0
    problem: str = ""
    #: Whether the output is random; the errors are then those of its mean.
    drawn: bool = False

    @property
    def passed(self) -> bool:
        """Whether every element is within tolerance."""
        return not self.problem and self.unequal == 0


def compare(
    got: NDArray[Any],
    want: NDArray[Any],
    tolerance: Tolerance,
    *,
    data: str,
    sizes: Mapping[str, int],
    output: str,
) -> Check:
    """Compare one output of the compiled model (`got`) with the source's (`want`)."""
    dimensions = dict(sizes)
    check = partial(
        Check,
        data=data,
        batch_size=dimensions.pop("batch", 0),
        dimensions=dimensions,
        output=output,
        rtol=tolerance.rtol,
        atol=tolerance.atol,
    )
    if got.shape != want.shape:
        return check(problem=f"has shape {list(got.shape)}, the source has {list(want.shape)}")
    if got.dtype != want.dtype:
        return check(problem=f"has dtype {got.dtype}, the source has {want.dtype}")
    if want.dtype.name not in _TOLERANCES:
        unequal = got != want
        return check(unequal=int(np.count_nonzero(unequal)), max_abs_error=_largest_step(got, want, unequal))
    return _compare_floats(got.astype(np.float64), want.astype(np.float64), tolerance, check)


def _largest_step(got: NDArray[Any], want: NDArray[Any], unequal: NDArray[np.bool_]) -> float:
    """Return the largest difference of integers; other values that are unequal differ by 1."""
    least = float(unequal.any())
    if want.dtype.kind not in "iu":
        return least
    steps = np.abs(got[unequal].astype(np.float64) - want[unequal].astype(np.float64))
    return float(steps.max(initial=least))


def _compare_floats(
    got: NDArray[np.float64], want: NDArray[np.float64], tolerance: Tolerance, check: Callable[..., Check]
) -> Check:
    comparable = np.isfinite(want) & np.isfinite(got)
    alike = (got == want) | (np.isnan(got) & np.isnan(want))  # infinities and NaNs in the same places
    error = np.abs(np.subtract(got, want, out=np.zeros_like(want), where=comparable))
    size = np.abs(np.where(comparable, want, 0.0))
    absolute = tolerance.atol * float(size.max(initial=tolerance.smallest))
    within = np.where(comparable, error <= tolerance.rtol * size + absolute, alike)
    relative = error / np.maximum(size, absolute or 1.0)
    return check(
        max_abs_error=float(error.max(initial=0.0)),
        mean_abs_error=float(error.mean()) if error.size else 0.0,
        max_rel_error=float(relative.max(initial=0.0)),
        nan_mismatches=int(np.count_nonzero(np.isnan(got) != np.isnan(want))),
        unequal=int(np.count_nonzero(~within)),
    )


def failures(checks: Iterable[Check]) -> list[str]:
    """Return one clause for each check that failed."""
    return [_describe(check) for check in checks if not check.passed]


def _describe(check: Check) -> str:
    sizes = {"batch": check.batch_size, **check.dimensions}
    where = f"output '{check.output}' ({check.data} data, {', '.join(f'{k} {v}' for k, v in sizes.items())})"
    if check.problem:
        return f"{where} {check.problem}"
    if check.drawn:
        return (
            f"{where} is random and has another distribution in {check.unequal} elements: "
            f"means differ by {check.max_abs_error:.3g} (relative {check.max_rel_error:.3g})"
        )
    nan = f", {check.nan_mismatches} NaN on one side only" if check.nan_mismatches else ""
    return (
        f"{where} differs in {check.unequal} elements: largest error {check.max_abs_error:.3g} "
        f"(relative {check.max_rel_error:.3g}), allowed rtol {check.rtol:g}, atol {check.atol:g}{nan}"
    )
