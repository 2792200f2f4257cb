"""Finds the first layer whose output differs between a Keras model and its compiled graph.

First, an artifact's graph is compared with one newly compiled from the source, whose values have the same
names (`first_changed`). If these agree, the compiler is at fault, and the graph is compared with the Keras
model itself (`diagnose`). Passes fuse layers and change layouts, so that a layer's output has no fixed name
in the graph. It is therefore searched for among the values of the layer's own nodes (among all values, if
none of its nodes is left). A layer that is not found still counts as right if the results of its nodes lead
to a value that is found, or if it is part of a layer that is right. Of the others, the first one whose inputs
are found is the first that differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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

__all__ = ["Divergence", "diagnose", "first_changed"]


@dataclass(frozen=True)
class Divergence:
    """The first layer that differs, with details of the difference."""

    path: str
    details: str

    @classmethod
    def of(cls, path: str, kind: str, error: float | None) -> Divergence:
        """Describe a layer by its class or operator, and by its largest error if that is known."""
        return cls(path, kind if error is None else f"{kind}, off by {error:.3g}")

    def __str__(self) -> str:
        return f"the first layer that differs is '{self.path}' ({self.details})"


def first_changed(anew: Path, path: Path, inputs: Mapping[str, NDArray[Any]]) -> Divergence | None:
    """Return the first layer of the graph at `anew` whose values differ in the graph at `path`.

    Returns None if no values differ, except random ones, or if the graphs do not have the same values, as
    with two versions of the compiler.
    """
    found = {value.name: value.array for value in _every_value(ir.load(path), inputs)}
    values, again = (_every_value(ir.load(anew), inputs) for _ in range(2))
    if found.keys() != {value.name for value in values}:
        return None
    for value, drawn in zip(values, again, strict=True):
        check = _compared(found[value.name], value.array)
        if not check.passed and _compared(drawn.array, value.array).passed:
            return Divergence.of(value.layer or value.name, value.kind, check.max_abs_error)
    return None


def diagnose(
    layered: Reference, path: Path, inputs: Mapping[str, NDArray[Any]], *, fused: bool
) -> Divergence | None:
    """Run the source and the graph at `path` on the same inputs; returns None if all layers are found.

    In a graph whose layers are `fused`, a layer without nodes of its own may be part of another, and outputs
    may have their elements in another order. Layers whose outputs differ between two calls draw random
    numbers, and are not compared.
    """
    with _recorded_calls() as calls:
        layered(inputs)
    with _recorded_calls() as again:
        layered(inputs)
    drawn = {
        first.path
        for first, second in zip(calls, again, strict=True)
        if not all(_compared(*pair).passed for pair in zip(second.outputs, first.outputs, strict=True))
    }
    return _first_divergence([call for call in calls if call.path not in drawn], path, inputs, fused)


@dataclass(eq=False)
class _Call:
    """One call of a Keras layer: its path and caller, its floating-point inputs and all its outputs."""

    path: str
    kind: str
    caller: _Call | None
    inputs: list[NDArray[Any]]
    outputs: list[NDArray[Any]]


@contextmanager
def _recorded_calls() -> Iterator[list[_Call]]:
    """Record the calls of Keras layers within the context, in the order in which they return."""
    calls: list[_Call] = []
    stack: list[_Call | None] = []
    original = keras.Layer.__call__

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if not stack:  # the model itself is not recorded as a layer
            this = None
        else:
            caller = stack[-1]
            path = layer.name if caller is None else f"{caller.path}/{layer.name}"
            taken = [array for array in _arrays((args, kwargs)) if array.dtype.kind == "f"]
            this = _Call(path, type(layer).__name__, caller, taken, [])
        stack.append(this)
        try:
            result = original(layer, *args, **kwargs)
        finally:
            stack.pop()
        if this is not None:
            this.outputs = _arrays(result)
            calls.append(this)
        return result

    with mock.patch.object(keras.Layer, "__call__", call):
        yield calls


def _arrays(nested: Any) -> list[NDArray[Any]]:
    tensors = filter(keras.ops.is_tensor, keras.tree.flatten(nested))
    return [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in tensors]


@dataclass(frozen=True)
class _Value:
    """A value that the graph computes, and the layer and operator whose node computes it."""

    name: str
    layer: str
    kind: str
    array: NDArray[Any]

    @cached_property
    def ascending(self) -> NDArray[Any]:
        """Its elements, sorted."""
        return np.sort(self.array, axis=None)

    def is_of(self, path: str) -> bool:
        """Whether the layer at `path`, or one within it, computes the value."""
        return self.layer == path or self.layer.startswith(f"{path}/")


def _first_divergence(
    calls: list[_Call], path: Path, inputs: Mapping[str, NDArray[Any]], fused: bool
) -> Divergence | None:
    model = ir.load(path)
    values = _every_value(model, inputs)
    search = _Search(values, fused)
    found = {call: search.outputs_of(call) for call in calls}
    leading = _leading_to(model, {name for match in found.values() for name in match.names})
    right: set[_Call | None] = set()
    for call in reversed(calls):  # callers before the calls that they make
        own = {value.name for value in values if value.is_of(call.path)}
        explained = own <= leading if own else fused or search.is_one_with_caller(call)
        if found[call].complete or call.caller in right or explained:
            right.add(call)
    wrong = [call for call in calls if call not in right]
    begin = next((call for call in wrong if search.inputs_of(call).complete), next(iter(wrong), None))
    return None if begin is None else Divergence.of(begin.path, begin.kind, found[begin].error)


@dataclass(frozen=True)
class _Match:
    """Values of a graph that equal the arrays, whether each array has one, and the error of the closest."""

    names: set[str]
    complete: bool
    error: float | None


class _Search:
    """Looks for arrays among the values of a graph."""

    def __init__(self, values: list[_Value], fused: bool) -> None:
        self._values = values
        self._fused = fused

    def outputs_of(self, call: _Call) -> _Match:
        """Look for a layer's outputs among its own values, or among all values if it has none."""
        own = [value for value in self._values if value.is_of(call.path)]
        return self._matches(call.outputs, own or self._values)

    def inputs_of(self, call: _Call) -> _Match:
        """Look for a layer's inputs among all values."""
        return self._matches(call.inputs, self._values)

    def is_one_with_caller(self, call: _Call) -> bool:
        """Whether an outer layer was lowered as a whole, as an RNN with its cell."""
        caller = call.caller
        return caller is not None and (
            any(value.layer == caller.path for value in self._values) or self.is_one_with_caller(caller)
        )

    def _matches(self, arrays: list[NDArray[Any]], values: list[_Value]) -> _Match:
        each = [self._match(array, values) for array in arrays]
        errors = [match.error for match in each if match.error is not None]
        return _Match(
            {name for match in each for name in match.names},
            all(match.complete for match in each),
            max(errors, default=None),
        )

    def _match(self, want: NDArray[Any], values: list[_Value]) -> _Match:
        """Compare an array with values of its size; if layers are fused, elements may be in any order."""
        names, errors = set(), []
        if self._fused:
            want = np.sort(want, axis=None)
        for value in values:
            if value.array.dtype != want.dtype or value.array.size != want.size:
                continue
            array = value.ascending if self._fused else value.array
            if array.squeeze().shape != want.squeeze().shape:  # the graph may have axes of size one
                continue
            check = _compared(array.squeeze(), want.squeeze())
            errors.append(check.max_abs_error)
            if check.passed:
                names.add(value.name)
        return _Match(names, bool(names), min(errors, default=None))


def _leading_to(model: ir.Model, names: set[str]) -> set[str]:
    """Return the names of the values from which those in `names` are computed, and these themselves."""
    leading = set(names)
    for node in reversed(model.graph):
        if any(output.name in leading for output in node.outputs):
            leading.update(str(value.name) for value in node.inputs if value is not None)
            leading.update(str(output.name) for output in node.outputs)
    return leading


def _every_value(model: ir.Model, inputs: Mapping[str, NDArray[Any]]) -> list[_Value]:
    """Return the inputs and every value of the graph, in order; all become outputs of `model`."""
    producers = {str(output.name): node for node in model.graph for output in node.outputs if output.name}
    known = set(model.graph.outputs)
    model.graph.outputs.extend(
        output for node in model.graph for output in node.outputs if output.name and output not in known
    )
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "model.onnx"
        ir.save(model, everything)
        answers = Runner(everything, optimized=False)(inputs)
    given = [_Value(name, "", "", array) for name, array in inputs.items()]
    return given + [
        _Value(name, node.metadata_props.get(LAYER_KEY, ""), node.op_type, answers[name])
        for name, node in producers.items()
        if isinstance(answers[name], np.ndarray)
    ]


def _compared(got: NDArray[Any], want: NDArray[Any]) -> Check:
    return compare(got, want, Tolerance.of(want.dtype), data="seeded", sizes={}, output="")
