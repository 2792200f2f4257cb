"""The loss of a reduced precision, per output.

    with labels     classes        accuracy: the decrease of the share of correct predictions
                    numbers        rmse: growth of the root mean square error / deviation of the labels
    without         probabilities  choices: the share of rows whose predicted class changes
                    numbers        error: root mean square difference / root mean square of float32
                    others         elements: the share of elements that differ

Rows are all positions before the last axis; each step of a sequence counts. Choosing another class is no loss
if its probability in float32 is within 1 % of the largest. The loss of an output with new infinities or NaN
is infinite.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kerve.compiler.errors import LoadError

__all__ = ["Loss", "Meter", "meter_for"]

Array = NDArray[Any]

#: Two classes whose probabilities differ by less, relative to the larger one, count as equal.
_EQUALLY_PROBABLE = 0.01


@dataclass(frozen=True)
class Loss:
    """The loss of one output."""

    output: str
    #: One of the names above.
    measure: str
    drop: float
    rows: int
    #: The scores of float32 and of the reduced precision, if there are labels.
    before: float | None = None
    after: float | None = None

    def __str__(self) -> str:
        if math.isinf(self.drop):
            return f"output '{self.output}' becomes infinite or NaN"
        return f"output '{self.output}' {_PHRASES[self.measure].format(**vars(self))}"


_PHRASES = {
    "accuracy": "is right in {after:.2%} of {rows} rows, float32 in {before:.2%}",
    "choices": "chooses another class in {drop:.2%} of {rows} rows",
    "elements": "differs in {drop:.2%} of its elements",
    "error": "has a relative root mean square error of {drop:.3g}",
    "rmse": "has a root mean square error of {after:.4g}, float32 of {before:.4g}",
}


class Meter(ABC):
    """Accumulates the loss of one output over batches, which are added in the order of the rows."""

    measure: ClassVar[str]

    def __init__(self) -> None:
        self.rows = 0
        self._spoilt = False

    def add(self, before: Array, after: Array) -> None:
        """Add the outputs of float32 (`before`) and of the reduced precision for the same inputs."""
        if before.dtype.kind == "f":
            before, after = before.astype(np.float64), after.astype(np.float64)
            self._spoilt |= bool((np.isfinite(before) & ~np.isfinite(after)).any())
        self._add(before, after)
        self.rows += math.prod(before.shape[:-1]) if before.ndim > 1 else before.size

    def loss(self, output: str) -> Loss:
        """Return the loss over all batches added."""
        before, after = self._scores()
        drop = math.inf if self._spoilt else self._drop()
        return Loss(output, self.measure, drop, self.rows, before, after)

    @abstractmethod
    def _add(self, before: Array, after: Array) -> None: ...

    @abstractmethod
    def _drop(self) -> float: ...

    def _scores(self) -> tuple[float | None, float | None]:
        return None, None


def meter_for(output: str, scores: Array, labels: Array | None) -> Meter:
    """Return the meter for an output, chosen by its values in the first rows and the labels of all rows.

    Raises `LoadError` if the labels do not fit the output.
    """
    if labels is not None:
        return _labelled(output, scores, labels)
    if scores.dtype.kind != "f":
        return _Elements()
    return _Choices() if _are_probabilities(scores) else _Error()


class _Elements(Meter):
    measure = "elements"
    _different = _all = 0

    def _add(self, before: Array, after: Array) -> None:
        self._different += int(np.count_nonzero(before != after))
        self._all += before.size

    def _drop(self) -> float:
        return self._different / max(self._all, 1)


class _Choices(Meter):
    measure = "choices"
    _changed = 0

    def _add(self, before: Array, after: Array) -> None:
        if before.shape[-1] == 1:  # the probability of the second of two classes
            before, after = (np.concatenate([1.0 - array, array], axis=-1) for array in (before, after))
        kept = np.take_along_axis(before, after.argmax(-1)[..., None], -1)[..., 0]
        self._changed += int(np.count_nonzero(kept < (1.0 - _EQUALLY_PROBABLE) * before.max(-1)))

    def _drop(self) -> float:
        return self._changed / max(self.rows, 1)


class _Error(Meter):
    measure = "error"
    _difference = _size = 0.0

    def _add(self, before: Array, after: Array) -> None:
        finite = np.isfinite(before) & np.isfinite(after)
        self._difference += float(np.square(after[finite] - before[finite]).sum())
        self._size += float(np.square(before[finite]).sum())

    def _drop(self) -> float:
        return math.sqrt(self._difference / (self._size or 1.0))


class _Accuracy(Meter):
    measure = "accuracy"
    _before = _after = _all = 0

    def __init__(self, decide: Callable[[Array], Array], truth: Array) -> None:
        super().__init__()
        self._decide, self._truth = decide, truth

    def _add(self, before: Array, after: Array) -> None:
        truth = self._truth[self._all : self._all + len(before)]
        self._all += len(before)
        self._before += int(np.count_nonzero(self._decide(before) == truth))
        self._after += int(np.count_nonzero(self._decide(after) == truth))

    def _drop(self) -> float:
        before, after = self._scores()
        return before - after

    def _scores(self) -> tuple[float, float]:
        count = max(int(np.count_nonzero(self._truth[: self._all] >= 0)), 1)
        return self._before / count, self._after / count


class _LabelledError(Meter):
    measure = "rmse"
    _before = _after = 0.0
    _all = _compared = 0

    def __init__(self, truth: Array) -> None:
        super().__init__()
        self._truth = truth

    def _add(self, before: Array, after: Array) -> None:
        truth = self._truth[self._all : self._all + len(before)]
        self._all += len(before)
        finite = np.isfinite(before) & np.isfinite(after)  # elements not finite in float32 are no loss
        self._compared += int(np.count_nonzero(finite))
        self._before += float(np.square(before[finite] - truth[finite]).sum())
        self._after += float(np.square(after[finite] - truth[finite]).sum())

    def _drop(self) -> float:
        before, after = self._scores()
        return (after - before) / (float(self._truth.std()) or 1.0)

    def _scores(self) -> tuple[float, float]:
        count = max(self._compared, 1)
        return math.sqrt(self._before / count), math.sqrt(self._after / count)


def _labelled(output: str, scores: Array, labels: Array) -> Meter:
    rows, classes = len(labels), scores.shape[-1] if scores.ndim > 1 else 1
    each = math.prod(scores.shape[1:])  # elements of the output in a row
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise LoadError(
            f"the labels of output '{output}' hold NaN or infinity; expected numbers: leave out those rows"
        )
    if labels.dtype.kind in "biuf" and scores.dtype.kind == "f":
        if classes > 1 and labels.size * classes == rows * each and (labels == np.rint(labels)).all():
            if not 0 <= labels.max(initial=0) < classes:
                raise LoadError(
                    f"the largest label of output '{output}' is {int(labels.max())}; expected a class from 0 "
                    f"to {classes - 1}, or a negative number for no class"
                )
            return _Accuracy(_most_probable, labels.reshape(rows, *scores.shape[1:-1]))
        if labels.size == rows * each:
            truth = labels.reshape(rows, *scores.shape[1:])
            if not np.isin(truth, (0, 1)).all():
                return _LabelledError(truth.astype(np.float64))
            if classes > 1 and (truth.sum(-1) == 1).all():
                return _Accuracy(_most_probable, truth.argmax(-1))
            threshold = 0.5 if ((scores >= 0.0) & (scores <= 1.0)).all() else 0.0  # else they are logits
            return _Accuracy(lambda given: given > threshold, truth > 0)
    raise LoadError(
        f"labels of shape {list(labels.shape)} and dtype {labels.dtype} do not fit output '{output}' of "
        f"shape {[rows, *scores.shape[1:]]}; expected one class per row, or one value per element"
    )


def _most_probable(scores: Array) -> Array:
    chosen: Array = scores.argmax(-1)
    return chosen


def _are_probabilities(scores: Array) -> bool:
    """Return whether each row is a distribution over classes, or one probability."""
    if scores.ndim < 2 or scores.size == 0 or not ((scores >= 0.0) & (scores <= 1.0)).all():
        return False
    if scores.shape[-1] == 1:
        return scores.ndim == 2
    return bool(np.allclose(scores.sum(-1, dtype=np.float64), 1.0, atol=1e-2))
