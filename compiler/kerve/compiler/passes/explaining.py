"""Passes that can say why they left a node as it was."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.queries import location

__all__ = ["ExplainedPass"]


class ExplainedPass(ir.passes.InPlacePass):
    """A pass that keeps, from its last run, what it did and why it did no more."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, node: ir.Node, remark: str) -> None:
        """Remark on a node."""
        self.notes.append(f"{location(node)}: {remark}")
