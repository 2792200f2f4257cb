"""Sampling of input values: ordinary ones, and corner cases that reveal more errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.verification.domains import Domain
from kerve.compiler.verification.intervals import UNBOUNDED, Interval

__all__ = [
    "INTERVALS",
    "SAMPLING_CONFIGS",
    "SamplingConfig",
    "sample_values",
    "samples_padding",
    "special_values",
]

#: Intervals of floats on which functions are defined: logarithms and roots on positive numbers, arcsin up to
#: 1, arccosh from 1.
INTERVALS: dict[str, Interval] = {
    "": UNBOUNDED,
    "positive": (0.0, np.inf),
    "below one": (0.0, 1.0),
    "above one": (1.0, np.inf),
}


@dataclass(frozen=True)
class SamplingConfig:
    """Which values are drawn."""

    #: The upper bound, exclusive, of integers without a limit in the graph.
    ids: int
    #: Whether to draw keys that are not in the model's tables.
    unknown: bool
    #: Whether floats are integers too: some layers take ids as floats.
    whole: bool = False
    #: The smallest integer; 1 for models that divide by it.
    least: int = 0
    #: The interval of floats, a key of `INTERVALS`.
    within: str = ""
    #: Corner cases to include: "near" are ties, zeros of both signs, halves, hundreds and negative integers,
    #: with padded rows; "close" the same without hundreds; "far" integers that a float cannot represent. A
    #: source need not accept them.
    beyond: Literal["", "near", "close", "far"] = ""
    #: Whether the padded rows include one with padding only and one with a single step.
    emptied: bool = False

    @property
    def what(self) -> str:
        """A description of the values drawn."""
        return _WHAT[self.beyond]

    @property
    def ordinary(self) -> SamplingConfig:
        """The same without corner cases."""
        return replace(self, beyond="", emptied=False)


_WHAT = {
    "": "ordinary",
    "near": "ties, halves and hundreds",
    "close": "ties and halves",
    "far": "large integers",
}

#: Tried in order until the source accepts the values (a lookup may reject unknown keys).
SAMPLING_CONFIGS = (
    SamplingConfig(ids=10, unknown=True),
    SamplingConfig(ids=2, unknown=False),
    SamplingConfig(ids=10, unknown=False, least=1),
    SamplingConfig(ids=2, unknown=False, whole=True),
)

_WORDS = ("", "the", "quick", "brown fox", "Kerve!", "0", "naïve", "unknown word")

_NO_NUMBERS = (ir.DataType.STRING, ir.DataType.BOOL)

#: The share of corner cases among the values.
_SHARE = 0.5

#: Corner cases of rounding, comparison, sorting and division; repeated, so that there are ties. Few are far
#: from 0, where functions saturate or overflow, since their results hide small errors of the others.
_FRACTIONS = (*np.repeat(np.arange(-2.0, 2.5, 0.5), 6), 0.0, -0.0, -100.0, 100.0)

#: The largest magnitude that does not cause overflow.
_CLOSE = 2.0

#: Integers that float32 and int32 cannot represent exactly, but float64 can, in which ONNX Runtime sums
#: integers. The smallest number of a type is left out: dividing it by -1 crashes the process.
_FAR = (127, 2**15 - 1, 2**24 + 1, 2**31 - 1, 2**31 + 7, 2**40 + 1)


def sample_values(
    rng: np.random.Generator, dtype: ir.DataType, shape: list[int], domain: Domain, draw: SamplingConfig
) -> NDArray[Any]:
    """Return values for an input of a type, within its domain."""
    if dtype == ir.DataType.STRING:
        others = _WORDS if draw.unknown or not domain.words else ()
        return np.asarray(rng.choice(np.array([*domain.words, *others], dtype=object), shape), dtype=object)
    if dtype == ir.DataType.BOOL:
        return rng.random(shape) < 0.5
    wanted = np.dtype(ml_dtypes.bfloat16) if dtype == ir.DataType.BFLOAT16 else dtype.numpy()
    ordinary = _ordinary(rng, dtype, shape, domain, draw).astype(wanted)
    beyond = np.array(special_values(dtype, domain, draw)).astype(wanted)
    if len(beyond) and ordinary.size:
        places = rng.permutation(ordinary.size)[: max(1, int(_SHARE * ordinary.size))]
        ordinary.reshape(-1)[places] = np.resize(rng.permutation(beyond), len(places))
    if samples_padding(domain, draw) and ordinary.ndim > 1:
        _pad(ordinary, domain.padding, draw.emptied)
    return ordinary


def samples_padding(domain: Domain, draw: SamplingConfig) -> bool:
    """Return whether some of the values drawn are padding."""
    return draw.beyond in ("near", "close") and domain.padding is not None


def _pad(values: NDArray[Any], padding: Any, emptied: bool) -> None:
    """Pad the end of the first row and the beginning of the last: random values rarely mask a whole step.

    With `emptied`, one row between is padded entirely, and one except for its first step.
    """
    half = values.shape[1] // 2
    values[0, half:] = padding
    values[-1, : values.shape[1] - half - 1] = padding
    if emptied:
        values[1:-1][:1] = padding
        values[2:-1, 1:][:1] = padding


def _ordinary(
    rng: np.random.Generator, dtype: ir.DataType, shape: list[int], domain: Domain, draw: SamplingConfig
) -> NDArray[Any]:
    if domain.size is not None:
        return rng.integers(0, domain.size, shape)
    if domain.numbers and dtype.is_integer():
        return rng.choice([*domain.numbers, *(range(draw.ids) if draw.unknown else ())], shape)
    if dtype.is_integer() or draw.whole:
        return rng.integers(draw.least, draw.ids, shape)
    return _within(rng, _fractions(rng, shape, *INTERVALS[draw.within]), domain.interval)


def _fractions(rng: np.random.Generator, shape: list[int], low: float, high: float) -> NDArray[Any]:
    if np.isfinite(high):
        return rng.uniform(low, high, shape)
    return rng.standard_normal(shape) if np.isinf(low) else low + np.abs(rng.standard_normal(shape))


def _within(rng: np.random.Generator, values: NDArray[Any], interval: Interval) -> NDArray[Any]:
    """Replace the values outside an interval by others from the whole of it, or by its only bound."""
    low, high = interval
    bounded = np.isfinite(low) and np.isfinite(high)
    others = rng.uniform(low, high, values.shape) if bounded else np.clip(values, low, high)
    return np.where((low <= values) & (values <= high), values, others)


def special_values(dtype: ir.DataType | None, domain: Domain, draw: SamplingConfig) -> list[float]:
    """Return the corner cases of an input: none for row numbers of tables, sizes and counts."""
    if dtype is None or dtype in _NO_NUMBERS or domain.row or draw.whole or not draw.beyond:
        return []
    if not dtype.is_integer():
        low, high = INTERVALS[draw.within]
        most = {"near": np.inf, "close": _CLOSE}.get(draw.beyond, -1.0) if domain.size is None else -1.0
        least, largest = domain.interval
        numbers = [number for number in _FRACTIONS if abs(number) <= most and low < number < high]
        return [number for number in numbers if least <= number <= largest]
    if domain.extent:
        return []
    limits = np.iinfo(dtype.numpy())
    if draw.beyond in ("near", "close"):
        numbers = [-number for number in range(max(1, draw.least), draw.ids)]
        if domain.size is not None:
            numbers = [-1, domain.size]
    else:
        numbers = [sign * number for number in _FAR for sign in (1, -1)]
    return [number for number in numbers if limits.min <= number <= limits.max]
