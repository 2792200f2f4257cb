"""Which Keras layer is the first whose output the compiled graph does not compute.

The graph's values carry no layer's output under a fixed name: passes fuse layers, and change layouts. So
each layer's output is looked for among the values of the layer's own nodes (all values, where no node is
left of the layer), in any order of its axes. Layers up to the last one that is found are right; the next one
is where the models part.
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
from kerve.compiler.verification.compare import Tolerance, compare
from kerve.compiler.verification.runner import Reference, Runner

__all__ = ["Divergence", "diagnose"]

_MOST_AXES = 5  # orders of more axes than an image sequence has are not tried


@dataclass(frozen=True)
class _LayerOutput:
    """What one call of a Keras layer returned (its first tensor)."""

    path: str
    kind: str
    array: NDArray[Any]


@dataclass(frozen=True)
class Divergence:
    """The first layer whose output is nowhere in the graph, and how near the nearest value comes."""

    path: str
    kind: str
    nearest_error: float | None

    def __str__(self) -> str:
        near = "" if self.nearest_error is None else f", nearest value off by {self.nearest_error:.3g}"
        return f"the first layer that differs is '{self.path}' ({self.kind}{near})"


def diagnose(layered: Reference, path: Path, inputs: Mapping[str, NDArray[Any]]) -> Divergence | None:
    """Run the source and the graph at `path` on the same inputs; None when all layers are found there.

    Layers that return something else when they are called again draw random numbers, and prove nothing.
    """
    with _recorded_layers() as layers:
        layered(inputs)
    with _recorded_layers() as again:
        layered(inputs)
    drawn = {
        first.path
        for first, second in zip(layers, again, strict=True)
        if not np.array_equal(first.array, second.array, equal_nan=first.array.dtype.kind == "f")
    }
    return _first_divergence([layer for layer in layers if layer.path not in drawn], path, inputs)


@contextmanager
def _recorded_layers() -> Iterator[list[_LayerOutput]]:
    """Collect the output of every Keras layer that is called while the context lasts, in order."""
    outputs: list[_LayerOutput] = []
    stack: list[str] = []
    original = keras.Layer.__call__

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        stack.append(layer.name)
        try:
            result = original(layer, *args, **kwargs)
            tensors = [leaf for leaf in keras.tree.flatten(result) if keras.ops.is_tensor(leaf)]
            if tensors and len(stack) > 1:  # the model itself is no layer of its own
                array = np.asarray(keras.ops.convert_to_numpy(tensors[0]))
                outputs.append(_LayerOutput("/".join(stack[1:]), type(layer).__name__, array))
            return result
        finally:
            stack.pop()

    with mock.patch.object(keras.Layer, "__call__", call):
        yield outputs


def _first_divergence(
    layers: list[_LayerOutput], path: Path, inputs: Mapping[str, NDArray[Any]]
) -> Divergence | None:
    values = _every_value(path, inputs)
    found = [_nearest(layer.array, _candidates(layer.path, values)) for layer in layers]
    right = [index for index, (equal, _) in enumerate(found) if equal]
    first = right[-1] + 1 if right else 0
    if first == len(layers):
        return None
    return Divergence(layers[first].path, layers[first].kind, found[first][1])


def _every_value(path: Path, inputs: Mapping[str, NDArray[Any]]) -> list[tuple[str, NDArray[Any]]]:
    """Return every value that the graph computes, with the path of the layer whose node computes it."""
    model = ir.load(path)
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
        (layer_of.get(name, ""), value) for name, value in answers.items() if isinstance(value, np.ndarray)
    ]


def _candidates(path: str, values: list[tuple[str, NDArray[Any]]]) -> list[NDArray[Any]]:
    own = [value for layer, value in values if layer == path or layer.startswith(f"{path}/")]
    return own or [value for _, value in values]


def _nearest(want: NDArray[Any], values: list[NDArray[Any]]) -> tuple[bool, float | None]:
    """Whether some value is equal, and the error of the nearest one."""
    errors = []
    for value in values:
        if value.dtype != want.dtype or sorted(value.shape) != sorted(want.shape):
            continue
        for candidate in _reordered(value, want.shape):
            check = compare(candidate, want, Tolerance.of(want.dtype), data="seeded", sizes={}, output="")
            if check.passed:
                return True, check.max_abs_error
            errors.append(check.max_abs_error)
    return False, min(errors, default=None)


def _reordered(value: NDArray[Any], shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
    if value.shape == shape or value.ndim > _MOST_AXES:
        yield value.reshape(shape)
        return
    for order in itertools.permutations(range(value.ndim)):
        if tuple(value.shape[axis] for axis in order) == shape:
            yield value.transpose(order)
