"""For those who want to see the optimization at work: what each pass did, and the graph after it."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from kerve.compiler.options import CompileOptions
from kerve.compiler.passes import Observer, Step
from kerve.compiler.progress import Event, Listener

__all__ = ["observer"]


def observer(options: CompileOptions, listener: Listener) -> Observer:
    """Return what `--explain` and `--dump` ask for; nothing happens when neither does."""
    count = 0

    def observe(step: Step) -> None:
        nonlocal count
        count += 1
        if options.dump is not None:
            _dump(step, options.dump / f"{count:02d}-{step.name}.onnx")
        if options.explain:
            changed = f"{step.nodes_before} -> {step.nodes_after} nodes"
            listener(Event(step.name, "note", step.seconds, changed))
            for note in step.notes:
                listener(Event(step.name, "note", detail=note))

    return observe


def _dump(step: Step, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(step.model, path, external_data=f"{path.name}.data", size_threshold_bytes=1 << 20)
