"""Groups of axes before and after a Reshape that hold the same elements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kerve.compiler.passes.queries import Dim

__all__ = ["Group", "group"]

#: Axes before a Reshape, and the axes after it that hold the same elements.
Group = tuple[tuple[int, ...], tuple[int, ...]]

#: A size: a number times named sizes. `(6, ("batch",))` is 6 * batch.
Size = tuple[int, tuple[str, ...]]

_ONE: Size = (1, ())


def group(before: Sequence[Dim], after: Sequence[Dim]) -> list[Group] | None:
    """Return the finest groups of axes that the sizes imply; axes of size one belong to none.

    None if the sizes are not sufficient, or contradict each other.
    """
    sizes = _solve(before, after)
    if sizes is None:
        return None
    # Groups end wherever the cumulative numbers of elements on both sides are equal.
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
    """Return the axes larger than one by the cumulative number of elements up to and including them."""
    ends, elements = {}, _ONE
    for axis, size in enumerate(sizes):
        if size != _ONE:
            elements = _times(elements, size)
            ends[elements] = axis
    return ends


def _solve(before: Sequence[Dim], after: Sequence[Dim]) -> tuple[list[Size], list[Size]] | None:
    """Return a size for each dimension, such that both sides hold the same number of elements.

    A dynamic size that occurs on one side only follows from all others.
    """
    left, right = _sizes(before, "before"), _sizes(after, "after")
    if (0, ()) in left or (0, ()) in right:
        return None
    if (filled := _fill(right, left)) is not None:
        return left, filled
    if (filled := _fill(left, right)) is not None:
        return filled, right
    return left, right


def _fill(side: list[Size], other: list[Size]) -> list[Size] | None:
    """Express the one dynamic size of a side that does not occur on the other by the sizes there."""
    names = {name for size in other for name in size[1]}
    lacking = [index for index, size in enumerate(side) if not names.issuperset(size[1])]
    if len(lacking) != 1:
        return None
    rest = side[: lacking[0]] + side[lacking[0] + 1 :]
    size = _over(_product(other), _product(rest))
    if size is None:
        return None
    return [size if index == lacking[0] else known for index, known in enumerate(side)]


def _sizes(dims: Sequence[Dim], side: str) -> list[Size]:
    """Return sizes; a dimension without a name gets a unique one."""
    sizes: list[Size] = []
    for axis, dim in enumerate(dims):
        if isinstance(dim, int):
            sizes.append((dim, ()))
        else:
            sizes.append((1, (dim.value or f"{side} {axis}",)))
    return sizes


def _product(sizes: Sequence[Size]) -> Size:
    product = _ONE
    for size in sizes:
        product = _times(product, size)
    return product


def _times(a: Size, b: Size) -> Size:
    return a[0] * b[0], tuple(sorted(a[1] + b[1]))


def _over(a: Size, b: Size) -> Size | None:
    """Return a / b, None if it is not exact."""
    names = Counter(a[1])
    names.subtract(b[1])
    if a[0] % b[0] or any(count < 0 for count in names.values()):
        return None
    return a[0] // b[0], tuple(sorted(names.elements()))
