"""The error that a reduced precision adds in each layer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.queries import LAYER_KEY, is_constant
from kerve.compiler.precision.probing import ROUNDED, Arrays, expose_values, paired_outputs

__all__ = ["LayerLoss", "layer_losses"]


@dataclass(frozen=True)
class LayerLoss:
    """The relative error of a layer: root mean square error / root mean square."""

    layer: str
    #: The largest error among its inputs from other layers.
    taken: float
    #: The error of its output.
    given: float

    @property
    def added(self) -> float:
        """The error that the layer itself adds."""
        return self.given - self.taken


def layer_losses(float32: Path, reduced: Path, inputs: Iterable[Arrays]) -> list[LayerLoss]:
    """Run two models on the same inputs and compare their layers' outputs, in the order of the graph."""
    layers = _layers(ir.load(float32).graph)
    wanted = dict.fromkeys(name for layer in layers.values() for name in (*layer.taken, layer.given))
    names = _renamed(ir.load(reduced).graph, wanted)
    if not names:  # no layers, or none that computes in float32
        return []
    sizes, differences = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    turns = paired_outputs(
        lambda: expose_values(float32, names), lambda: expose_values(reduced, names.values()), iter(inputs)
    )
    for before, after in turns:
        for name, new in names.items():
            sizes[name] += _squares(before[name])
            differences[name] += _squares(before[name].astype(np.float64) - after[new])
    errors = {name: _error(sizes[name], differences[name]) for name in names}
    return [
        LayerLoss(
            name, max((errors.get(each, 0.0) for each in layer.taken), default=0.0), errors[layer.given]
        )
        for name, layer in layers.items()
        if layer.given in errors
    ]


@dataclass
class _Layer:
    taken: tuple[str, ...]
    given: str


def _layers(graph: ir.Graph) -> dict[str, _Layer]:
    """Return each Keras layer's inputs from other layers and its last floating-point output, by its path.

    Layers are in the order of their last nodes: the first may be a Transpose far ahead of the others.
    """
    nodes: dict[str, list[ir.Node]] = {}
    for node in graph:
        if path := node.metadata_props.get(LAYER_KEY):
            members = nodes.pop(path, [])
            members.append(node)
            nodes[path] = members
    layers = {}
    for path, members in nodes.items():
        given = [output for node in members for output in node.outputs if _is_real(output)]
        own = {output for node in members for output in node.outputs}
        taken = dict.fromkeys(
            str(value.name)
            for node in members
            for value in node.inputs
            if value is not None and value not in own and _is_real(value) and value.producer() is not None
        )
        if given:
            layers[path] = _Layer(tuple(taken), str(given[-1].name))
    return layers


def _is_real(value: ir.Value) -> bool:
    return bool(value.name) and value.dtype == ir.DataType.FLOAT and not is_constant(value)


def _renamed(graph: ir.Graph, names: Iterable[str]) -> dict[str, str]:
    """Return the names that are also in the reduced graph, with their names after quantization."""
    known = {str(output.name) for node in graph for output in node.outputs}
    pairs = {name: name + ROUNDED if name + ROUNDED in known else name for name in names}
    return {name: new for name, new in pairs.items() if new in known}


def _squares(array: NDArray[Any]) -> float:
    flat = array.reshape(-1).astype(np.float64, copy=False)
    return float(flat @ flat)


def _error(size: float, difference: float) -> float:
    return math.sqrt(difference / size if size > 0.0 else difference)
