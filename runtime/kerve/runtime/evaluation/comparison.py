"""What tells two versions apart: where they choose differently, and how sure the difference is."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from kerve.artifact.v1.manifest_pb2 import Evaluation
from kerve.runtime.datatypes import Array
from kerve.runtime.devices.device_array import DeviceArray, at_host
from kerve.runtime.errors import InvalidArgumentError

__all__ = ["Comparison", "Interval", "Scores", "scores", "scores_of"]

Number = TypeVar("Number", int, float)

#: Rows that are named, of those in which the versions disagree.
MOST_ROWS = 100
#: Of a normal distribution, for 95 % confidence.
DEVIATIONS = 1.959964


@dataclass(frozen=True)
class Scores:
    """Of one batch and output: what is chosen for each element, and how good each row is."""

    choices: Array | None
    metric: str
    rows: Array


def scores_of(
    targets: Sequence[Evaluation.Target],
    computed: Mapping[str, Array | DeviceArray],
    labels: Mapping[str, Array],
) -> dict[str, Scores]:
    """Return how good each row is, by output."""
    return {
        each.output: scores(each, at_host(computed[each.output]), labels[each.output]) for each in targets
    }


def scores(target: Evaluation.Target, prediction: Array, labels: Array) -> Scores:
    """Score every row: the share of right choices for classes, the mean squared error for numbers."""
    values = prediction.astype(np.float64)
    if labels.ndim == values.ndim - 1:
        choices = values.argmax(axis=-1)
        counted = (
            labels != target.ignored_class
            if target.HasField("ignored_class")
            else np.ones(labels.shape, bool)
        )
        right = (choices == labels) & counted
        total = np.maximum(flat(counted).sum(axis=1), 1)
        return Scores(choices, "accuracy", flat(right).sum(axis=1) / total)
    if values.ndim > 1 and values.shape[-1] > 1 and is_one_hot(labels):
        choices = values.argmax(axis=-1)
        return Scores(choices, "accuracy", flat(choices == labels.argmax(axis=-1)).mean(axis=1))
    return Scores(None, "mean_squared_error", flat((values - labels) ** 2).mean(axis=1))


def is_one_hot(labels: Array) -> bool:
    """Whether each label has one 1 and otherwise 0."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=-1) == 1).all())


def flat(array: Array) -> Array:
    """Return a matrix with a row for each row."""
    return array.reshape(len(array), -1)


@dataclass(frozen=True)
class Interval:
    """The mean over rows of (version - baseline), paired by row, and where it lies with 95 % confidence."""

    metric: str
    difference: float
    low: float
    high: float


@dataclass
class Comparison:
    """One version beside another, over a stream of rows."""

    rows: int = 0
    disagreeing: list[int] = field(default_factory=list)
    _agreed: dict[str, list[int]] = field(default_factory=dict)
    # By output and metric: rows, sum and sum of squares of the differences.
    _moments: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, version: Mapping[str, Scores], baseline: Mapping[str, Scores]) -> None:
        """Take the scores of a batch, by output; InvalidArgumentError where there is nothing to compare."""
        differs = np.zeros(len(next(iter(version.values())).rows), bool)
        for output, other in paired(version, baseline).items():
            ours, theirs = version[output], baseline[other]
            if ours.metric != theirs.metric:
                raise InvalidArgumentError(
                    f"expected versions that are scored alike, got {theirs.metric} for output {other!r} of "
                    f"one and {ours.metric} for {output!r} of the other; evaluate each by itself"
                )
            if ours.choices is not None and theirs.choices is not None:
                same = ours.choices == theirs.choices
                counts = self._agreed.setdefault(output, [0, 0])
                counts[0] += int(same.sum())
                counts[1] += same.size
                differs |= ~flat(same).all(axis=1)
            difference = ours.rows - theirs.rows
            moments = self._moments.setdefault((output, ours.metric), [0.0, 0.0, 0.0])
            moments[0] += len(difference)
            moments[1] += float(difference.sum())
            moments[2] += float((difference**2).sum())
        room = MOST_ROWS - len(self.disagreeing)
        self.disagreeing += [self.rows + int(row) for row in np.flatnonzero(differs)[:room]]
        self.rows += len(differs)

    def follow(self, other: "Comparison") -> None:
        """Take the rows of another comparison, which come after those here."""
        for output, counts in other._agreed.items():
            self._agreed[output] = added(self._agreed.get(output, [0, 0]), counts)
        for key, moments in other._moments.items():
            self._moments[key] = added(self._moments.get(key, [0.0, 0.0, 0.0]), moments)
        room = MOST_ROWS - len(self.disagreeing)
        self.disagreeing += [self.rows + row for row in other.disagreeing[:room]]
        self.rows += other.rows

    @property
    def agreement(self) -> dict[str, float]:
        """By output, the share of elements for which both choose the same class."""
        return {output: same / count for output, (same, count) in self._agreed.items() if count}

    def intervals(self) -> Sequence[Interval]:
        """Return how sure the differences are."""
        several = len({output for output, _ in self._moments}) > 1
        return [
            interval(f"{output}_{metric}" if several else metric, *moments)
            for (output, metric), moments in self._moments.items()
        ]


def paired(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Return which output is compared with which: those of one name, or the only one with the only one, since
    Keras numbers the names that nobody gave. InvalidArgumentError where there are none.
    """
    common = {name: name for name in ours if name in theirs}
    if not common and len(ours) == len(theirs) == 1:
        return dict(zip(ours, theirs, strict=True))
    if not common:
        raise InvalidArgumentError(
            f"expected versions with an output in common, got {', '.join(theirs)} of one and "
            f"{', '.join(ours)} of the other; evaluate each by itself"
        )
    return common


def added(one: Sequence[Number], other: Sequence[Number]) -> list[Number]:
    """Return the sums, number by number."""
    return [left + right for left, right in zip(one, other, strict=True)]


def interval(metric: str, count: float, total: float, squares: float) -> Interval:
    """Return the mean and its confidence interval."""
    mean = total / count
    variance = max(0.0, squares - count * mean**2) / max(1.0, count - 1)
    half = DEVIATIONS * math.sqrt(variance / count)
    return Interval(metric, mean, mean - half, mean + half)
