"""Of all assignments of layouts, the one chosen has the lowest cost, found by trying every one."""

from __future__ import annotations

import itertools
from typing import Any

import onnx_ir as ir
import pytest

from kerve.compiler.passes.layout.assignment import assign
from kerve.compiler.passes.layout.cost import total
from kerve.compiler.passes.layout.nets import nets_of
from kerve.compiler.passes.layout.proposal import layout_candidates, propose


def _squeeze_excite(e: Any) -> Any:
    return e.model(e.conv(e.squeeze_excite(e.op.Relu(e.conv(e.input("batch", 6, 6, 2), 4))), 2))


def _residual(e: Any) -> Any:
    x = e.op.Relu(e.conv(e.input("batch", 6, 6, 2), 4))
    y = e.op.Mul(e.op.Sigmoid(e.conv(x, 4)), 2.0)
    return e.model(e.dense(e.global_average(e.op.Add(x, y)), 2))


def _normalized(e: Any) -> Any:
    """Depthwise convolution, layer normalization, dense layers, residual: as in ConvNeXt."""
    x = e.conv(e.input("batch", 6, 6, 2), 4)
    y = e.op.LayerNormalization(e.depthwise(x), e.weight(4), axis=-1)
    return e.model(e.conv(e.op.Add(x, e.dense(e.op.Gelu(e.dense(y, 8)), 4)), 2))


def _sequence(e: Any) -> Any:
    x = e.input("batch", 9, 4)
    y = e.conv(e.op.Relu(e.conv(e.op.LayerNormalization(x, e.weight(4), axis=-1), 8, 1)), 4, 3)
    return e.model(e.op.Add(x, e.batch_normalization(e.op.Tanh(y))))


def _opposed(e: Any) -> Any:
    """Two orders of the same axes meet in one sum."""
    x = e.op.Relu(e.conv(e.input("batch", 4, 4, 4), 4))
    return e.model(e.conv(e.op.Add(x, e.op.Abs(e.op.Transpose(x, perm=[0, 3, 1, 2]))), 2))


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(_squeeze_excite, id="squeeze and excite"),
        pytest.param(_residual, id="residual"),
        pytest.param(_normalized, id="layer normalization"),
        pytest.param(_sequence, id="sequence"),
    ],
)
def test_no_assignment_is_cheaper(emitter: Any, network: Any) -> None:
    graph = network(emitter).graph
    nets = nets_of(graph)
    for candidate in layout_candidates(graph):
        placements = propose(graph, candidate)
        every = [
            {node: placements[node] for node in chosen}
            for size in range(len(placements) + 1)
            for chosen in itertools.combinations(placements, size)
        ]
        assert total(nets, assign(nets, placements)) == min(total(nets, moved) for moved in every)


def test_where_layouts_contradict_the_assignment_is_still_no_worse_than_what_was_there(emitter: Any) -> None:
    graph = _opposed(emitter).graph
    nets = nets_of(graph)
    for candidate in layout_candidates(graph):
        assert total(nets, assign(nets, propose(graph, candidate))) <= total(nets, {})


def test_nothing_is_proposed_where_no_rule_applies(emitter: Any) -> None:
    e = emitter
    graph = e.model(e.op.Transpose(e.input("batch", 4, 4), perm=[0, 2, 1])).graph
    assert [propose(graph, candidate) for candidate in layout_candidates(graph)] == [{}, {}]


def test_constants_cost_nothing_in_any_order(emitter: Any) -> None:
    e = emitter
    graph: ir.Graph = e.model(
        e.op.Add(e.input("batch", 2, 3), e.op.Transpose(e.weight(3, 2), perm=[1, 0]))
    ).graph
    assert total(nets_of(graph), {}) == 0
