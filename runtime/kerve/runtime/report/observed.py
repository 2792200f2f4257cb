"""Statistics of one output over the rows so far."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.report.binary import Binary
from kerve.runtime.report.classes import Classes
from kerve.runtime.report.regression import Regression
from kerve.runtime.report.worst import Worst
from kerve.runtime.signature import TensorSpec

__all__ = ["Observed"]


class Task(Protocol):
    """A possible task of an output."""

    @property
    def measure(self) -> str:
        """The name of the loss that `add` returns."""

    def add(self, answers: Array, labels: Array) -> Array | None:
        """Count a batch and return the loss of each row; None if the labels do not fit the task."""

    def say(self, answer: Array) -> str:
        """Return a short text for the prediction of a row."""

    def html(self) -> str:
        """Return the figures."""


class Observed:
    """An output: the tasks that fit all batches so far, most specific first, with the worst rows of each.

    Later labels may not be 0 and 1 as those so far, so more general tasks are counted in parallel.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self._tasks: list[tuple[Task, Worst]] = [
            (task, Worst(task.say)) for task in (Classes(spec.labels), Binary(), Regression())
        ]

    def add(self, first: int, answers: Array, labels: Array, inputs: Mapping[str, Array]) -> None:
        """Add a batch whose first row has the position `first`."""
        fitting = []
        for task, worst in self._tasks:
            with np.errstate(invalid="ignore", over="ignore"):  # outputs may contain NaN and infinity
                losses = task.add(answers, labels)
                if losses is not None:
                    worst.add(first, losses, labels, answers, inputs)
                    fitting.append((task, worst))
        self._tasks = fitting

    def html(self) -> str:
        """Return the figures and the worst rows."""
        if not self._tasks:
            return "<p class=note>Labels and predictions differ in shape: only metrics are shown.</p>"
        task, worst = self._tasks[0]
        return f"<div class=figures>{task.html()}</div><h3>Worst rows</h3>{worst.html(task.measure)}"
