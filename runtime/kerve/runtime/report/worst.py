"""The rows with the greatest loss, with their inputs."""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.report.picture import picture
from kerve.runtime.report.plot import number

__all__ = ["Worst", "brief"]

KEPT = 10
#: Values of a row, and characters of a text, that are shown.
SHOWN = 8
LETTERS = 120


@dataclass(order=True)
class Row:
    """One of the worst rows; of equal ones, the first is kept."""

    loss: float
    order: int
    label: str = field(compare=False)
    answer: str = field(compare=False)
    inputs: str = field(compare=False)


class Worst:
    """A bounded heap of the worst rows."""

    def __init__(self, say: Callable[[Array], str]) -> None:
        """`say` returns a short text for a prediction."""
        self._say = say
        self._rows: list[Row] = []

    def add(
        self, first: int, losses: Array, labels: Array, answers: Array, inputs: Mapping[str, Array]
    ) -> None:
        """Add the rows of a batch; `first`: the position of its first row; `losses`: one for each row."""
        finite = np.nan_to_num(losses, nan=np.inf, posinf=np.inf)
        for place in np.argsort(-finite, kind="stable")[:KEPT].tolist():
            loss, order = float(finite[place]), -(first + place)
            if len(self._rows) == KEPT and (loss, order) <= (self._rows[0].loss, self._rows[0].order):
                break
            shown = "".join(show_input(name, array[place]) for name, array in inputs.items())
            row = Row(loss, order, brief(labels[place]), self._say(answers[place]), shown)
            (heapq.heappushpop if len(self._rows) == KEPT else heapq.heappush)(self._rows, row)

    def html(self, measure: str) -> str:
        """Return a table, the worst row first."""
        head = (
            f"<tr><th>row</th><th>{escape(measure)}</th><th>label</th><th>predicted</th><th>input</th></tr>"
        )
        body = "".join(
            f"<tr><td>{-row.order}</td><td>{number(row.loss)}</td><td>{escape(row.label)}</td>"
            f"<td>{escape(row.answer)}</td><td>{row.inputs}</td></tr>"
            for row in sorted(self._rows, reverse=True)
        )
        return f"<div class=scroll><table class=worst>{head}{body}</table></div>"


def show_input(name: str, value: Array) -> str:
    """Return images as an image, other values as text."""
    address = picture(value) if value.dtype.kind in "uif" else None
    if address is not None:
        return f'<img alt="{escape(name)}" title="{escape(name)}" src="{address}">'
    return f"<div>{escape(name)}: {escape(brief(value))}</div>"


def brief(value: Array) -> str:
    """Return a short text for a value."""
    flat = np.asarray(value).ravel()
    more = ", ..." if flat.size > SHOWN else ""
    if flat.dtype.kind in "OSU":
        texts = [
            each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in flat[:SHOWN]
        ]
        return (", ".join(texts))[:LETTERS] + more
    return ", ".join(number(each) for each in flat[:SHOWN].tolist()) + more
