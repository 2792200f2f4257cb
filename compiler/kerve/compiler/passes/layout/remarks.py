"""Remarks on why a Transpose remains."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.layout.nets import is_transpose
from kerve.compiler.passes.layout.permutation import Perm, inverse, perm_of
from kerve.compiler.passes.layout.placement import Slot
from kerve.compiler.passes.layout.rules import place, rule_of
from kerve.compiler.passes.queries import location

__all__ = ["remark"]


def remark(transpose: ir.Node) -> str:
    """Return why a Transpose cannot be moved beyond its neighbours on either side."""
    perm = perm_of(transpose)
    source, result = transpose.inputs[0], transpose.outputs[0]
    producer = None if source is None else source.producer()
    if producer is None or source is None:
        above = "its input is a graph input"
    else:
        above = _obstacle(producer, Slot("output", producer.outputs.index(source)), perm)
    below = [_obstacle(node, Slot("input", index), inverse(perm)) for node, index in result.uses()]
    if result.is_graph_output():
        below.append("its result is a graph output")
    return f"kept: {above}; {', '.join(dict.fromkeys(below))}"


def _obstacle(node: ir.Node, slot: Slot, perm: Perm) -> str:
    name = location(node)
    if is_transpose(node):
        return f"{name} is another Transpose"
    if rule_of(node) is None:
        return f"{name} supports only one layout"
    if place(node, slot, perm) is None:
        return f"{name} cannot use the other layout"
    return f"{name} could use the other layout, but that saves no Transpose"
