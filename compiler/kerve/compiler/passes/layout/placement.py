"""How a node can work on tensors that are stored in another order of axes."""

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
    """One of the tensors that a node reads or writes."""

    side: Literal["input", "output"]
    index: int

    def value(self, node: ir.Node) -> ir.Value | None:
        """Return the tensor in the given node."""
        return (node.inputs if self.side == "input" else node.outputs)[self.index]


@dataclass(frozen=True)
class Placement:
    """The other layout of a node: a permutation for each tensor that it reads or writes.

    In the other layout the node reads `Transpose(x, perm)` where it read x. None stands for a tensor that
    comes as it did; constants are None too, because the node's rule rearranges them itself.
    """

    inputs: tuple[Perm | None, ...]
    outputs: tuple[Perm | None, ...]
    #: What the node itself loses in the other layout, in the terms of cost.py.
    cost: int = 0


@dataclass(frozen=True)
class Rule:
    """What is known about an operator.

    `place(node, slot, perm)` answers: if the tensor in that slot were stored under `perm`, how would the
    node work? None if it cannot. `move(node, placement, editor)` makes it so: it is called when the node's
    inputs already come in their new layout, and adapts attributes and constants, or replaces the node.
    """

    place: Callable[[ir.Node, Slot, Perm], Placement | None]
    move: Callable[[ir.Node, Placement, Editor], None]


def stay(node: ir.Node, placement: Placement, editor: Editor) -> None:
    """Move a node in which nothing depends on the order of axes."""
