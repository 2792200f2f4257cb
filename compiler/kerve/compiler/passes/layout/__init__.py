"""The layout pass: Keras's channels last, without the Transposes.

Keras computes with the channels last, ONNX's convolutions and pools with the channels first, so a lowered
network is full of pairs of Transposes. This pass decides for every node in which order of axes it works,
such that the fewest Transposes are left, in four steps that repeat until nothing is gained:

    proposal.py     from the Transposes, the other layout spreads over all nodes that could take part
    rules/          what each operator can do in another layout, and how it is then written
    assignment.py   who does take part: a minimum cut, exact (mincut.py, with the costs of cost.py)
    rewriting.py    nodes, constants and Transposes as decided

The number of Transposes never grows.
"""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.layout.assignment import assign
from kerve.compiler.passes.layout.cost import total
from kerve.compiler.passes.layout.nets import Net, is_transpose, nets_of
from kerve.compiler.passes.layout.placement import Placement
from kerve.compiler.passes.layout.proposal import layout_candidates, propose
from kerve.compiler.passes.layout.remarks import remark
from kerve.compiler.passes.layout.rewriting import rewrite

__all__ = ["Layout"]


class Layout(ExplainedPass):
    """Arrange all graphs of a model so that the fewest Transposes are left.

    The shapes of its values must have been inferred; where a rank is not known, nothing moves.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Arrange the main graph and the bodies of its loops and branches."""
        self.notes.clear()
        editor = Editor(model)
        modified = False
        for graph in list(model.graphs()):
            modified |= _arrange(graph, editor)
        editor.close()
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if is_transpose(node):
                self.note(node, remark(node))
        return ir.passes.PassResult(model, modified)


def _arrange(graph: ir.Graph, editor: Editor) -> bool:
    if not any(map(is_transpose, graph)):
        return False
    rewrite(graph, nets_of(graph), {}, editor)
    nets = nets_of(graph)
    cost = total(nets, {})
    while moved := _best(graph, nets):
        rewrite(graph, nets, moved, editor)
        nets, before = nets_of(graph), cost
        cost = total(nets, {})
        if cost >= before:  # that the pass comes to an end must not rest on every rule being right
            break
    return True


def _best(graph: ir.Graph, nets: list[Net]) -> dict[ir.Node, Placement]:
    """Return the change that gains most; nothing if none gains anything."""
    best: dict[ir.Node, Placement] = {}
    lowest = total(nets, best)
    for candidate in layout_candidates(graph):
        moved = assign(nets, propose(graph, candidate))
        cost = total(nets, moved)
        if cost < lowest:
            best, lowest = moved, cost
    return best
