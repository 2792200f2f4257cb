"""Handlers of Keras layers, one file per family."""

from __future__ import annotations

from kerve.compiler.lowering.layers import core
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        core.HANDLERS,
    ]
)
