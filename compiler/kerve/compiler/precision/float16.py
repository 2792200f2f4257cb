"""Weights and activations in float16 between the products; everything else stays in float32.

A float16 has three digits and a maximum of 65504, so it is used only where that is enough:

- *Products* (matrices, convolutions, recurrence, attention) benefit from it: their weights take half the
  space, and a GPU's tensor cores multiply float16 several times faster. Kernels accumulate in float32.
- Operators *between* two products that neither accumulate nor decide (activations, sums of branches, pooling,
  views) are converted too, to avoid conversions in between.
- Everything else stays in float32: operators before the first product (inputs may be of any size) and after
  the last one (outputs keep their precision), operators that sum many elements, divide, exponentiate, compare
  or count, loops, and operators whose constants or measured values exceed the range of float16.

CPUs compute float16 in float32: ONNX Runtime converts such models back when it loads them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import array_of, is_constant, is_op
from kerve.compiler.precision.probing import Range
from kerve.compiler.traversal import reachable

__all__ = ["narrow"]

_PRODUCTS = ("Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")

#: Operators that may run in float16 between products.
_BETWEEN = frozenset(
    {
        # elementwise, bounded by their inputs or nearly so
        *(
            "Abs",
            "Add",
            "Clip",
            "Elu",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "Max",
            "Min",
            "Mish",
            "Mul",
        ),
        *(
            "Neg",
            "PRelu",
            "Relu",
            "Selu",
            "Sigmoid",
            "Softsign",
            "Sub",
            "Swish",
            "Tanh",
            "ThresholdedRelu",
            "Where",
        ),
        # normalizations, whose kernels compute statistics in float32
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"),
        *("RMSNormalization", "Softmax"),
        # pooling
        *("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"),
        # data movement
        *("Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *(
            "Identity",
            "Pad",
            "Reshape",
            "Resize",
            "ReverseSequence",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
        ),
        *("Tile", "Transpose", "Trilu", "Unsqueeze"),
    }
)

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_normal)

#: Half of the range is kept in reserve for activations of other inputs than the measured ones.
_LARGEST_ACTIVATION = _LARGEST / 2


def narrow(model: ir.Model, measure: Callable[[Sequence[str]], Mapping[str, Range]]) -> None:
    """Convert a model in place; `measure` returns the ranges of values by name."""
    opset = model.opset_imports[""]
    able = [node for node in model.graph if _is_able(node, opset)]
    values = list(dict.fromkeys(value for node in able for value in _activations(node)))
    ranges = measure([str(value.name) for value in values])
    fitting = {
        value
        for value, bounds in zip(values, ranges.values(), strict=True)
        if np.abs(bounds).max() <= _LARGEST_ACTIVATION
    }
    able = [node for node in able if fitting.issuperset(_activations(node))]
    products = {node for node in able if is_op(node, *_PRODUCTS)}
    between = _after(model.graph, products) & _before(model.graph, products)
    chosen = _joined(products, products | between.intersection(able))
    _Conversion(model, chosen).run()


def _is_able(node: ir.Node, opset: int) -> bool:
    """Return whether a node's operator is convertible to float16 and its constants fit."""
    if not is_op(node, *_PRODUCTS, *_BETWEEN) or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    return _Types(node, opset).are_known and all(
        _fits(value) for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT
    )


def _fits(value: ir.Value) -> bool:
    """Return whether float16 can represent a constant: no element overflows, and not all underflow."""
    array = array_of(value)
    if array is None or array.size == 0:
        return True
    largest = max(-array.min(), array.max())
    if not np.isfinite(largest):
        largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)
    return bool(largest <= _LARGEST and (largest >= _SMALLEST or largest == 0.0))


class _Types:
    """The inputs and outputs of a node whose type changes when the node is converted."""

    def __init__(self, node: ir.Node, opset: int) -> None:
        schema = onnx.defs.get_schema(node.op_type, opset)
        convertible = {
            constraint.type_param_str
            for constraint in schema.type_constraints
            if "tensor(float16)" in constraint.allowed_type_strs
        }
        #: Names of the type variables bound to float32 in this node.
        bound = {
            formal.type_str
            for formal, value in _paired(schema.inputs, node.inputs)
            if value is not None and value.dtype == ir.DataType.FLOAT
        }
        self.are_known = bool(bound & convertible) and not (bound - convertible - {"tensor(float)"})
        self.inputs = _positions(schema.inputs, node.inputs, bound & convertible)
        self.outputs = _positions(schema.outputs, node.outputs, bound & convertible)


def _positions(
    formals: Sequence[Any], values: Sequence[ir.Value | None], variables: Container[str]
) -> list[int]:
    return [
        index
        for index, (formal, value) in enumerate(_paired(formals, values))
        if formal.type_str in variables and value is not None and value.dtype == ir.DataType.FLOAT
    ]


def _paired(
    formals: Sequence[Any], values: Sequence[ir.Value | None]
) -> Iterator[tuple[Any, ir.Value | None]]:
    """Pair values with the schema's parameters, the last of which may be variadic."""
    for index, value in enumerate(values):
        yield formals[min(index, len(formals) - 1)], value


def _activations(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the float32 inputs and outputs of a node, without constants."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name and value.dtype == ir.DataType.FLOAT and not is_constant(value):
            yield value


def _after(graph: ir.Graph, products: set[ir.Node]) -> set[ir.Node]:
    """Return the products and the nodes that depend on one, or on constants only."""
    found = set(products)
    for node in graph:
        given = [value for value in node.inputs if value is not None and value.dtype == ir.DataType.FLOAT]
        if given and (all(map(is_constant, given)) or any(value.producer() in found for value in given)):
            found.add(node)
    return found


def _before(graph: ir.Graph, products: set[ir.Node]) -> set[ir.Node]:
    """Return the products and the nodes that one depends on."""
    found = set(products)
    for node in reversed(graph):
        if any(reader in found for output in node.outputs for reader, _ in output.uses()):
            found.add(node)
    return found


def _joined(products: set[ir.Node], chosen: set[ir.Node]) -> set[ir.Node]:
    """Return the chosen nodes connected with a product; converting others is not worth the Casts."""

    def chosen_neighbours(node: ir.Node) -> set[ir.Node]:
        producers = {value.producer() for value in node.inputs if value is not None}
        readers = {reader for output in node.outputs for reader, _ in output.uses()}
        return chosen & (producers | readers)

    return set(reachable(products, chosen_neighbours))


class _Conversion:
    """Converts the chosen nodes to float16, with one Cast for each value that is needed in both types."""

    def __init__(self, model: ir.Model, chosen: set[ir.Node]) -> None:
        self._graph = model.graph
        self._chosen = chosen
        self._types = {node: _Types(node, model.opset_imports[""]) for node in chosen}
        self._editor = Editor(model)
        self._narrowed: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        """Convert inputs first: only then is it known which values are still needed in float32."""
        nodes = [node for node in self._graph if node in self._chosen]
        given = {node.outputs[index] for node in nodes for index in self._types[node].outputs}
        for node in nodes:
            for index in self._types[node].inputs:
                value = node.inputs[index]
                assert value is not None
                if value not in given:
                    node.replace_input_with(index, self._narrow(value, node))
        for node in nodes:
            for index in self._types[node].outputs:
                self._give(node.outputs[index], node)
        self._editor.close()

    def _narrow(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        if is_constant(value):
            return self._editor.derive(value, "float16", lambda array: array.astype(np.float16))
        if value not in self._narrowed:
            at = value.producer()
            self._narrowed[value] = self._cast(value, ir.DataType.FLOAT16, reader if at is None else at)
        return self._narrowed[value]

    def _give(self, value: ir.Value, node: ir.Node) -> None:
        """Make a node's output float16, with a Cast back to float32 for the readers that need it."""
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        readers = [
            (reader, index)
            for reader, index in value.uses()
            if reader not in self._chosen or index not in self._types[reader].inputs
        ]
        if not readers and not value.is_graph_output():
            return
        wide = self._cast(value, ir.DataType.FLOAT, node)
        for reader, index in readers:
            reader.replace_input_with(index, wide)
        if value.is_graph_output():
            self._editor.set_output(self._graph, list(self._graph.outputs).index(value), wide, value.shape)

    def _cast(self, value: ir.Value, dtype: ir.DataType, at: ir.Node) -> ir.Value:
        return self._editor.node(
            "Cast", (value,), at=at, attributes={"to": int(dtype)}, dtype=dtype, shape=value.shape
        )
