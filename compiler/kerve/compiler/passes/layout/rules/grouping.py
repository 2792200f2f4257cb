"""Which axes before a Reshape hold the same elements as which axes after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kerve.compiler.passes.reading import Dim

__all__ = ["Group", "group"]

#: Axes before a Reshape, and the axes after it that hold the same elements.
Group = tuple[tuple[int, ...], tuple[int, ...]]

#: A size: a number times some named sizes. `(6, ("batch",))` is 6 * batch.
Size = tuple[int, tuple[str, ...]]

_ONE: Size = (1, ())


def group(before: Sequence[Dim], after: Sequence[Dim]) -> list[Group] | None:
    """Pair the axes before and after, as finely as their sizes tell; axes of size one belong nowhere.

    None if the sizes do not say enough, or contradict each other.
    """
    sizes = _solve([_size(dim) for dim in before], [_size(dim) for dim in after])
    if sizes is None:
        return None
    # A cut is possible wherever as many elements lie before it on both sides.
    left, right = (_ends(side) for side in sizes)
    if list(left)[-1:] != list(right)[-1:]:
        return None
    groups: list[Group] = []
    ins: list[int] = []
    taken = iter(right.items())
    for elements, axis in left.items():
        ins.append(axis)
        if elements in right:
            outs = []
            for reached, other in taken:
                outs.append(other)
                if reached == elements:
                    break
            groups.append((tuple(ins), tuple(outs)))
            ins = []
    return groups


def _ends(sizes: Sequence[Size]) -> dict[Size, int]:
    """Return the axes larger than one by the number of elements that lie up to and with them."""
    ends, elements = {}, _ONE
    for axis, size in enumerate(sizes):
        if size != _ONE:
            elements = _times(elements, size)
            ends[elements] = axis
    return ends


def _size(dim: Dim) -> Size | None:
    if isinstance(dim, int):
        return dim, ()
    return None if dim.value is None else (1, (dim.value,))


def _solve(left: list[Size | None], right: list[Size | None]) -> tuple[list[Size], list[Size]] | None:
    """Find the one open size on each side, which follows from the others: the elements are the same."""
    if left.count(None) > 1 or right.count(None) > 1 or (0, ()) in left or (0, ()) in right:
        return None
    known_left, known_right = (_product(side) for side in (left, right))
    unknown: Size = (1, ("",)) if None in left and None in right else _ONE  # no dimension has an empty name
    more_left, more_right = _over(known_right, known_left), _over(known_left, known_right)
    fill_left = _times(unknown, more_left) if more_left else unknown
    fill_right = unknown if more_left and None in left else _times(unknown, more_right or _ONE)
    return (
        [fill_left if size is None else size for size in left],
        [fill_right if size is None else size for size in right],
    )


def _product(sizes: Sequence[Size | None]) -> Size:
    product = _ONE
    for size in sizes:
        if size is not None:
            product = _times(product, size)
    return product


def _times(a: Size, b: Size) -> Size:
    return a[0] * b[0], tuple(sorted(a[1] + b[1]))


def _over(a: Size, b: Size) -> Size | None:
    """Return a / b, None if it does not come out even."""
    names = Counter(a[1])
    names.subtract(b[1])
    if a[0] % b[0] or any(count < 0 for count in names.values()):
        return None
    return a[0] // b[0], tuple(sorted(names.elements()))
