"""The layout pass, which removes the Transposes between channels-last and channels-first operators.

Keras computes with channels last, ONNX's convolutions and pools with channels first, so a lowered network is
full of pairs of Transposes. This pass chooses an order of axes for every node, such that the fewest
Transposes are left, in four steps that repeat until nothing is gained:

    proposal.py     propagates the other layout from the Transposes to all nodes that could change
    rules/          how each operator works in another layout, and how it is then rewritten
    assignment.py   chooses the nodes that change: an exact minimum cut (mincut.py, costs in cost.py)
    rewriting.py    rewrites nodes, constants and Transposes as chosen

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
    """Choose layouts in all graphs of a model so that the fewest Transposes are left.

    The shapes of its values must have been inferred; values of unknown rank keep their layout.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the main graph and the bodies of its loops and branches."""
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
        if cost >= before:  # termination must not depend on the correctness of every rule
            break
    return True


def _best(graph: ir.Graph, nets: list[Net]) -> dict[ir.Node, Placement]:
    """Return the change that gains most; empty if none gains anything."""
    best: dict[ir.Node, Placement] = {}
    lowest = total(nets, best)
    for candidate in layout_candidates(graph):
        moved = assign(nets, propose(graph, candidate))
        cost = total(nets, moved)
        if cost < lowest:
            best, lowest = moved, cost
    return best
