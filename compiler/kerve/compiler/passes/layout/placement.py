"""Placements of nodes: how they work on tensors that are stored in another order of axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.layout.permutation import Perm

__all__ = ["Placement", "Rule", "Slot", "stay"]


@dataclass(frozen=True)
class Slot:
    """The position of a tensor among the inputs or outputs of a node."""

    side: Literal["input", "output"]
    index: int

    def value(self, node: ir.Node) -> ir.Value | None:
        """Return the tensor at this position of a node."""
        return (node.inputs if self.side == "input" else node.outputs)[self.index]


@dataclass(frozen=True)
class Placement:
    """The other layout of a node: a permutation for each tensor that it reads or writes.

    In the other layout the node reads `Transpose(x, perm)` instead of x. None stands for an unchanged tensor;
    constants are None, too, because the node's rule rearranges them itself.
    """

    inputs: tuple[Perm | None, ...]
    outputs: tuple[Perm | None, ...]
    #: Additional cost of the node itself in the other layout, in the units of cost.py.
    cost: int = 0


@dataclass(frozen=True)
class Rule:
    """The layout rule of an operator.

    `place(node, slot, perm)` returns how the node works if the tensor in that slot is stored under `perm`,
    None if it cannot. `move(node, placement, editor)` applies a placement: it is called when the node's
    inputs are already in their new layout, and adapts attributes and constants, or replaces the node.
    """

    place: Callable[[ir.Node, Slot, Perm], Placement | None]
    move: Callable[[ir.Node, Placement, Editor], None]


def stay(node: ir.Node, placement: Placement, editor: Editor) -> None:
    """Do nothing: nothing in the node depends on the order of axes."""
