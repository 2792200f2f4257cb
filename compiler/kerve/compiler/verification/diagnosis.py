"""Find the first Keras layer whose output the compiled graph does not compute.

Layer outputs have no fixed names in the graph, since passes fuse layers and change layouts. Each layer's
output is therefore searched among the values of the layer's nodes (among all values if it has no nodes left),
in any axis order. A layer that is not found is still correct if outputs of others that are found depend on
all of its nodes; the first layer that is neither found nor correct is where the models diverge.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.lowering import LAYER_KEY
from kerve.compiler.verification.compare import Check, Tolerance, compare
from kerve.compiler.verification.runner import Reference, Runner

__all__ = ["Divergence", "diagnose"]

_MOST_AXES = 5  # the axes of an image sequence; for more, axis orders are not tried


@dataclass(frozen=True)
class _LayerOutput:
    """A tensor that one call of a Keras layer returned."""

    path: str
    kind: str
    array: NDArray[Any]


@dataclass(frozen=True)
class Divergence:
    """The first layer whose output is not in the graph, and the error of the nearest value."""

    path: str
    kind: str
    nearest_error: float | None

    def __str__(self) -> str:
        near = "" if self.nearest_error is None else f", nearest value off by {self.nearest_error:.3g}"
        return f"the first layer that differs is '{self.path}' ({self.kind}{near})"


def diagnose(
    layered: Reference, path: Path, inputs: Mapping[str, NDArray[Any]], *, fused: bool
) -> Divergence | None:
    """Run the source and the graph at `path` on the same inputs; returns None if all layers are found.

    In a graph with `fused` layers, a layer without nodes may be part of another. Layers whose outputs change
    between two calls use random numbers and are ignored.
    """
    with _recorded_layers() as layers:
        layered(inputs)
    with _recorded_layers() as again:
        layered(inputs)
    drawn = {
        first.path
        for first, second in zip(layers, again, strict=True)
        if not _compared(second.array, first.array).passed  # not even matrix products are bitwise equal
    }
    return _first_divergence([layer for layer in layers if layer.path not in drawn], path, inputs, fused)


@contextmanager
def _recorded_layers() -> Iterator[list[_LayerOutput]]:
    """Collect the outputs of all Keras layers called within the context, in order."""
    outputs: list[_LayerOutput] = []
    stack: list[str] = []
    original = keras.Layer.__call__

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        stack.append(layer.name)
        try:
            result = original(layer, *args, **kwargs)
            if len(stack) > 1:  # the outermost is the model itself
                path, kind = "/".join(stack[1:]), type(layer).__name__
                tensors = filter(keras.ops.is_tensor, keras.tree.flatten(result))
                arrays = (np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors)
                outputs.extend(_LayerOutput(path, kind, array) for array in arrays)
            return result
        finally:
            stack.pop()

    with mock.patch.object(keras.Layer, "__call__", call):
        yield outputs


@dataclass(frozen=True)
class _Value:
    """A value that the graph computes, and the layer whose node computes it."""

    name: str
    layer: str
    array: NDArray[Any]


def _first_divergence(
    layers: list[_LayerOutput], path: Path, inputs: Mapping[str, NDArray[Any]], fused: bool
) -> Divergence | None:
    model = ir.load(path)
    values = _every_value(model, inputs)
    found = [_found(layer.array, _candidates(layer.path, values)) for layer in layers]
    right = _leading_to(model, {name for names, _ in found for name in names})
    for layer, (names, nearest) in zip(layers, found, strict=True):
        own = {value.name for value in values if _is_of(value, layer.path)}
        if not names and (own - right or (not own and not fused)):
            return Divergence(layer.path, layer.kind, nearest)
    return None


def _leading_to(model: ir.Model, names: set[str]) -> set[str]:
    """Return the names of the values from which those in `names` are computed, and these themselves."""
    leading = set(names)
    for node in reversed(model.graph):
        if any(output.name in leading for output in node.outputs):
            leading.update(str(value.name) for value in node.inputs if value is not None)
            leading.update(str(output.name) for output in node.outputs)
    return leading


def _every_value(model: ir.Model, inputs: Mapping[str, NDArray[Any]]) -> list[_Value]:
    """Return every value that the graph computes; makes all of them outputs of the graph."""
    layer_of = {
        str(output.name): node.metadata_props.get(LAYER_KEY, "")
        for node in model.graph
        for output in node.outputs
        if output.name
    }
    known = set(model.graph.outputs)
    model.graph.outputs.extend(
        output for node in model.graph for output in node.outputs if output.name and output not in known
    )
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "model.onnx"
        ir.save(model, everything)
        answers = Runner(everything, optimized=False)(inputs)
    return [
        _Value(name, layer_of.get(name, ""), array)
        for name, array in {**inputs, **answers}.items()
        if isinstance(array, np.ndarray)
    ]


def _is_of(value: _Value, path: str) -> bool:
    return value.layer == path or value.layer.startswith(f"{path}/")


def _candidates(path: str, values: list[_Value]) -> list[_Value]:
    return [value for value in values if _is_of(value, path)] or values


def _found(want: NDArray[Any], values: list[_Value]) -> tuple[set[str], float | None]:
    """Return the names of the values that are equal, and the error of the nearest one."""
    names, errors = set(), []
    want = want.squeeze()  # the graph may have added or removed axes of size one
    for value in values:
        array = value.array.squeeze()
        if array.dtype != want.dtype or sorted(array.shape) != sorted(want.shape):
            continue
        for candidate in _reordered(array, want.shape):
            check = _compared(candidate, want)
            errors.append(check.max_abs_error)
            if check.passed:
                names.add(value.name)
                break
    return names, min(errors, default=None)


def _compared(got: NDArray[Any], want: NDArray[Any]) -> Check:
    return compare(got, want, Tolerance.of(want.dtype), data="seeded", sizes={}, output="")


def _reordered(value: NDArray[Any], shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    if value.shape == shape or value.ndim > _MOST_AXES:
        yield value.reshape(shape)
        return
    for order in itertools.permutations(range(value.ndim)):
        if tuple(value.shape[axis] for axis in order) == shape:
            yield value.transpose(order)
