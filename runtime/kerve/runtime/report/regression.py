"""Regression."""

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.report.plot import bars, figure, number, scrolled
from kerve.runtime.report.worst import brief

__all__ = ["Regression"]

BINS = 64


class Regression:
    """Statistics and a histogram of errors, whose bins are widened for greater errors."""

    measure = "mean squared error"

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        # The bins cover -reach to reach.
        self._reach = 0.0
        self._errors = 0
        self._sum = self._absolute = self._squares = 0.0

    def add(self, answers: Array, labels: Array) -> Array | None:
        """Count a batch and return the loss of each row; None if the numbers of outputs and labels differ."""
        if answers.size != labels.size:
            return None
        errors = answers.astype(np.float64).reshape(len(answers), -1) - labels.reshape(len(answers), -1)
        flat = errors[np.isfinite(errors)]
        if flat.size:
            self._errors += flat.size
            self._sum += float(flat.sum())
            self._absolute += float(np.abs(flat).sum())
            self._squares += float((flat**2).sum())
            self._widen(float(np.abs(flat).max()))
            places = ((flat / self._reach + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
            self._counts += np.bincount(places, minlength=BINS)
        losses: Array = (errors**2).mean(axis=1)
        return losses

    def say(self, answer: Array) -> str:
        """Return a short text for the prediction of a row."""
        return brief(answer)

    def html(self) -> str:
        """Return the figures."""
        count = max(1, self._errors)
        rows = [
            ("mean error", number(self._sum / count)),
            ("mean absolute error", number(self._absolute / count)),
            ("root mean squared error", number((self._squares / count) ** 0.5)),
            ("values", f"{self._errors:,}"),
        ]
        drawing = bars(self._counts, -self._reach, self._reach, "predicted - label")
        return figure("Errors", drawing) + figure("Error statistics", scrolled(("", ""), rows))

    def _widen(self, greatest: float) -> None:
        if self._reach == 0.0:
            self._reach = greatest or 1.0
        while self._reach < greatest:
            # Merge pairs of bins, on both sides of zero.
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.pad(merged, BINS // 4)
            self._reach *= 2
