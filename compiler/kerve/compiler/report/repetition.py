"""Detection of consecutive repetitions in a level of layers.

The level is cut at the parts that lie on every path. Between them are single parts or parallel branches; a
run is a sequence of such pieces that is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from kerve.compiler.report.outline import Level, Part

__all__ = ["Run", "runs"]

#: The most pieces in a repetition.
_LONGEST = 40

#: Edges of a part with at least this many readers (a mask, say) do not prevent cuts.
_HUB = 4


@dataclass(frozen=True)
class Run:
    """Consecutive parts, the same sequence `times` times."""

    indexes: range
    times: int = 1

    @property
    def length(self) -> int:
        """The number of parts in one repetition."""
        return len(self.indexes) // self.times

    @property
    def first(self) -> range:
        """The first repetition."""
        return self.indexes[: self.length]

    @property
    def last(self) -> range:
        """The last repetition."""
        return self.indexes[-self.length :]


def runs(level: Level, look: Callable[[Part], object]) -> list[Run]:
    """Return the whole level, in order, as runs; parts with the same `look` are considered equal.

    Short repetitions are found first, and may be part of longer ones.
    """
    edges = _local(level)
    marks: dict[object, int] = {}
    found = list(_marked(level, _pieces(level, edges), edges, look, marks))
    length = 1
    while length <= min(_LONGEST, len(found) // 2):
        joined = list(_joined(level, found, length, marks))
        length = length + 1 if len(joined) == len(found) else 1
        found = joined
    return [each.run for each in found]


class _Marked(NamedTuple):
    """A run and a number that is the same for equal runs."""

    mark: int
    run: Run


def _joined(
    level: Level, found: Sequence[_Marked], length: int, known: dict[object, int]
) -> Iterator[_Marked]:
    """Join each repetition of `length` runs into one run."""
    marks = [each.mark for each in found]
    at = 0
    while at < len(found):
        times = _times(marks, at, length)
        if times == 1:
            yield found[at]
            at += 1
            continue
        shift = _phase(level, found, marks, at, length, times)
        yield from found[at : at + shift]
        at += shift
        end = at + length * times
        indexes = range(found[at].run.indexes.start, found[end - 1].run.indexes.stop)
        look = tuple(marks[at : at + length]), times
        yield _Marked(known.setdefault(look, len(known)), Run(indexes, times))
        at = end


def _local(level: Level) -> set[tuple[int, int]]:
    """Return the edges without those from hubs to parts that also read other parts."""
    hubs = {index for index, after in enumerate(level.successors()) if len(after) >= _HUB}
    before = level.predecessors()
    return {(a, b) for a, b in level.edges if a not in hubs or hubs.issuperset(before[b])}


def _pieces(level: Level, edges: set[tuple[int, int]]) -> list[range]:
    """Cut a level before and after each part that lies on every path from its beginning to its end."""
    parts = len(level.parts)
    read, reads = {a for a, _ in level.edges}, {b for _, b in level.edges}
    passing = [0] * (parts + 2)  # the number of edges that span each part, as differences
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


def _marked(
    level: Level,
    pieces: Iterable[range],
    edges: Iterable[tuple[int, int]],
    look: Callable[[Part], object],
    known: dict[object, int],
) -> Iterator[_Marked]:
    """Number the pieces: equal for pieces with the same look and the same connections."""
    reads: dict[int, set[int]] = {}
    for a, b in edges:
        reads.setdefault(b, set()).add(b - a)
    for piece in pieces:
        parts = [(index, level.parts[index]) for index in piece]
        mark = tuple(
            (look(part) if part.role == "layer" else id(part), frozenset(reads.get(index, ())))
            for index, part in parts
        )
        yield _Marked(known.setdefault(mark, len(known)), Run(piece))


def _times(marks: Sequence[int], at: int, length: int) -> int:
    """Return how often the `length` runs at a position are repeated there."""
    times = 1
    while marks[at : at + length] == marks[at + times * length : at + (times + 1) * length]:
        times += 1
    return times


def _phase(
    level: Level, found: Sequence[_Marked], marks: Sequence[int], at: int, length: int, times: int
) -> int:
    """Return by how many runs to shift a repetition, so that it begins where a reader expects it.

    That is where branches begin, or else where the numbers in the names change.
    """

    def rank(shift: int) -> tuple[bool, int, int]:
        begin = at + shift
        first = found[begin : begin + length]
        names = [name for each in first for index in each.run.indexes for name in level.parts[index].names]
        numbers = {tuple(re.findall(r"\d+", name)[:2]) for name in names}
        return len(found[begin].run.indexes) == 1, len(numbers), shift

    possible = [shift for shift in range(length) if _times(marks, at + shift, length) >= times]
    return min(possible, key=rank)
