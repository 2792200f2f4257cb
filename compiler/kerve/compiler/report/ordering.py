"""Connected components, condensation and topological order of numbered nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["condense_cycles", "connected_components", "topological_order"]


def connected_components(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of `count` nodes its component, identified by its smallest node."""
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(index) for index in range(count)]


def condense_cycles(group: Sequence[int], links: Iterable[tuple[int, int]]) -> list[int]:
    """Merge the groups on cycles of links (strongly connected components: Tarjan, 1972)."""
    follow: dict[int, list[int]] = {root: [] for root in group}
    for a, b in links:
        if group[a] != group[b]:
            follow[group[a]].append(group[b])
    found: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    merged: dict[int, int] = {}
    for start in follow:
        work = [] if start in found else [(start, iter(follow[start]))]
        while work:
            at, rest = work[-1]
            if at not in found:
                found[at] = low[at] = len(found)
                stack.append(at)
            for other in rest:
                if other not in found:
                    work.append((other, iter(follow[other])))
                    break
                if other not in merged:
                    low[at] = min(low[at], low[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == found[at]:
                    component = [stack.pop()]
                    while component[-1] != at:
                        component.append(stack.pop())
                    merged |= dict.fromkeys(component, min(component))
    return [merged[root] for root in group]


def topological_order(groups: Iterable[int], edges: Iterable[tuple[int, int]]) -> list[int]:
    """Sort groups topologically, depth first: chains stay together."""
    follow: dict[int, list[int]] = {root: [] for root in groups}
    missing = dict.fromkeys(follow, 0)
    for a, b in sorted(edges):
        follow[a].append(b)
        missing[b] += 1
    ready = [root for root, count in reversed(missing.items()) if count == 0]
    order = []
    while ready:
        order.append(root := ready.pop())
        for other in reversed(follow[root]):
            missing[other] -= 1
            if missing[other] == 0:
                ready.append(other)
    return order
