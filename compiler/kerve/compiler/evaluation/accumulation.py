"""The state of metrics in a graph: sums are accumulated in double precision and can be merged.

Keras adds the contribution of a batch to a 32-bit variable, in which counts stop at 16 million. A variable
whose new value is its old one plus values that do not depend on any state is a sum: its input becomes FP64
(INT64 for integers), and the contribution of the batch is computed as in Keras. Maxima and minima are
recognized by the same structure. Any other state keeps its type and cannot be merged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from kerve.artifact.v1.manifest_pb2 import StateSpec
from kerve.compiler.traversal import reachable

__all__ = ["StateAccumulator", "accumulate", "widened"]

_OPERATORS = {"Add": StateSpec.SUM, "Max": StateSpec.MAXIMUM, "Min": StateSpec.MINIMUM}
_TRANSPARENT = ("Identity", "Cast")


@dataclass(frozen=True)
class StateAccumulator:
    """How one state variable is accumulated."""

    name: str
    merge: StateSpec.Merge.ValueType
    dtype: ir.DataType


def accumulate(graph: ir.Graph, states: Sequence[tuple[str, str]]) -> list[StateAccumulator]:
    """Widen the sums among the states (names of input and output) of an update graph, in place."""
    inputs = {str(value.name): value for value in graph.inputs}
    outputs = {str(value.name): value for value in graph.outputs}
    given = {id(inputs[name]) for name, _ in states}
    return [_accumulate(graph, inputs[before], outputs[after], given) for before, after in states]


def widened(dtype: ir.DataType) -> ir.DataType:
    """Return the type in which sums of a type are accumulated."""
    return ir.DataType.DOUBLE if dtype.is_floating_point() else ir.DataType.INT64


def _accumulate(
    graph: ir.Graph, before: ir.Value, after: ir.Value, states: Collection[int]
) -> StateAccumulator:
    name, dtype = str(before.name), before.dtype
    assert dtype is not None
    for operator, merge in _OPERATORS.items():
        parts = _parts(after, before, operator)
        if parts is None or any(_depends(part, states) for part in parts):
            continue
        if merge == StateSpec.SUM:
            _widen(graph, before, after, parts)
            dtype = widened(dtype)
        return StateAccumulator(name, merge, dtype)
    return StateAccumulator(name, StateSpec.MERGE_UNSPECIFIED, dtype)


def _parts(value: ir.Value, state: ir.Value, operator: str) -> list[ir.Value] | None:
    """Return the values combined with a state to compute `value`; None if it is computed in another way."""
    parts: list[ir.Value] = []
    while value is not state:
        node = value.producer()
        if node is None:
            return None
        operands = [each for each in node.inputs if each is not None]
        if node.op_type in _TRANSPARENT and value.dtype == operands[0].dtype:
            value = operands[0]
            continue
        leading = [_depends(each, {id(state)}) for each in operands]
        if node.op_type != operator or len(operands) != 2 or leading.count(True) != 1:
            return None
        value, part = operands if leading[0] else operands[::-1]
        parts.append(part)
    return parts[::-1]


def _depends(value: ir.Value, states: Collection[int]) -> bool:
    """Whether a value is computed from any state."""
    return any(id(each) in states for each in reachable([value], _operands))


def _operands(value: ir.Value) -> Iterator[ir.Value]:
    """Yield the values from which a value is computed, including those that its node's bodies capture."""
    node = value.producer()
    if node is None:
        return
    yield from filter(None, node.inputs)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from _taken_from_outside(attribute.as_graph())


def _taken_from_outside(graph: ir.Graph) -> list[ir.Value]:
    return [
        operand
        for node in ir.traversal.RecursiveGraphIterator(graph)
        for operand in node.inputs
        if operand is not None
    ]


def _widen(graph: ir.Graph, before: ir.Value, after: ir.Value, parts: Sequence[ir.Value]) -> None:
    assert before.dtype is not None
    wide, narrow = widened(before.dtype), before.dtype
    total, nodes = before, []
    for part in parts:
        cast = ir.node("Cast", [part], attributes={"to": ir.AttrInt64("to", int(wide))})
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(wide), part.shape
        add = ir.node("Add", [total, cast.outputs[0]])
        add.outputs[0].type, add.outputs[0].shape = ir.TensorType(wide), before.shape
        nodes += [cast, add]
        total = add.outputs[0]
    if not parts:
        nodes = [ir.node("Identity", [before])]
        total = nodes[0].outputs[0]
        total.type, total.shape = ir.TensorType(wide), before.shape
    graph.extend(nodes)
    name = after.name
    graph.outputs[graph.outputs.index(after)] = total
    after.name, total.name = None, name
    others = [use for use in before.uses() if use.node not in nodes]
    before.type = ir.TensorType(wide)
    if others:  # other readers of the state need the original type
        back = ir.node("Cast", [before], attributes={"to": ir.AttrInt64("to", int(narrow))})
        back.outputs[0].type, back.outputs[0].shape = ir.TensorType(narrow), before.shape
        graph.insert_before(graph[0], back)
        for use in others:
            use.node.replace_input_with(use.idx, back.outputs[0])
