"""Minimum cut by Dinic's algorithm, as a cheapest choice of yes or no for several things."""

from __future__ import annotations

from collections import deque

__all__ = ["Choice"]


class Choice:
    """A choice of yes or no for each of several things, of minimum total cost.

    Costs are of the form "pay this if a is yes and b is no", which is a cut of a graph: `yes` are the things
    on the source's side. Among equally cheap choices, the one with the fewest yes is returned.

    Reference: E. A. Dinic, "Algorithm for solution of a problem of maximum flow in networks with power
    estimation", 1970.
    """

    #: Things with a fixed choice.
    YES = 0
    NO = 1

    def __init__(self) -> None:
        self._arcs: list[list[int]] = [[], []]  # for each thing, the indices of its outgoing arcs
        self._heads: list[int] = []
        self._room: list[int] = []

    def thing(self) -> int:
        """Add a thing to decide on; return its number."""
        self._arcs.append([])
        return len(self._arcs) - 1

    def pay(self, cost: int, *, if_yes: int, and_no: int) -> None:
        """Charge `cost` when one thing is yes while the other is no."""
        if cost <= 0 or if_yes == and_no:
            return
        for tail, head, room in ((if_yes, and_no, cost), (and_no, if_yes, 0)):  # an arc and its reverse
            self._arcs[tail].append(len(self._heads))
            self._heads.append(head)
            self._room.append(room)

    def yes(self) -> set[int]:
        """Solve; return the things that are yes."""
        while (levels := self._levels())[self.NO] is not None:
            self._saturate(levels)
        return {thing for thing, level in enumerate(levels) if level is not None}

    def _levels(self) -> list[int | None]:
        levels: list[int | None] = [None] * len(self._arcs)
        levels[self.YES] = 0
        queue = deque([self.YES])
        while queue:
            tail = queue.popleft()
            for arc in self._arcs[tail]:
                head = self._heads[arc]
                if self._room[arc] and levels[head] is None:
                    levels[head] = (levels[tail] or 0) + 1
                    queue.append(head)
        return levels

    def _saturate(self, levels: list[int | None]) -> None:
        """Find a blocking flow by depth-first search towards NO, with backtracking from dead ends."""
        tried = [0] * len(self._arcs)
        path: list[int] = []
        tail = self.YES
        while True:
            if tail == self.NO:
                full = self._fill(path)
                tail = self._heads[path[full] ^ 1]
                del path[full:]
            arcs = self._arcs[tail]
            while tried[tail] < len(arcs) and not self._leads_on(arcs[tried[tail]], tail, levels):
                tried[tail] += 1
            if tried[tail] < len(arcs):
                path.append(arcs[tried[tail]])
                tail = self._heads[path[-1]]
            elif path:
                tail = self._heads[path.pop() ^ 1]
                tried[tail] += 1
            else:
                return

    def _fill(self, path: list[int]) -> int:
        """Send as much flow through a path as possible; return the index of its first saturated arc."""
        flow = min(self._room[arc] for arc in path)
        for arc in path:
            self._room[arc] -= flow
            self._room[arc ^ 1] += flow
        return next(place for place, arc in enumerate(path) if not self._room[arc])

    def _leads_on(self, arc: int, tail: int, levels: list[int | None]) -> bool:
        level = levels[tail]
        return self._room[arc] > 0 and level is not None and levels[self._heads[arc]] == level + 1
