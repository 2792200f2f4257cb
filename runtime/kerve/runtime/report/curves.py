"""Counts of scores from 0 to 1, and the curves that they give: exact to the width of a bin."""

from dataclasses import dataclass

import numpy as np

from kerve.runtime.datatypes import Array

__all__ = ["BINS", "Calibration", "ScoreCounts"]

BINS = 1000
CALIBRATION_BINS = 10


class ScoreCounts:
    """How often a score was given to what is of a class, and to what is not; for several classes."""

    def __init__(self, classes: int = 1) -> None:
        # By class, by whether the label is of it, by score.
        self.counts = np.zeros((classes, 2, BINS), np.int64)

    def add(self, scores: Array, truth: Array) -> None:
        """Count scores in the shape [rows, classes] with what is true of them, in the same shape."""
        classes = len(self.counts)
        bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        places = (np.arange(classes) * 2 + truth.astype(np.int64)) * BINS + bins
        self.counts += np.bincount(places.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def curve(self, number: int | None = None) -> "Curve":
        """Return the curves of a class; None: of all, each score as one decision."""
        false, true = self.counts.sum(axis=0) if number is None else self.counts[number]
        return Curve(np.r_[0, true[::-1].cumsum()], np.r_[0, false[::-1].cumsum()])


@dataclass(frozen=True)
class Curve:
    """True and false positives, from the strictest threshold to the most generous."""

    true: Array
    false: Array

    @property
    def defined(self) -> bool:
        """Whether there are labels of both kinds."""
        return bool(self.true[-1] and self.false[-1])

    def roc(self) -> tuple[Array, Array]:
        """Return false and true positive rates."""
        return self.false / max(1, self.false[-1]), self.true / max(1, self.true[-1])

    def precision_recall(self) -> tuple[Array, Array]:
        """Return recall and precision, from where anything is found."""
        found = self.true + self.false
        some = found > 0
        return self.true[some] / max(1, self.true[-1]), self.true[some] / found[some]

    def area(self) -> float:
        """Return the area under the ROC curve."""
        x, y = self.roc()
        return float(np.trapezoid(y, x))

    def average_precision(self) -> float:
        """Return the mean precision, weighted by the recall that each threshold adds."""
        recall, precision = self.precision_recall()
        return float((np.diff(recall, prepend=0) * precision).sum())


class Calibration:
    """How often what was said with some confidence was right."""

    def __init__(self) -> None:
        # By bin: values, sum of confidences, how many were right.
        self._sums = np.zeros((3, CALIBRATION_BINS))

    def add(self, confidence: Array, right: Array) -> None:
        """Count flat arrays."""
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        for row, weights in enumerate((None, confidence, right)):
            self._sums[row] += np.bincount(bins, weights, CALIBRATION_BINS)

    def points(self) -> tuple[Array, Array]:
        """Return the mean confidence and the share that was right, of the bins that hold any."""
        count, confidence, right = self._sums[:, self._sums[0] > 0]
        return confidence / count, right / count

    def error(self) -> float:
        """Return the expected calibration error: their mean distance, weighted by the values of a bin."""
        count = self._sums[0]
        return float(np.abs(self._sums[1] - self._sums[2]).sum() / max(1.0, count.sum()))
