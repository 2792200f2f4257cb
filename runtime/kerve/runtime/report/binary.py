"""Binary and multi-label classification."""

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.report.curves import Calibration, ScoreCounts
from kerve.runtime.report.plot import curves, figure, matrix, number
from kerve.runtime.report.worst import brief

__all__ = ["Binary"]

THRESHOLD = 0.5
LEAST = 1e-7


class Binary:
    """Labels of 0 and 1 against scores, which are logits if any in the first batch is outside of 0 to 1."""

    measure = "crossentropy"

    def __init__(self) -> None:
        self._counts = ScoreCounts()
        self._calibration = Calibration()
        self._confusion = np.zeros((2, 2), np.int64)
        self._logits: bool | None = None

    def add(self, answers: Array, labels: Array) -> Array | None:
        """Count a batch and return the loss of each row; None if the labels are not 0 and 1."""
        if answers.size != labels.size or not ((labels == 0) | (labels == 1)).all():
            return None
        flat = answers.reshape(-1).astype(np.float64)
        if self._logits is None:
            self._logits = bool(((flat < 0) | (flat > 1)).any())
        # NaN counts as 0; the logits are clipped so that exp(-x) does not overflow.
        scores = np.nan_to_num(1 / (1 + np.exp(-flat.clip(-700, 700))) if self._logits else flat).clip(0, 1)
        truth = labels.reshape(-1).astype(np.int64)
        self._counts.add(scores[:, None], truth[:, None])
        self._calibration.add(scores, truth.astype(np.float64))
        places = truth * 2 + (scores > THRESHOLD)
        self._confusion += np.bincount(places, minlength=4).reshape(2, 2)
        given = np.where(truth == 1, scores, 1 - scores).clip(LEAST)
        loss: Array = -np.log(given).reshape(len(answers), -1).mean(axis=1)
        return loss

    def say(self, answer: Array) -> str:
        """Return a short text for the prediction of a row."""
        return brief(answer)

    def html(self) -> str:
        """Return the figures."""
        curve = self._counts.curve()
        parts = [
            figure(
                "Confusion matrix",
                matrix(self._confusion, ["0", "1"]),
                f"rows: labels, columns: predictions, at a threshold of {THRESHOLD}",
            )
        ]
        if curve.defined:
            roc, recall = curve.roc(), curve.precision_recall()
            parts += [
                figure(
                    "ROC",
                    curves([("", *roc)], "false positive rate", "true positive rate", diagonal=True),
                    f"AUC {number(curve.area())}",
                ),
                figure(
                    "Precision and recall",
                    curves([("", *recall)], "recall", "precision"),
                    f"average precision {number(curve.average_precision())}",
                ),
            ]
        points = self._calibration.points()
        drawing = curves([("", *points)], "score", "fraction of label 1", diagonal=True, dots=True)
        note = f"expected calibration error {number(self._calibration.error())}"
        return "".join([*parts, figure("Calibration", drawing, note)])
