"""Conversion of a float32 graph to a reduced precision: `reduce(model, ...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from kerve.compiler.passes.merge_casts import MergeCasts
from kerve.compiler.passes.queries import dims_of, is_constant, location
from kerve.compiler.passes.share_transposes import ShareTransposes, SplitTransposes
from kerve.compiler.passes.shield_kernels import ShieldKernels
from kerve.compiler.precision.precisions import PRECISIONS
from kerve.compiler.precision.probing import ROUNDED, ranges
from kerve.compiler.verification import Dataset

__all__ = ["Remaining", "reduce", "remaining"]


def reduce(model: ir.Model, path: Path, precision: str, dataset: Dataset) -> ir.Model:
    """Return a copy of a model (the one at `path`) in a reduced precision.

    Ranges of activations are measured on `dataset` if they are needed. Inputs and outputs keep names, types
    and shapes; values that are still computed keep their names, new nodes are named after their layers. The
    same model and data give the same bytes.
    """
    reduced = model.clone()
    SplitTransposes()(reduced)
    before = {node for graph in reduced.graphs() for node in graph}
    names = {str(output.name) for node in before for output in node.outputs}
    PRECISIONS[precision].reduce(reduced, lambda wanted: ranges(path, wanted, [dataset]))
    for tidy in (
        MergeCasts(),
        common.RemoveUnusedNodesPass(),
        ShieldKernels(),
        ShareTransposes(),
        common.TopologicalSortPass(),
    ):
        tidy(reduced)
    _name(reduced, before, names)
    return reduced


@dataclass(frozen=True)
class Remaining:
    """The weights that keep their type."""

    #: Their share of all weights.
    share: float
    #: Their types, and the operators that read them, with the number of each.
    types: Counter[str]
    readers: Counter[str]


def remaining(model: ir.Model, reduced: ir.Model, precision: str) -> Remaining:
    """Return the floating-point weights that did not change, except those that already had the precision."""
    before = {str(value.name): value for value in _weights(model)}
    kept = [
        value
        for value in _weights(reduced)
        if (old := before.get(str(value.name))) is not None and old.dtype == value.dtype
    ]
    stay = [value for value in kept if _type_name(value) != precision]
    readers = {reader for value in stay for reader, _ in value.uses()}
    return Remaining(
        sum(map(_size, stay)) / max(sum(map(_size, before.values())), 1),
        Counter(map(_type_name, stay)),
        Counter(node.op_type for node in readers),
    )


def _size(weight: ir.Value) -> int:
    assert weight.const_value is not None
    return weight.const_value.size


def _type_name(value: ir.Value) -> str:
    return "" if value.dtype is None else str(value.dtype.numpy())


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    for value in model.graph.initializers.values():
        floating = value.dtype is not None and value.dtype.is_floating_point()
        if floating and is_constant(value) and len(dims_of(value)) > 1:
            yield value


def _name(model: ir.Model, known: Collection[ir.Node], kept: Collection[str]) -> None:
    """Name new nodes and their outputs as the passes do."""
    given = (*model.graph.inputs, *model.graph.initializers.values())
    taken = {str(value.name) for value in given} | {
        str(output.name) for graph in model.graphs() for node in graph for output in node.outputs
    }
    taken |= {str(node.name) for node in known}
    count: Counter[str] = Counter()
    for node in model.graph:
        if node in known:
            continue
        base = name = location(node)
        while name in taken:
            count[base] += 1
            name = f"{base}_{count[base]}"
        taken.add(name)
        node.name = name
        for index, output in enumerate(node.outputs):
            if output.name not in kept and not str(output.name).endswith(ROUNDED):
                output.name = name if index == 0 else f"{name}:{index}"
