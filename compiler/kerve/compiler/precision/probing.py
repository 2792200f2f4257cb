"""Access to intermediate values of a graph."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler import serialization
from kerve.compiler.errors import LoadError, VerificationError
from kerve.compiler.progress import steps
from kerve.compiler.verification import Dataset, Runner

__all__ = [
    "ROUNDED",
    "Arrays",
    "Model",
    "Range",
    "batches",
    "expose_values",
    "paired_outputs",
    "ranges",
    "round_up",
]

#: The smallest and the largest element observed in a value.
Range = tuple[float, float]

Arrays = Mapping[str, NDArray[Any]]

#: A model as a function: named inputs to named outputs.
Model = Callable[[Arrays], Arrays]

#: The suffix of a value's name in a quantized graph after quantization and dequantization.
ROUNDED = ":rounded"

#: The most rows and input elements per batch: activations of images take many times the memory of inputs.
_ROWS = 32
_ELEMENTS = 1 << 20

#: The size of outputs after which the other model is run.
_TURN_BYTES = 1 << 28

_LOW, _HIGH = ":low", ":high"


def batches(
    model: ir.Model, dataset: Dataset, rows: int | None = None
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Yield the inputs of a data set, in batches of a few rows if the model has a batch dimension."""
    inputs = {str(value.name): dataset.inputs[str(value.name)] for value in model.graph.inputs}
    if "batch" not in dataset.sizes or not all(map(_takes_rows, model.graph.inputs)):
        yield inputs
        return
    if rows is None:
        elements = sum(array.size for array in inputs.values()) // max(dataset.sizes["batch"], 1)
        rows = min(_ROWS, max(1, _ELEMENTS // max(elements, 1)))
    starts = range(0, dataset.sizes["batch"], rows)
    for start in steps(starts, len(starts), f"batches of {dataset.origin} data"):
        yield {name: array[start : start + rows] for name, array in inputs.items()}


def paired_outputs(
    one: Callable[[], Model], other: Callable[[], Model], waiting: Iterator[Arrays]
) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield the outputs of two models for the same inputs.

    They are never in memory together: they are loaded alternately, repeatedly if there are many outputs.
    """
    for inputs in waiting:
        turn = _turn(one(), itertools.chain([inputs], waiting))
        model = other()
        for given, answers in turn:
            yield answers, model(given)
        del model


def _turn(model: Model, waiting: Iterator[Arrays]) -> list[tuple[Arrays, Arrays]]:
    """Return the next inputs and a model's outputs, up to the size limit."""
    turn: list[tuple[Arrays, Arrays]] = []
    size = 0
    while size < _TURN_BYTES and (inputs := next(waiting, None)) is not None:
        answers = model(inputs)
        turn.append((inputs, answers))
        size += sum(np.asarray(array).nbytes for array in answers.values())
    return turn


def expose_values(path: Path, names: Iterable[str]) -> Runner:
    """Return the model at `path` with the named values as outputs, instead of its own.

    Values are those that the runtime computes after its fusions and other optimizations.
    """
    model = ir.load(path)
    values = _values(model.graph)
    model.graph.outputs[:] = [values[name] for name in names]
    return _runner(model, path)


def ranges(path: Path, names: Sequence[str], data: Iterable[Dataset]) -> dict[str, Range]:
    """Return the range of each named value of the model at `path` over all data.

    Bounds are rounded outwards to three digits, so that they do not depend on the last bits of a machine's
    arithmetic. They are infinite for values with infinities and for values that were always empty. Raises
    `LoadError` for data that the model does not accept, or that contains NaN or infinity.
    """
    if not names:
        return {}
    model = ir.load(path)
    values = _values(model.graph)
    model.graph.outputs.clear()
    for name in names:
        for suffix, operator in ((_LOW, "ReduceMin"), (_HIGH, "ReduceMax")):
            node = ir.node(operator, [values[name]], attributes={"keepdims": 0})
            node.outputs[0].name = name + suffix
            node.outputs[0].type = values[name].type
            model.graph.append(node)
            model.graph.outputs.append(node.outputs[0])
    runner = _runner(model, path)
    low, high = dict.fromkeys(names, math.inf), dict.fromkeys(names, -math.inf)
    for dataset in data:
        _require_finite(dataset)
        for batch in batches(model, dataset):
            try:
                bounds = runner(batch)
            except VerificationError as error:
                raise LoadError(
                    f"the model fails on inputs that ranges are measured on ({error.__cause__}); "
                    "give representative inputs"
                ) from error
            low = {name: min(low[name], float(bounds[name + _LOW])) for name in names}
            high = {name: max(high[name], float(bounds[name + _HIGH])) for name in names}
    return {name: (-round_up(-low[name]), round_up(high[name])) for name in names}


def _require_finite(dataset: Dataset) -> None:
    for name, array in dataset.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise LoadError(
                f"ranges cannot be measured on {dataset.origin} data: array '{name}' contains NaN or "
                "infinity; give finite, representative inputs with --calibration FILE.npz"
            )


def _runner(model: ir.Model, path: Path) -> Runner:
    """Load a variant of the model at `path`, from the same folder, which may contain its external weights."""
    file = path.with_suffix(".variant.onnx")
    try:
        serialization.write(model, file)
        return Runner(file)
    finally:
        file.unlink(missing_ok=True)


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    values = {str(value.name): value for value in graph.inputs}
    return values | {str(output.name): output for node in graph for output in node.outputs}


def _takes_rows(value: ir.Value) -> bool:
    first = value.shape[0] if value.shape else None
    return isinstance(first, ir.SymbolicDim) and first.value == "batch"


def round_up(bound: float) -> float:
    """Round up to three significant digits."""
    if bound == 0.0 or not math.isfinite(bound):
        return bound
    digit = 10.0 ** (math.floor(math.log10(abs(bound))) - 2)
    return float(f"{math.ceil(bound / digit - 1e-3) * digit:.3g}")
