"""Which nodes could work in another layout, starting from the existing Transposes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from kerve.compiler.passes.layout.nets import is_transpose
from kerve.compiler.passes.layout.permutation import Perm, compose, inverse, is_identity, perm_of
from kerve.compiler.passes.layout.placement import Placement, Slot
from kerve.compiler.passes.layout.rules import place
from kerve.compiler.passes.queries import is_constant

__all__ = ["LayoutCandidate", "layout_candidates", "propose"]


@dataclass(frozen=True)
class LayoutCandidate:
    """A proposal to store tensors under `perm` wherever a Transpose now provides them so.

    A permutation that is its own inverse leads both to the other layout and back; `side`
    tells the two apart.
    """

    perm: Perm
    side: int | None


def layout_candidates(graph: ir.Graph) -> list[LayoutCandidate]:
    """Return candidates, the most common first: the permutations that occur, and their inverses."""
    occurring: Counter[Perm] = Counter()
    for node in graph:
        if is_transpose(node):
            perm = perm_of(node)
            occurring.update({perm, inverse(perm)})
    return [
        LayoutCandidate(perm, side)
        for perm in sorted(occurring, key=lambda perm: (-occurring[perm], perm))
        for side in ((0, 1) if perm == inverse(perm) else (None,))
    ]


def propose(graph: ir.Graph, candidate: LayoutCandidate) -> dict[ir.Node, Placement]:
    """Return the placements of the nodes that could change for a candidate.

    From the Transposes the other layout spreads through every node that has a rule for it; a node that
    changes the number of axes changes the permutation, and Transposes are skipped over.
    """
    spread = _LayoutPropagation(graph)
    sides = _sides(graph) if candidate.side is not None else {}
    for node in graph:
        source, result = (node.inputs[0], node.outputs[0]) if is_transpose(node) else (None, None)
        if source is None or result is None:
            continue
        if perm_of(node) == candidate.perm and sides.get(source) == candidate.side:
            spread.to(source, candidate.perm)
        if inverse(perm_of(node)) == candidate.perm and sides.get(result) == candidate.side:
            spread.to(result, candidate.perm)
    spread.run()
    return spread.placements


def _sides(graph: ir.Graph) -> dict[ir.Value, int]:
    """Assign the tensors of a node to the same side, those of a Transpose to different sides."""
    sides: dict[ir.Value, int] = {}
    for node in graph:
        tensors = [value for value in node.inputs if value is not None and not is_constant(value)]
        known = [sides[value] for value in tensors if value in sides]
        side = known[0] if known else 0
        for value in tensors:
            sides.setdefault(value, side)
        for output in node.outputs:
            sides[output] = 1 - side if is_transpose(node) else side
    return sides


class _LayoutPropagation:
    """Propagation of the other layout through a graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self.placements: dict[ir.Node, Placement] = {}
        self._graph = graph
        self._pending: list[tuple[ir.Value, Perm]] = []
        self._seen: set[ir.Value] = set()

    def to(self, value: ir.Value, perm: Perm) -> None:
        """Propose that `value` is stored under `perm`; the first proposal counts."""
        if value not in self._seen and not is_identity(perm):
            self._seen.add(value)
            self._pending.append((value, perm))

    def run(self) -> None:
        """Propagate until nothing new is reached."""
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
