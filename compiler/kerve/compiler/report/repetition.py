"""What stands several times in a row in a level of layers.

The level is cut at the parts that everything passes through. Between them lie single parts or branches that
run beside one another; a run is a sequence of such pieces that is followed by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kerve.compiler.report.outline import Level, Part

__all__ = ["Run", "runs"]

#: A repetition has at most this many pieces.
_LONGEST = 40

#: A part that so many others read (a mask, say) hides no cut.
_HUB = 4


@dataclass(frozen=True)
class Run:
    """Parts that follow one another, `times` times the same."""

    indexes: range
    times: int = 1

    @property
    def length(self) -> int:
        """Parts in one repetition."""
        return len(self.indexes) // self.times

    @property
    def first(self) -> range:
        """The first repetition."""
        return self.indexes[: self.length]

    @property
    def last(self) -> range:
        """The last repetition."""
        return self.indexes[-self.length :]


def runs(level: Level) -> Iterator[Run]:
    """Yield the whole level, in order, as runs."""
    edges = _local(level)
    pieces = _pieces(level, edges)
    marks = _marks(level, pieces, edges)
    at = 0
    while at < len(pieces):
        length, times = _longest(marks, at)
        if times > 1:
            shift = _phase(level, pieces, marks, at, length, times)
            if shift:
                yield Run(range(pieces[at].start, pieces[at + shift - 1].stop))
            at += shift
        end = at + length * times
        yield Run(range(pieces[at].start, pieces[end - 1].stop), times)
        at = end


def _local(level: Level) -> set[tuple[int, int]]:
    """Return the edges without those of hubs to anything but their first readers."""
    after = level.successors()
    return {(a, b) for a, b in level.edges if len(after[a]) < _HUB or b == after[a][0]}


def _pieces(level: Level, edges: set[tuple[int, int]]) -> list[range]:
    """Cut a level before and after each part that every path from its beginning to its end passes."""
    parts = len(level.parts)
    read, reads = {a for a, _ in level.edges}, {b for _, b in level.edges}
    passing = [0] * (parts + 2)  # how many edges begin before a part and end after it, as differences
    begin = [(-1, index) for index in range(parts) if index not in reads]
    end = [(index, parts) for index in range(parts) if index not in read]
    for a, b in (*edges, *begin, *end):
        passing[a + 1] += 1
        passing[b] -= 1
    cuts, total = {0, parts}, 0
    for index in range(parts):
        total += passing[index]
        if total == 0:
            cuts |= {index, index + 1}
    return [range(a, b) for a, b in pairwise(sorted(cuts))]


def _marks(level: Level, pieces: Sequence[range], edges: set[tuple[int, int]]) -> list[int]:
    """Number the pieces so that those alike have one number."""
    reads: dict[int, list[int]] = {}
    for a, b in edges:
        reads.setdefault(b, []).append(b - a)
    known: dict[object, int] = {}
    marks = []
    for piece in pieces:
        look = tuple((_look(level.parts[i]), tuple(sorted(reads.get(i, ())))) for i in piece)
        marks.append(known.setdefault(look, len(known)))
    return marks


def _look(part: Part) -> object:
    if part.role != "layer":
        return id(part)
    return tuple(part.operators.items()), part.weights, part.result


def _longest(marks: Sequence[int], at: int) -> tuple[int, int]:
    """Return length and times of the repetition that begins at a piece and covers most."""
    best = (1, 1)
    for length in range(1, min(_LONGEST, (len(marks) - at) // 2) + 1):
        times = 1
        while marks[at : at + length] == marks[at + times * length : at + (times + 1) * length]:
            times += 1
        if times > 1 and length * times > best[0] * best[1]:
            best = (length, times)
    return best


def _phase(
    level: Level, pieces: Sequence[range], marks: Sequence[int], at: int, length: int, times: int
) -> int:
    """Return by how much a repetition may begin later to begin where a person would say.

    That is where branches begin, or else where the numbers in the names change.
    """

    def rank(shift: int) -> tuple[bool, int, int]:
        begin = at + shift
        names = [n for piece in pieces[begin : begin + length] for i in piece for n in level.parts[i].names]
        numbers = {tuple(re.findall(r"\d+", name)[:2]) for name in names}
        return len(pieces[begin]) == 1, len(numbers), shift

    possible = [
        shift
        for shift in range(length)
        if marks[at + shift : at + shift + length * (times - 1)]
        == marks[at + shift + length : at + shift + length * times]
        and at + shift + length * times <= len(marks)
    ]
    return min(possible, key=rank)
