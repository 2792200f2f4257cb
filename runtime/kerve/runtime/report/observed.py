"""What is known of one output after the rows so far."""

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
    """What an output may be for."""

    @property
    def measure(self) -> str:
        """What `add` returns."""

    def add(self, answers: Array, labels: Array) -> Array | None:
        """Count a batch and return how wrong each row is; None where the labels do not belong to the task."""

    def say(self, answer: Array) -> str:
        """Return what was predicted for a row in a few words."""

    def html(self) -> str:
        """Return the figures."""


class Observed:
    """An output: the tasks that every batch allowed, the most particular first, and the worst rows of each.

    That labels were 0 and 1 so far does not prove that they stay so: what is more general is counted beside.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self._tasks: list[tuple[Task, Worst]] = [
            (task, Worst(task.say)) for task in (Classes(spec.labels), Binary(), Regression())
        ]

    def add(self, first: int, answers: Array, labels: Array, inputs: Mapping[str, Array]) -> None:
        """Take a batch whose first row has this position."""
        fitting = []
        for task, worst in self._tasks:
            with np.errstate(invalid="ignore", over="ignore"):  # a model may answer with what is no number
                losses = task.add(answers, labels)
                if losses is not None:
                    worst.add(first, losses, labels, answers, inputs)
                    fitting.append((task, worst))
        self._tasks = fitting

    def html(self) -> str:
        """Return what there is to see."""
        if not self._tasks:
            return (
                "<p class=note>Labels and predictions differ in shape; what is said of them are metrics.</p>"
            )
        task, worst = self._tasks[0]
        return f"<div class=figures>{task.html()}</div><h3>Worst rows</h3>{worst.html(task.measure)}"
