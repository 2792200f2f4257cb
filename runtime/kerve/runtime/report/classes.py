"""Multi-class classification."""

from collections.abc import Sequence

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.report.confusions import Confusions
from kerve.runtime.report.curves import Calibration, ScoreCounts
from kerve.runtime.report.plot import curves, figure, matrix, number, scrolled
from kerve.runtime.report.worst import brief

__all__ = ["Classes"]

#: Maximum number of classes for a complete confusion matrix, and for a curve per class.
MOST_SHOWN, MOST_CURVES = 40, 10
CONFUSIONS = 20
#: Maximum number of classes whose scores are counted separately; beyond that, all together.
MOST_COUNTED = 2000
LEAST = 1e-7


class Classes:
    """Class numbers or one-hot labels against scores, which are logits if they are not a distribution."""

    measure = "crossentropy"

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = names
        self._logits: bool | None = None
        self._confusions = Confusions()
        self._counts = ScoreCounts(0)
        self._calibration = Calibration()

    def add(self, answers: Array, labels: Array) -> Array | None:
        """Count a batch and return the loss of each row; None if the labels are not classes.

        Rows or elements with a label out of range are ignored.
        """
        classes = answers.shape[-1] if answers.ndim > 1 else 0
        truth = class_numbers(labels, answers.shape)
        if classes < 2 or truth is None:
            return None
        if not len(self._confusions.labels):
            self._confusions = Confusions(classes)
            self._counts = ScoreCounts(classes if classes <= MOST_COUNTED else 1)
        if self._logits is None and (known := answers[np.isfinite(answers).all(axis=-1)]).size:
            self._logits = not is_distribution(known)
        flat, numbers = self._scores(answers).reshape(-1, classes), truth.reshape(-1)
        counted = (numbers >= 0) & (numbers < classes)
        given = np.ones(len(numbers))
        given[counted] = flat[counted, numbers[counted]]
        self._count(flat[counted], numbers[counted])
        loss: Array = -np.log(given.clip(LEAST)).reshape(len(answers), -1).mean(axis=1)
        return loss

    def _scores(self, answers: Array) -> Array:
        scores: Array = softmax(answers) if self._logits else answers.astype(np.float64)
        # NaN counts as 0, which makes the row one of the worst.
        return np.nan_to_num(scores).clip(0, 1)

    def _name(self, number: int) -> str:
        return self._names[number] if len(self._names) == len(self._confusions.labels) else str(number)

    def _count(self, scores: Array, numbers: Array) -> None:
        classes = scores.shape[1]
        chosen = scores.argmax(axis=1)
        self._confusions.add(numbers, chosen)
        of_each = len(self._counts.counts) == classes
        truth = numbers[:, None] == np.arange(classes)
        self._counts.add(*(each if of_each else each.reshape(-1, 1) for each in (scores, truth)))
        self._calibration.add(scores.max(axis=1), (chosen == numbers).astype(np.float64))

    def say(self, answer: Array) -> str:
        """Return the predicted class of a row and its score; the classes if a row has several elements."""
        if answer.ndim != 1:
            return brief(answer.argmax(axis=-1))
        scores, chosen = self._scores(answer), int(answer.argmax())
        return f"{self._name(chosen)} ({number(scores[chosen])})"

    def html(self) -> str:
        """Return the figures."""
        classes = len(self._confusions.labels)
        names = [self._name(each) for each in range(classes)]
        if classes <= MOST_SHOWN:
            parts = [
                figure(
                    "Confusion matrix",
                    matrix(self._confusions.matrix(), names),
                    "rows: labels, columns: predictions; shaded by the share of the label",
                )
            ]
        else:
            parts = [
                figure(
                    "Most frequent confusions",
                    scrolled(("label", "predicted", "count"), self._confused(names)),
                )
            ]
        parts.append(
            figure(
                "By class", scrolled(("class", "labels", "precision", "recall", "AUC"), self._by_class(names))
            )
        )
        shown = range(classes) if classes <= MOST_CURVES else ()
        lines = [(names[each], self._counts.curve(each)) for each in shown]
        lines = [(name, curve) for name, curve in lines if curve.defined] or [("all", self._counts.curve())]
        note = "each class versus the rest" if shown else "micro-average of all classes"
        roc = [(name, *curve.roc()) for name, curve in lines]
        recall = [(name, *curve.precision_recall()) for name, curve in lines]
        parts += [
            figure("ROC", curves(roc, "false positive rate", "true positive rate", diagonal=True), note),
            figure("Precision and recall", curves(recall, "recall", "precision"), note),
            figure(
                "Calibration",
                curves(
                    [("", *self._calibration.points())], "confidence", "accuracy", diagonal=True, dots=True
                ),
                f"expected calibration error {number(self._calibration.error())}",
            ),
        ]
        return "".join(parts)

    def _confused(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        return [
            (names[label], names[chosen], f"{count:,}")
            for label, chosen, count in self._confusions.most(CONFUSIONS)
        ]

    def _by_class(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        right, labels, chosen = self._confusions.right, self._confusions.labels, self._confusions.chosen
        rows: list[tuple[str, ...]] = []
        for each in (
            np.argsort(-labels, kind="stable")[:MOST_SHOWN] if len(names) > MOST_SHOWN else range(len(names))
        ):
            precision = number(right[each] / chosen[each]) if chosen[each] else ""
            recall = number(right[each] / labels[each]) if labels[each] else ""
            rows.append((names[each], f"{labels[each]:,}", precision, recall, self._area(int(each))))
        return rows

    def _area(self, each: int) -> str:
        """Return the area under a class's ROC curve, if it is known."""
        if len(self._counts.counts) != len(self._confusions.labels):
            return ""
        curve = self._counts.curve(each)
        return number(curve.area()) if curve.defined else ""


def class_numbers(labels: Array, shape: tuple[int, ...]) -> Array | None:
    """Return the class of each row or element; None if the labels are not classes."""
    if labels.shape == shape and shape[-1] > 1:
        ones = ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=-1) == 1).all()
        return labels.argmax(axis=-1) if ones else None
    squeezed = labels[..., 0] if labels.shape[-1:] == (1,) and labels.ndim == len(shape) else labels
    whole = squeezed.shape == shape[:-1] and bool((squeezed == np.floor(squeezed)).all())
    return squeezed.astype(np.int64) if whole else None


def is_distribution(scores: Array) -> bool:
    """Return whether scores are not negative and add up to 1."""
    sums = scores.sum(axis=-1, dtype=np.float64)
    return bool((scores >= 0).all() and np.allclose(sums, 1, atol=1e-2))


def softmax(logits: Array) -> Array:
    """Return the softmax of logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: Array = powers / powers.sum(axis=-1, keepdims=True)
    return result
