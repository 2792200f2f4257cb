"""Reduction of a level of layers to a readable diagram: `diagram(graph)`.

merged      a layer without weights is merged into its only predecessor: convolution and activation
repeated    consecutive repetitions are drawn once, in a frame with their number; on a level with very many
            parts, parts that differ only in sizes count as repetitions
summed up   a level that still has very many parts is cut where few edges cross, and each piece is one box
opened      parts with sublayers become frames, the largest first, as long as there is room
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

import onnx_ir as ir

from kerve.compiler.report.outline import Level, Part, inside, whole
from kerve.compiler.report.repetition import Run, runs

__all__ = ["Box", "Diagram", "Element", "Frame", "diagram"]

#: The most boxes in a picture when frames are opened for detail.
_ROOM = 90

#: The most parts of a level before it is summed up, and the number of pieces then.
_MANY = 48
_PIECES = 20


#: The most bytes of constants in a layer considered without weights: bounds, shapes, axes.
_SCALARS = 128


@dataclass
class Box:
    """A part to draw."""

    part: Part
    #: The number of consecutive repetitions.
    times: int = 1
    #: Whether it stands for several layers that are not drawn.
    summed: bool = False


@dataclass
class Frame:
    """A part with its contents, or a repetition of parts."""

    title: str
    times: int
    inner: Diagram


Element = Box | Frame


@dataclass
class Diagram:
    """Elements in topological order, and the edges between them by index."""

    elements: list[Element]
    edges: set[tuple[int, int]] = field(default_factory=set)


def diagram(graph: ir.Graph) -> Diagram:
    """Return the diagram of a model."""
    order = count()
    picture = _drawn(whole(graph))
    room = _ROOM - _boxes(picture)
    waiting: list[tuple[int, int, Diagram, int]] = []

    def wait(drawing: Diagram) -> None:
        for index, element in enumerate(drawing.elements):
            if isinstance(element, Frame):
                wait(element.inner)
            elif element.part.opens and not element.summed:
                heapq.heappush(waiting, (-len(element.part.nodes), next(order), drawing, index))

    wait(picture)
    while waiting:
        _, _, drawing, index = heapq.heappop(waiting)
        box = drawing.elements[index]
        assert isinstance(box, Box)
        inner = _drawn(inside(box.part))
        if _boxes(inner) > room:
            continue
        room -= _boxes(inner)
        drawing.elements[index] = Frame(box.part.name, box.times, inner)
        wait(inner)
    return picture


def _drawn(level: Level) -> Diagram:
    level = _merged(level)
    groups: list[tuple[Element, range]] = []
    for look in (_exactly, _roughly):
        groups = list(_groups(level, look))
        if len(groups) <= _MANY:
            break
    else:
        groups = [(Box(_sum(level, piece), summed=len(piece) > 1), piece) for piece in _pieces(level)]
    home = {index: number for number, (_, piece) in enumerate(groups) for index in piece}
    edges = {(home[a], home[b]) for a, b in level.edges if home[a] != home[b]}
    return Diagram([element for element, _ in groups], edges)


def _exactly(part: Part) -> object:
    return tuple(part.operators.items()), part.weights, part.result


def _roughly(part: Part) -> object:
    return tuple(part.operators), tuple(re.sub(r"\d+", "", name) for name in part.names)


def _groups(level: Level, look: Callable[[Part], object]) -> Iterator[tuple[Element, range]]:
    """Yield the elements to draw, with the parts that each stands for."""
    for run in runs(level, look):
        if run.times == 1:
            yield from ((Box(level.parts[index]), range(index, index + 1)) for index in run.indexes)
        elif run.length == 1:
            yield Box(level.parts[run.indexes[0]], run.times), run.indexes
        else:
            yield Frame(_title(level, run), run.times, _drawn(level.segment(run.first))), run.indexes


def _title(level: Level, run: Run) -> str:
    """Return the common names of the first and of the last repetition."""
    names = [_common([name for i in each for name in level.parts[i].names]) for each in (run.first, run.last)]
    return " … ".join(dict.fromkeys(name for name in names if name))


def _common(names: Sequence[str]) -> str:
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:same].rstrip("_-/.")


def _merged(level: Level) -> Level:
    before, after = level.predecessors(), level.successors()
    groups: list[list[int]] = []
    home: dict[int, int] = {}
    for index, part in enumerate(level.parts):
        only = before[index][0] if len(before[index]) == 1 else None
        joins = (
            only is not None
            and len(after[only]) == 1
            and part.role == level.parts[only].role == "layer"
            and not part.opens
            and not level.parts[only].opens
            and part.weights <= _SCALARS
        )
        home[index] = home[only] if joins and only is not None else len(groups)
        if joins:
            groups[home[index]].append(index)
        else:
            groups.append([index])
    return level.grouped([(_joined([level.parts[i] for i in group]), group) for group in groups])


def _joined(parts: Sequence[Part]) -> Part:
    first, *more = parts
    if not more:
        return first
    nodes = tuple(node for part in parts for node in part.nodes)
    names = tuple(name for part in parts for name in part.names)
    return Part(first.name, nodes, names=names, path=None)


def _sum(level: Level, piece: range) -> Part:
    return _joined([level.parts[index] for index in piece])


def _pieces(level: Level) -> list[range]:
    """Cut a level into pieces of nearly equal size, where the fewest edges cross."""
    parts = len(level.parts)
    passing = Counter[int]()
    reach: dict[int, int] = {}
    for a, b in level.edges:
        reach[a] = max(reach.get(a, a), b)
    for a, b in reach.items():
        passing.update(range(a + 1, b + 1))
    layers = [index for index, part in enumerate(level.parts) if part.role == "layer"]
    low, high = (layers[0], layers[-1] + 1) if layers else (parts, parts)
    pieces = min(_PIECES, high - low)
    step = (high - low) / max(pieces, 1)
    cuts = {0, *range(low + 1), *range(high, parts + 1)}
    for number in range(1, pieces):
        middle = low + number * step
        window = range(max(low + 1, round(middle - step / 2)), min(high, round(middle + step / 2)) + 1)
        cuts.add(min(window, key=lambda cut: (passing[cut], abs(cut - middle))))
    return [range(a, b) for a, b in pairwise(sorted(cuts))]


def _boxes(drawing: Diagram) -> int:
    return sum(_boxes(each.inner) if isinstance(each, Frame) else 1 for each in drawing.elements)
