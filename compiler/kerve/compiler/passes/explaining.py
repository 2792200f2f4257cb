"""Passes that explain why they left a node unchanged."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.queries import location

__all__ = ["ExplainedPass"]


class ExplainedPass(ir.passes.InPlacePass):
    """A pass that records remarks on nodes in its last run."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, node: ir.Node, remark: str) -> None:
        """Record a remark on a node."""
        self.notes.append(f"{location(node)}: {remark}")
