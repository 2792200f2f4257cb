"""Histograms of scores from 0 to 1, and the curves computed from them: exact to the width of a bin."""

from dataclasses import dataclass

import numpy as np

from kerve.runtime.datatypes import Array

__all__ = ["BINS", "Calibration", "ScoreCounts"]

BINS = 1000
CALIBRATION_BINS = 10


class ScoreCounts:
    """Histograms of scores for positive and negative labels, for several classes."""

    def __init__(self, classes: int = 1) -> None:
        # By class, negative or positive, and bin.
        self.counts = np.zeros((classes, 2, BINS), np.int64)

    def add(self, scores: Array, truth: Array) -> None:
        """Count scores of shape [rows, classes]; `truth`, of the same shape: whether labels are positive."""
        classes = len(self.counts)
        bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
        places = (np.arange(classes) * 2 + truth.astype(np.int64)) * BINS + bins
        self.counts += np.bincount(places.ravel(), minlength=self.counts.size).reshape(self.counts.shape)

    def curve(self, number: int | None = None) -> "Curve":
        """Return the curve of a class; None: micro-averaged over all classes."""
        false, true = self.counts.sum(axis=0) if number is None else self.counts[number]
        return Curve(np.r_[0, true[::-1].cumsum()], np.r_[0, false[::-1].cumsum()])


@dataclass(frozen=True)
class Curve:
    """Cumulative true and false positives, from the highest threshold to the lowest."""

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
        """Return recall and precision, for thresholds with at least one positive prediction."""
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
    """Accuracy by confidence."""

    def __init__(self) -> None:
        # By bin: count, sum of confidences, number of correct predictions.
        self._sums = np.zeros((3, CALIBRATION_BINS))

    def add(self, confidence: Array, right: Array) -> None:
        """Count flat arrays."""
        bins = np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        for row, weights in enumerate((None, confidence, right)):
            self._sums[row] += np.bincount(bins, weights, CALIBRATION_BINS)

    def points(self) -> tuple[Array, Array]:
        """Return the mean confidence and the accuracy of the non-empty bins."""
        count, confidence, right = self._sums[:, self._sums[0] > 0]
        return confidence / count, right / count

    def error(self) -> float:
        """Return the expected calibration error: the mean distance of both, weighted by the bins' counts."""
        count = self._sums[0]
        return float(np.abs(self._sums[1] - self._sums[2]).sum() / max(1.0, count.sum()))
