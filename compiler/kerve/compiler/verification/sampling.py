"""Which values are drawn for inputs: ordinary ones, and those at which errors show that others hide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.verification.domains import Domain

__all__ = [
    "INTERVALS",
    "SAMPLING_CONFIGS",
    "SamplingConfig",
    "sample_values",
    "samples_padding",
    "special_values",
]

#: Where fractions may have to lie for functions to have values there: logarithms and roots have them of
#: positive numbers, arcsin of those that are 1 at most, arccosh of those that are more.
INTERVALS: dict[str, tuple[float, float]] = {
    "": (-np.inf, np.inf),
    "positive": (0.0, np.inf),
    "below one": (0.0, 1.0),
    "above one": (1.0, np.inf),
}


@dataclass(frozen=True)
class SamplingConfig:
    """Which integers and words are drawn, and what is drawn besides."""

    #: What integers are below that the graph does not limit.
    ids: int
    #: Whether keys may be drawn that the model's tables do not hold.
    unknown: bool
    #: Whether fractions are whole numbers too: some layers take ids as such.
    whole: bool = False
    #: The smallest integer: no divisor is 0.
    least: int = 0
    #: The interval that fractions lie in: one of `INTERVALS`.
    within: str = ""
    #: What is drawn besides: "near" are ties, zeros of both signs, halves, hundreds and negative integers,
    #: with rows that are padded, "close" the same without hundreds, "far" integers that a float cannot hold.
    #: A source need not accept them.
    beyond: Literal["", "near", "close", "far"] = ""
    #: Whether among the rows that are padded is one of nothing else, and one of a single step.
    emptied: bool = False

    @property
    def what(self) -> str:
        """What is drawn, in words."""
        return _WHAT[self.beyond]

    @property
    def ordinary(self) -> SamplingConfig:
        """The same without what lies beyond."""
        return replace(self, beyond="", emptied=False)


_WHAT = {
    "": "ordinary",
    "near": "ties, halves and hundreds",
    "close": "ties and halves",
    "far": "large integers",
}

#: Where the source refuses what one draws (a lookup without a place for others does), the next.
SAMPLING_CONFIGS = (
    SamplingConfig(ids=10, unknown=True),
    SamplingConfig(ids=2, unknown=False),
    SamplingConfig(ids=10, unknown=False, least=1),
    SamplingConfig(ids=2, unknown=False, whole=True),
)

_WORDS = ("", "the", "quick", "brown fox", "Kerve!", "0", "naïve", "unknown word")

_NO_NUMBERS = (ir.DataType.STRING, ir.DataType.BOOL)

#: How many of the values are drawn from beyond.
_SHARE = 0.5

#: Whatever is rounded, compared, sorted or divided by has its corner at one of these, and they are ties. Far
#: from 0, where functions saturate or overflow, are few: what comes of them hides small errors of the rest.
_FRACTIONS = (*np.repeat(np.arange(-2.0, 2.5, 0.5), 6), 0.0, -0.0, -100.0, 100.0)

#: What is no further than this from 0 overflows nothing.
_CLOSE = 2.0

#: Beyond what float32 and int32 hold exactly, not beyond float64, in which ONNX Runtime adds up integers. The
#: smallest number of a type is not among them: its quotient by -1 ends a process.
_FAR = (127, 2**15 - 1, 2**24 + 1, 2**31 - 1, 2**31 + 7, 2**40 + 1)


def sample_values(
    rng: np.random.Generator, dtype: ir.DataType, shape: list[int], domain: Domain, draw: SamplingConfig
) -> NDArray[Any]:
    """Return what an input of some type is given, within its domain."""
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
    """Whether some of what is drawn is padding."""
    return draw.beyond in ("near", "close") and domain.padding is not None


def _pad(values: NDArray[Any], padding: Any, emptied: bool) -> None:
    """Let one row end early and one begin late: numbers at random hardly ever mask a whole step.

    Of what lies between, one is masked throughout, and one but for its first step.
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
    low, high = INTERVALS[draw.within]
    if np.isfinite(high):
        return rng.uniform(low, high, shape)
    return rng.standard_normal(shape) if np.isinf(low) else low + np.abs(rng.standard_normal(shape))


def special_values(dtype: ir.DataType | None, domain: Domain, draw: SamplingConfig) -> list[float]:
    """Return what is drawn besides ordinary values: nothing for positions in tables, sizes and counts."""
    if dtype is None or dtype in _NO_NUMBERS or domain.row or draw.whole or not draw.beyond:
        return []
    if not dtype.is_integer():
        low, high = INTERVALS[draw.within]
        most = {"near": np.inf, "close": _CLOSE}.get(draw.beyond, -1.0) if domain.size is None else -1.0
        return [number for number in _FRACTIONS if abs(number) <= most and low < number < high]
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
