"""Which nodes could work in another layout, starting from the Transposes that there are."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from kerve.compiler.passes.layout.nets import is_transpose
from kerve.compiler.passes.layout.permutation import Perm, compose, inverse, is_identity, perm_of
from kerve.compiler.passes.layout.placement import Placement, Slot
from kerve.compiler.passes.layout.rules import place

__all__ = ["permutations", "propose"]


def permutations(graph: ir.Graph) -> list[Perm]:
    """Return the permutations worth trying, the most common first: those that occur, and their inverses."""
    occurring: Counter[Perm] = Counter()
    for node in graph:
        if is_transpose(node):
            perm = perm_of(node)
            occurring.update({perm, inverse(perm)})
    return sorted(occurring, key=lambda perm: (-occurring[perm], perm))


def propose(graph: ir.Graph, perm: Perm) -> dict[ir.Node, Placement]:
    """Find what could change if tensors were stored under `perm` where a Transpose now offers them so.

    From there the other layout spreads through every node that has a rule for it; beyond a node that
    changes the number of axes it is another permutation, and Transposes it passes through unseen.
    """
    spread = _Spread(graph)
    for node in graph:
        if is_transpose(node):
            source, result = node.inputs[0], node.outputs[0]
            if source is not None and perm_of(node) == perm:
                spread.to(source, perm)
            if inverse(perm_of(node)) == perm:
                spread.to(result, perm)
    spread.run()
    return spread.placements


class _Spread:
    """The other layout, on its way through a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.placements: dict[ir.Node, Placement] = {}
        self._graph = graph
        self._pending: list[tuple[ir.Value, Perm]] = []
        self._seen: set[ir.Value] = set()

    def to(self, value: ir.Value, perm: Perm) -> None:
        """Say that `value` might be stored under `perm`; the first to say so is heard."""
        if value not in self._seen and not is_identity(perm):
            self._seen.add(value)
            self._pending.append((value, perm))

    def run(self) -> None:
        """Go on until nothing new is reached."""
        while self._pending:
            value, perm = self._pending.pop()
            producer = value.producer()
            if producer is not None:
                self._up(producer, value, perm)
            for node, index in value.uses():
                if is_transpose(node):
                    self.to(node.outputs[0], compose(inverse(perm_of(node)), perm))
                else:
                    self._at(node, Slot("input", index), perm)

    def _up(self, producer: ir.Node, value: ir.Value, perm: Perm) -> None:
        if not is_transpose(producer):
            self._at(producer, Slot("output", producer.outputs.index(value)), perm)
        elif producer.inputs[0] is not None:
            self.to(producer.inputs[0], compose(perm_of(producer), perm))

    def _at(self, node: ir.Node, slot: Slot, perm: Perm) -> None:
        if node in self.placements or node.graph is not self._graph:
            return
        placement = place(node, slot, perm)
        if placement is None:
            return
        self.placements[node] = placement
        for tensors, perms in ((node.inputs, placement.inputs), (node.outputs, placement.outputs)):
            for tensor, other in zip(tensors, perms, strict=True):
                if tensor is not None and other is not None:
                    self.to(tensor, other)
