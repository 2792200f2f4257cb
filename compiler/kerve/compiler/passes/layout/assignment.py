"""Which nodes change their layout: the assignment with the fewest Transposes, as a minimum cut.

The decision for every node that could work in another layout (`proposal.py`) is yes or no. A tensor costs a
Transpose for each order of axes that a reader requires and in which it is not stored. If both layouts of
neighbours match, as they do in nearly all graphs, this cost has the form "pay if one is yes and the other is
no", and the cut is exact. Other terms are replaced by upper bounds that are exact for the current assignment,
so the result is never worse than the current one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from kerve.compiler.passes.layout.cost import conversion, stored, wanted
from kerve.compiler.passes.layout.mincut import Choice
from kerve.compiler.passes.layout.nets import Net
from kerve.compiler.passes.layout.permutation import Perm
from kerve.compiler.passes.layout.placement import Placement

__all__ = ["assign"]

#: A cost above that of any assignment.
_NEVER = 1 << 80

Placements = Mapping[ir.Node, Placement]


def assign(nets: list[Net], placements: Placements) -> dict[ir.Node, Placement]:
    """Return the nodes that should change to their other layout, with their placements."""
    choice = Choice()
    things = {node: choice.thing() for node in placements}
    for node, thing in things.items():
        choice.pay(placements[node].cost, if_yes=thing, and_no=Choice.NO)
    for net in nets:
        _charge(choice, net, placements, things)
    yes = choice.yes()
    return {node: placements[node] for node, thing in things.items() if thing in yes}


@dataclass
class _Demand:
    """The readers that require a tensor in one order of axes."""

    #: Whether readers require it in both of their layouts, or have only one.
    always: bool = False
    #: Nodes that require it if they change.
    if_yes: list[int] = field(default_factory=list)
    #: Nodes that require it unless they change.
    if_no: list[int] = field(default_factory=list)


def _charge(choice: Choice, net: Net, placements: Placements, things: Mapping[ir.Node, int]) -> None:
    producer = net.tensor.producer()
    maker = Choice.NO if producer is None else things.get(producer, Choice.NO)
    have_yes, have_no = stored(net, placements), stored(net, {})
    for want, demand in _demands(net, placements, things).items():
        _charge_copy(choice, maker, conversion(net, have_yes, want), conversion(net, have_no, want), demand)


def _demands(net: Net, placements: Placements, things: Mapping[ir.Node, int]) -> dict[Perm, _Demand]:
    demands: dict[Perm, _Demand] = defaultdict(_Demand)
    for reader in net.readers:
        thing = None if reader.node is None else things.get(reader.node)
        if thing is None:
            demands[wanted(reader, {})].always = True
        else:
            demands[wanted(reader, placements)].if_yes.append(thing)
            demands[wanted(reader, {})].if_no.append(thing)
    return demands


def _charge_copy(choice: Choice, maker: int, cost_yes: int, cost_no: int, demand: _Demand) -> None:
    """Charge for a copy of a tensor in one order: `cost_yes` if its producer is yes, otherwise `cost_no`."""
    if demand.always or (demand.if_yes and demand.if_no):  # it is required, or assumed to be
        choice.pay(cost_yes, if_yes=maker, and_no=Choice.NO)
        choice.pay(cost_no, if_yes=Choice.YES, and_no=maker)
        return
    if not cost_yes and not cost_no:
        return
    common = min(cost_yes, cost_no)
    somebody = choice.thing()  # whether there is any demand (for `if_no`: none)
    if demand.if_yes:
        for reader in demand.if_yes:
            choice.pay(_NEVER, if_yes=reader, and_no=somebody)
        choice.pay(common, if_yes=somebody, and_no=Choice.NO)
        choice.pay(cost_no - common, if_yes=somebody, and_no=maker)
        choice.pay(cost_yes - common, if_yes=maker, and_no=Choice.NO)  # a bound: even without demand
        return
    for reader in demand.if_no:
        choice.pay(_NEVER, if_yes=somebody, and_no=reader)
    choice.pay(common, if_yes=Choice.YES, and_no=somebody)
    choice.pay(cost_yes - common, if_yes=maker, and_no=somebody)
    choice.pay(cost_no - common, if_yes=Choice.YES, and_no=maker)  # a bound: even without demand
