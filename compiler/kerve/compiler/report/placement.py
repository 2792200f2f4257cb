"""Placement of boxes and edges: a layered drawing, from top to bottom (Sugiyama et al., 1981).

Elements are placed in rows, each below those that it reads, and near its neighbours in adjacent rows. An edge
across several rows has a lane in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from kerve.compiler.report.blocks import Diagram, Element, Frame

__all__ = ["Picture", "Rectangle", "place"]

#: Sizes in pixels.
_BOX = (196.0, 42.0)
_PORT = (8.0, 8.0)
_LANE = 14.0
_GAP_X, _GAP_Y = 18.0, 26.0
_PADDING, _TITLE = 14.0, 24.0

_SWEEPS = 6

Point = tuple[float, float]


@dataclass(frozen=True)
class Rectangle:
    """A placed element; x and y are its upper left corner."""

    element: Element
    x: float
    y: float
    width: float
    height: float


@dataclass
class Picture:
    """Everything to draw, in pixels; frames precede their contents."""

    width: float = 0.0
    height: float = 0.0
    frames: list[Rectangle] = field(default_factory=list)
    boxes: list[Rectangle] = field(default_factory=list)
    #: The points of each edge, downwards.
    edges: list[tuple[Point, ...]] = field(default_factory=list)

    def add(self, inner: Picture, x: float, y: float) -> None:
        """Add another picture at a position."""
        for mine, its in ((self.frames, inner.frames), (self.boxes, inner.boxes)):
            mine.extend(Rectangle(r.element, r.x + x, r.y + y, r.width, r.height) for r in its)
        self.edges.extend(tuple((a + x, b + y) for a, b in edge) for edge in inner.edges)


@dataclass(eq=False)
class _Item:
    """An element, or the lane of an edge, in a row; x is its center, y its top."""

    width: float
    height: float
    element: Element | None = None
    inner: Picture | None = None
    above: list[_Item] = field(default_factory=list)
    below: list[_Item] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0


def place(drawing: Diagram) -> Picture:
    """Lay out a diagram and the frames in it."""
    items = [_item(element) for element in drawing.elements]
    rows, chains = _rows(items, sorted(drawing.edges))
    _order(rows)
    _spread(rows)
    height = 0.0
    for row in rows:
        tallest = max(item.height for item in row)
        for item in row:
            item.height = tallest if item.element is None else item.height
            item.y = height + (tallest - item.height) / 2
        height += tallest + _GAP_Y
    left = min((item.x - item.width / 2 for row in rows for item in row), default=0.0)
    right = max((item.x + item.width / 2 for row in rows for item in row), default=0.0)
    picture = Picture(right - left, max(height - _GAP_Y, 0.0))
    for item in items:
        _draw(item, picture, item.x - item.width / 2 - left)
    picture.edges += [tuple((x - left, y) for x, y in _points(chain)) for chain in chains]
    return picture


def _item(element: Element) -> _Item:
    if isinstance(element, Frame):
        inner = place(element.inner)
        width = max(inner.width, _BOX[0] - 2 * _PADDING) + 2 * _PADDING
        return _Item(width, inner.height + _TITLE + 2 * _PADDING, element, inner)
    return _Item(*(_PORT if element.part.role in ("entry", "exit") else _BOX), element)


def _draw(item: _Item, picture: Picture, x: float) -> None:
    assert item.element is not None
    rectangle = Rectangle(item.element, x, item.y, item.width, item.height)
    if item.inner is None:
        picture.boxes.append(rectangle)
    else:
        picture.frames.append(rectangle)
        picture.add(item.inner, x + (item.width - item.inner.width) / 2, item.y + _TITLE + _PADDING)


def _points(chain: Sequence[_Item]) -> Iterator[Point]:
    for item in chain:
        if item is not chain[0]:
            yield item.x, item.y
        if item is not chain[-1]:
            yield item.x, item.y + item.height


def _rows(items: list[_Item], edges: list[tuple[int, int]]) -> tuple[list[list[_Item]], list[list[_Item]]]:
    """Assign rows, and convert each edge to a chain of items in adjacent rows."""
    level = [0] * len(items)
    first: dict[int, int] = {}
    for a, b in edges:  # sorted by source, and elements are in topological order
        level[b] = max(level[b], level[a] + 1)
    entered = {b for _, b in edges}
    for a, b in edges:
        first[a] = min(first.get(a, level[b]), level[b])
    for a, below in first.items():
        if a not in entered:  # an input is placed directly above its first reader
            level[a] = below - 1
    rows: list[list[_Item]] = [[] for _ in range(max(level, default=-1) + 1)]
    for item, row in zip(items, level, strict=True):
        rows[row].append(item)
    chains = []
    for a, b in edges:
        lanes = [_Item(_LANE, 0.0) for _ in range(level[a] + 1, level[b])]
        for row, lane in enumerate(lanes, level[a] + 1):
            rows[row].append(lane)
        chains.append([items[a], *lanes, items[b]])
    for chain in chains:
        for one, two in pairwise(chain):
            one.below.append(two)
            two.above.append(one)
    return rows, chains


def _order(rows: list[list[_Item]]) -> None:
    """Sort each row by the positions of its neighbours in the previous row, alternating directions."""
    for row in rows:
        _number(row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            row.sort(key=lambda item: _wish(item, down))
            _number(row)


def _number(row: list[_Item]) -> None:
    for index, item in enumerate(row):
        item.x = index - (len(row) - 1) / 2


def _spread(rows: list[list[_Item]]) -> None:
    """Move the items of each row towards their neighbours in adjacent rows, without overlap."""
    for row in rows:
        _pack(row, [0.0] * len(row))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            _pack(row, [_wish(item, down) for item in row])


def _wish(item: _Item, down: bool) -> float:
    near = item.above if down else item.below
    return fmean(each.x for each in near) if near else item.x


def _pack(row: list[_Item], wishes: list[float]) -> None:
    """Place items in order, without overlap, minimizing the squared distances to their wishes.

    Isotonic regression by pooling adjacent violators (Barlow et al., 1972): after subtracting the space that
    items need, positions must only be non-decreasing.
    """
    offsets = [0.0]
    for one, two in pairwise(row):
        offsets.append(offsets[-1] + (one.width + two.width) / 2 + _GAP_X)
    pools: list[tuple[float, int]] = []  # mean and number of items
    for wish, offset in zip(wishes, offsets, strict=True):
        mean, size = wish - offset, 1
        while pools and pools[-1][0] > mean:
            other, more = pools.pop()
            mean, size = (mean * size + other * more) / (size + more), size + more
        pools.append((mean, size))
    means = (mean for mean, size in pools for _ in range(size))
    for item, offset, mean in zip(row, offsets, means, strict=True):
        item.x = round(mean + offset, 1)
