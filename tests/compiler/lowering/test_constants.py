"""What traced code computes of ranks and axes is known while it is converted."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from kerve.compiler.lowering.constants import constant_value
from kerve.compiler.lowering.induction import provably_equal
from kerve.compiler.lowering.legalization import legalize

_ROLLED = """
<ir_version: 9, opset_import: ["":21]> g (float[1,2,3,4] x) => (float[4,1,2,3] y)
<int64[4] axes = {0,1,2,3}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {9}>
{ shape = Shape(axes) place = Sub(shape, one) last = Slice(axes, place, end) rest = Slice(axes, zero, place)
  order = Concat<axis=0>(last, rest) other = Cast<to=7>(x) y = Transpose(x) }
"""


@pytest.fixture
def graph() -> ir.Graph:
    model: ir.Model = ir.from_proto(parser.parse_model(_ROLLED))
    return model.graph


def _value(graph: ir.Graph, name: str) -> ir.Value:
    return next(output for node in graph for output in node.outputs if output.name == name)


def test_what_depends_on_constants_alone_is_known(graph: ir.Graph) -> None:
    np.testing.assert_array_equal(constant_value(_value(graph, "order")), [3, 0, 1, 2])
    assert constant_value(_value(graph, "other")) is None


def _doubled(value: ir.Value, times: int) -> ir.Value:
    for step in range(times):
        value = ir.Node("", "Add", [value, value], outputs=[ir.Value(name=f"sum_{step}")]).outputs[0]
    return value


def test_operands_that_are_used_twice_at_each_of_many_steps_are_looked_at_once(graph: ir.Graph) -> None:
    one = graph.initializers["one"]
    np.testing.assert_array_equal(constant_value(_doubled(one, 50)), [2**50])
    assert constant_value(_doubled(graph.inputs[0], 5000)) is None


def test_numbers_are_equal_that_are_computed_in_the_same_way(graph: ir.Graph) -> None:
    given, other = graph.inputs[0], _value(graph, "y")
    assert provably_equal(_doubled(given, 50), _doubled(given, 50))
    assert not provably_equal(_doubled(given, 50), _doubled(given, 49))
    assert not provably_equal(_doubled(given, 50), _doubled(other, 50))


def test_an_order_of_axes_that_is_an_input_becomes_an_attribute(graph: ir.Graph) -> None:
    node = ir.Node("", "Transpose", [graph.inputs[0], _value(graph, "order")])
    inputs = list(node.inputs)
    legalize(None, node, inputs, {})  # type: ignore[arg-type]  # nothing is written
    assert list(node.attributes["perm"].as_ints()) == [3, 0, 1, 2]
    assert inputs == list(node.inputs) == [graph.inputs[0]]
