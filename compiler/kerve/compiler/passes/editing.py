"""Editing of graphs: constants derived from constants, replacement of nodes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from kerve.compiler.passes.queries import LAYER_KEY, array_of

__all__ = ["Editor"]

Transform = Callable[[NDArray[Any]], NDArray[Any]]


class Editor:
    """An editor of one model; `close` gives derived weights the names of the weights that they replace."""

    def __init__(self, model: ir.Model) -> None:
        self.opset = model.opset_imports.get("", 0)
        self._graph = model.graph
        self._derived: dict[tuple[ir.Value, str], ir.Value] = {}
        self._taken: Counter[str] = Counter()

    def constant(self, array: ArrayLike, name: str) -> ir.Value:
        """Add an array as an initializer, under `name` or, if it is taken, `name_1`, `name_2`, ..."""
        unique = name
        while unique in self._graph.initializers:
            self._taken[name] += 1
            unique = f"{name}_{self._taken[name]}"
        shape = np.shape(array)
        elements = np.ascontiguousarray(array).reshape(shape)
        text = elements.dtype.kind == "O"
        tensor: ir.TensorProtocol = (
            ir.StringTensor(elements, name=unique) if text else ir.tensor(elements, name=unique)
        )
        value = ir.Value(
            name=unique, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        return value

    def derive(self, source: ir.Value, key: str, transform: Transform) -> ir.Value:
        """Add a constant computed from another; the same source and key give the same constant."""
        known = self._derived.get((source, key))
        if known is not None:
            return known
        array = array_of(source)
        assert array is not None
        derived = self._derived[source, key] = self.constant(transform(array), f"{source.name}:{key}")
        return derived

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        at: ir.Node,
        like: ir.Value | None = None,
        dtype: ir.DataType | None = None,
        shape: ir.Shape | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> ir.Value:
        """Insert a node with one output before `at`, as part of the same layer.

        The output has the type and the shape of `like`, or those given.
        """
        if like is not None:
            dtype, shape = like.dtype, like.shape
        output = ir.Value(shape=shape, type=None if dtype is None else ir.TensorType(dtype))
        node = ir.node(op_type, inputs, attributes=attributes, outputs=[output])
        if LAYER_KEY in at.metadata_props:
            node.metadata_props[LAYER_KEY] = at.metadata_props[LAYER_KEY]
        at.prepend(node)
        return output

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Replace `old` by `new` everywhere; if it is an output, `new` takes its name."""
        graph = old.graph
        assert graph is not None
        for index, output in enumerate(graph.outputs):
            if output is old:
                self.set_output(graph, index, new, old.shape)
        old.replace_all_uses_with(new)
        producer = old.producer()
        if producer is not None and not any(output.uses() for output in producer.outputs):
            graph.remove(producer, safe=True)

    def set_output(self, graph: ir.Graph, index: int, value: ir.Value, shape: ir.Shape | None) -> None:
        """Make a value an output of a graph, under the name of the output that it replaces."""
        old = graph.outputs[index]
        if value is old:
            return
        producer = value.producer()
        if producer is None or producer.graph is not graph or value.is_graph_output():
            identity = ir.node("Identity", [value], outputs=[ir.Value(type=value.type, shape=value.shape)])
            graph.append(identity)
            value = identity.outputs[0]
        name = str(old.name)
        old.name = _free_name(graph, name)  # it may still be used inside the graph
        value.name = name
        value.shape = value.shape if shape is None else shape
        graph.outputs[index] = value

    def close(self) -> None:
        """Remove unused source constants; the derived ones inherit their names."""
        initializers = self._graph.initializers
        for (source, _), derived in self._derived.items():
            if source.uses() or source.is_graph_output() or initializers.get(str(source.name)) is not source:
                continue
            del initializers[str(source.name)]
            derived.name = source.name
        self._derived.clear()


def _free_name(graph: ir.Graph, base: str) -> str:
    used = {value.name for node in graph for value in node.outputs}
    return next(name for count in itertools.count(1) if (name := f"{base}:{count}") not in used)
