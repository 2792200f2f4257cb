"""Comparison of two versions: rows with different predictions, and confidence intervals of the difference."""

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

#: Maximum number of disagreeing rows that are reported.
MOST_ROWS = 100
#: Standard deviations of a normal distribution for 95 % confidence.
DEVIATIONS = 1.959964


@dataclass(frozen=True)
class Scores:
    """Scores of one batch and output: the predicted class of each element, and the score of each row."""

    choices: Array | None
    metric: str
    rows: Array


def scores_of(
    targets: Sequence[Evaluation.Target],
    computed: Mapping[str, Array | DeviceArray],
    labels: Mapping[str, Array],
) -> dict[str, Scores]:
    """Return the scores by output."""
    return {
        each.output: scores(each, at_host(computed[each.output]), labels[each.output]) for each in targets
    }


def scores(target: Evaluation.Target, prediction: Array, labels: Array) -> Scores:
    """Score every row: the accuracy for classes, the mean squared error for numbers."""
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
    """Return whether each label is one-hot."""
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=-1) == 1).all())


def flat(array: Array) -> Array:
    """Flatten all axes after the first."""
    return array.reshape(len(array), -1)


@dataclass(frozen=True)
class Interval:
    """The mean over rows of (version - baseline), paired by row, with its 95 % confidence interval."""

    metric: str
    difference: float
    low: float
    high: float


@dataclass
class Comparison:
    """Comparison of a version with a baseline over a stream of rows."""

    rows: int = 0
    disagreeing: list[int] = field(default_factory=list)
    _agreed: dict[str, list[int]] = field(default_factory=dict)
    # By output and metric: rows, sum and sum of squares of the differences.
    _moments: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, version: Mapping[str, Scores], baseline: Mapping[str, Scores]) -> None:
        """Add the scores of a batch, by output; raises InvalidArgumentError if they cannot be compared."""
        differs = np.zeros(len(next(iter(version.values())).rows), bool)
        for output, other in paired(version, baseline).items():
            ours, theirs = version[output], baseline[other]
            if ours.metric != theirs.metric:
                raise InvalidArgumentError(
                    f"expected versions with the same metric, got {theirs.metric} for output {other!r} of "
                    f"one and {ours.metric} for {output!r} of the other; evaluate them separately"
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
        """Append another comparison, whose rows follow those of this one."""
        for output, counts in other._agreed.items():
            self._agreed[output] = added(self._agreed.get(output, [0, 0]), counts)
        for key, moments in other._moments.items():
            self._moments[key] = added(self._moments.get(key, [0.0, 0.0, 0.0]), moments)
        room = MOST_ROWS - len(self.disagreeing)
        self.disagreeing += [self.rows + row for row in other.disagreeing[:room]]
        self.rows += other.rows

    @property
    def agreement(self) -> dict[str, float]:
        """By output, the share of elements for which both predict the same class."""
        return {output: same / count for output, (same, count) in self._agreed.items() if count}

    def intervals(self) -> Sequence[Interval]:
        """Return the confidence intervals of the differences."""
        several = len({output for output, _ in self._moments}) > 1
        return [
            interval(f"{output}_{metric}" if several else metric, *moments)
            for (output, metric), moments in self._moments.items()
        ]


def paired(ours: Collection[str], theirs: Collection[str]) -> dict[str, str]:
    """Return the pairs of outputs to compare: those of equal names, or the only outputs of both, since Keras
    numbers default names. Raises InvalidArgumentError if there are none.
    """
    common = {name: name for name in ours if name in theirs}
    if not common and len(ours) == len(theirs) == 1:
        return dict(zip(ours, theirs, strict=True))
    if not common:
        raise InvalidArgumentError(
            f"expected versions with an output in common, got {', '.join(theirs)} of one and "
            f"{', '.join(ours)} of the other; evaluate them separately"
        )
    return common


def added(one: Sequence[Number], other: Sequence[Number]) -> list[Number]:
    """Return the elementwise sums."""
    return [left + right for left, right in zip(one, other, strict=True)]


def interval(metric: str, count: float, total: float, squares: float) -> Interval:
    """Return the mean and its confidence interval."""
    mean = total / count
    variance = max(0.0, squares - count * mean**2) / max(1.0, count - 1)
    half = DEVIATIONS * math.sqrt(variance / count)
    return Interval(metric, mean, mean - half, mean + half)
