"""Reports of the optimization passes (`--explain`) and the graph after each (`--dump`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import onnx_ir as ir

from kerve.compiler.errors import CompileError
from kerve.compiler.options import CompileOptions
from kerve.compiler.passes import Observer, Step
from kerve.compiler.progress import Event, Listener

__all__ = ["explain", "observer"]

#: The most names listed in a message.
_MOST_NAMES = 3

#: Larger weights of a dumped graph are stored in a separate file.
_LARGE_BYTES = 1 << 20


def observer(options: CompileOptions, listener: Listener) -> Observer | None:
    """Return the observer for `--explain` and `--dump`; None if neither is given."""
    if not options.explain and options.dump is None:
        return None
    count = 0

    def observe(step: Step) -> None:
        nonlocal count
        count += 1
        if options.dump is not None:
            _dump(step, options.dump / f"{count:02d}-{step.name}.onnx")
        if options.explain:
            for line in explain(step):
                listener(Event(step.name, "note", step.seconds, line))

    return observe


def explain(step: Step) -> Iterator[str]:
    """Yield which layers' operators a pass changed, and why it left others unchanged."""
    changes = [
        f"{verb} {_listed(places)}"
        for verb, places in (("removed", step.removed), ("added", step.added))
        if places
    ]
    if changes:
        yield f"{step.nodes_before} -> {step.nodes_after} nodes: {'; '.join(changes)}"
    else:
        yield f"{step.nodes_after} nodes" + (
            ", values or attributes changed" if step.modified else ", unchanged"
        )
    reasons: dict[str, Counter[str]] = {}
    for note in step.notes:
        where, _, why = note.partition(": ")
        reasons.setdefault(why, Counter())[where] += 1
    for why, places in reasons.items():
        yield f"{_named(places)}: {why}"


def _listed(places: Counter[str]) -> str:
    """Return `2 Mul, 1 Add (norm_1, norm_2)` for places named `layer/operator`."""
    operators, layers = Counter[str](), Counter[str]()
    for place, count in places.items():
        layer, _, operator = place.rpartition("/")
        operators[operator] += count
        layers[layer] += count
    counts = ", ".join(f"{count} {operator}" for operator, count in operators.most_common())
    layers.pop("", None)
    return f"{counts} ({_named(layers)})" if layers else counts


def _named(places: Counter[str]) -> str:
    names = list(places)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _dump(step: Step, path: Path) -> None:
    """Write a graph; if that fails, removes partial files and raises `CompileError`."""
    data = path.with_name(f"{path.name}.data")
    weights = (value.const_value for value in step.model.graph.initializers.values())
    large = any(weight is not None and weight.nbytes > _LARGE_BYTES for weight in weights)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if large:
            ir.save(step.model, path, external_data=data.name, size_threshold_bytes=_LARGE_BYTES)
        else:
            ir.save(step.model, path)
    except OSError as error:
        for part in (path, data):
            with suppress(OSError):
                part.unlink()
        raise CompileError(
            f"cannot write graphs to {path.parent}, the folder of --dump: {error.strerror or error}; "
            "nothing was published"
        ) from error
