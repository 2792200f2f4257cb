"""Pictures of graphs: few boxes for many layers, and a drawing in which nothing lies on anything else."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerve.compiler.passes.queries import LAYER_KEY
from kerve.compiler.report.blocks import Box, Diagram, Frame, diagram
from kerve.compiler.report.placement import Picture, Rectangle, place


def network(layers: Sequence[tuple[str, str, Sequence[int]]], weights: int = 100) -> ir.Graph:
    """A graph of layers (path, operator, indexes of those it reads; -1 is the input)."""
    x = ir.Value(name="x", shape=ir.Shape(["batch", 4]), type=ir.TensorType(ir.DataType.FLOAT))
    values, initializers = [x], list[ir.Value]()
    nodes: list[ir.Node] = []
    for path, operator, reads in layers:
        weight = ir.Value(name=f"w{len(nodes)}", const_value=ir.tensor(np.zeros(weights, np.float32)))
        initializers.append(weight)
        inputs = [*(values[index + 1] for index in reads), weight]
        node = ir.node(operator, inputs, metadata_props={LAYER_KEY: path} if path else {})
        node.outputs[0].name = f"v{len(nodes)}"
        nodes.append(node)
        values.append(node.outputs[0])
    read = {value for node in nodes for value in node.inputs}
    outputs = [value for value in values[1:] if value not in read]
    return ir.Graph([x], outputs, nodes=nodes, initializers=initializers, opset_imports={"": 21})


def chain(paths: Sequence[tuple[str, str]]) -> ir.Graph:
    return network([(path, operator, [index - 1]) for index, (path, operator) in enumerate(paths)])


def boxes(drawing: Diagram) -> Iterator[Box]:
    for element in drawing.elements:
        if isinstance(element, Frame):
            yield from boxes(element.inner)
        else:
            yield element


def names(drawing: Diagram) -> list[str]:
    return [box.part.name for box in boxes(drawing) if box.part.role not in ("entry", "exit")]


def residual(count: int) -> ir.Graph:
    layers: list[tuple[str, str, list[int]]] = [("stem", "Conv", [-1])]
    for block in range(count):
        last = len(layers) - 1
        layers += [(f"block_{block}_a", "Conv", [last]), (f"block_{block}_b", "Conv", [last + 1])]
        layers += [(f"block_{block}_add", "Add", [last, last + 2])]
    return network([*layers, ("head", "MatMul", [len(layers) - 1])])


def test_residual_blocks_are_one_frame() -> None:
    picture = diagram(residual(16))
    assert names(picture) == ["x", "stem", "block_0_a", "block_0_b", "block_0_add", "head", f"v{16 * 3 + 1}"]
    (frame,) = (each for each in picture.elements if isinstance(each, Frame))
    assert (frame.times, frame.title) == (16, "block_0 … block_15")


def test_a_layer_with_layers_in_it_is_opened() -> None:
    picture = diagram(
        chain(
            [
                ("stem", "Conv"),
                *((f"encoder_{i}/{part}", part) for i in range(9) for part in ("Gelu", "Conv")),
            ]
        )
    )
    (frame,) = (each for each in picture.elements if isinstance(each, Frame))
    assert (frame.title, frame.times) == ("encoder_0", 9)
    assert names(frame.inner) == ["Gelu", "Conv"]


def test_short_repetitions_repeat_as_a_whole() -> None:
    operators = ["Conv", "Relu", "Relu", "Relu"] * 300
    picture = diagram(chain([(f"layer_{index}", operator) for index, operator in enumerate(operators)]))
    assert len(names(picture)) == 4
    (frame,) = (each for each in picture.elements if isinstance(each, Frame))
    assert frame.times == 300
    assert [each.times for each in boxes(frame.inner) if each.part.role == "layer"] == [1, 3]


def test_a_mask_that_every_block_reads_does_not_hide_that_they_repeat() -> None:
    layers: list[tuple[str, str, list[int]]] = [("mask", "NotEqual", [-1]), ("words", "Gather", [-1])]
    for block in range(8):
        last = len(layers) - 1
        layers += [(f"attention_{block}", "Attention", [last, 0]), (f"dense_{block}", "MatMul", [last + 1])]
    picture = diagram(network(layers))
    assert [each.times for each in picture.elements if isinstance(each, Frame)] == [8]


def test_branches_from_one_part_are_one_block() -> None:
    layers: list[tuple[str, str, list[int]]] = [("stem", "Conv", [-1])]
    for block in range(5):
        last = len(layers) - 1
        layers += [(f"block_{block}_{branch}", "Conv", [last]) for branch in "abcde"]
        layers += [(f"block_{block}_concat", "Concat", list(range(last + 1, last + 6)))]
    picture = diagram(network(layers))
    assert [each.times for each in picture.elements if isinstance(each, Frame)] == [5]
    assert len(names(picture)) == 9


def test_thousands_of_layers_without_a_pattern_are_summed_up() -> None:
    random = np.random.default_rng(0)
    operators = random.choice(["Conv", "Relu", "Add", "MatMul", "Gelu", "Tanh", "Sigmoid"], 3000)
    reads = [[index - 1, int(random.integers(max(-1, index - 9), index))] for index in range(3000)]
    layers = [
        (f"l{i}", str(operator), dict.fromkeys(read))
        for i, (operator, read) in enumerate(zip(operators, reads, strict=True))
    ]
    picture = diagram(network([(path, operator, list(read)) for path, operator, read in layers]))
    assert len(names(picture)) < 40
    assert sum(len(box.part.nodes) * box.times for box in boxes(picture)) == 3000


def test_a_layer_that_is_called_twice_is_drawn_twice_and_a_circle_once() -> None:
    twice = diagram(network([("shared", "Conv", [-1]), ("between", "Relu", [0]), ("shared", "Conv", [1])]))
    assert names(twice)[1:-1] == ["shared", "between", "shared"]
    circle = diagram(
        network([("a", "Conv", [-1]), ("b", "Conv", [0]), ("a", "Conv", [0, 1]), ("c", "MatMul", [2])])
    )
    assert names(circle)[1:-1] == ["a", "c"]


@pytest.mark.parametrize("layers", [0, 1, 5, 100])
def test_ends_are_all_drawn_however_many(layers: int) -> None:
    given = [
        ir.Value(name=f"x{index}", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.FLOAT))
        for index in range(60)
    ]
    nodes = [
        ir.node(operator, [given[index % 60]], metadata_props={LAYER_KEY: f"l{index}"})
        for index, operator in zip(range(layers), itertools.cycle(["Relu", "Tanh", "Exp"]), strict=False)
    ]
    graph = ir.Graph(given, [node.outputs[0] for node in nodes] or given[:1], nodes=nodes)
    roles = Counter(box.part.role for box in boxes(diagram(graph)))
    assert (roles["input"], roles["output"]) == (60, max(layers, 1))
    assert place(diagram(graph)).boxes


@st.composite
def graphs(draw: st.DrawFn) -> ir.Graph:
    """Layers in groups, of few kinds, which read any of those before them."""
    layers = []
    for index in range(draw(st.integers(1, 40))):
        reads = draw(st.sets(st.integers(max(-1, index - 6), index - 1), min_size=1, max_size=3))
        group = draw(st.sampled_from(["", "a/", "b/", "b/c/"]))
        name = draw(st.sampled_from(["", f"l{index}", f"l{index % 3}"]))
        layers.append(
            (f"{group}{name}".strip("/"), draw(st.sampled_from(["Conv", "Relu", "Add"])), sorted(reads))
        )
    return network(layers, weights=draw(st.sampled_from([1, 100])))


@settings(max_examples=60, deadline=None)
@given(graph=graphs())
def test_any_graph_can_be_drawn(graph: ir.Graph) -> None:
    drawing = diagram(graph)
    picture = place(drawing)
    for one, two in itertools.combinations(picture.boxes, 2):
        assert not overlap(one, two), (one, two)
    for frame in picture.frames:
        for other in (*picture.frames, *picture.boxes):
            assert not overlap(frame, other) or inside(frame, other) or inside(other, frame)
    for points in picture.edges:
        heights = [y for _, y in points]
        assert heights == sorted(heights)
    for rectangle in (*picture.frames, *picture.boxes):
        assert inside(rectangle, Rectangle(drawing.elements[0], 0, 0, picture.width, picture.height))
    assert drawn(picture) == drawn(place(diagram(graph)))


def drawn(picture: Picture) -> object:
    rectangles = [*picture.frames, *picture.boxes]
    return [(each.x, each.y, each.width, each.height) for each in rectangles], picture.edges


def overlap(one: Rectangle, two: Rectangle) -> bool:
    return (
        one.x + one.width > two.x + 0.5
        and two.x + two.width > one.x + 0.5
        and one.y + one.height > two.y + 0.5
        and two.y + two.height > one.y + 0.5
    )


def inside(one: Rectangle, two: Rectangle) -> bool:
    return (
        two.x - 0.5 <= one.x
        and one.x + one.width <= two.x + two.width + 0.5
        and two.y - 0.5 <= one.y
        and one.y + one.height <= two.y + two.height + 0.5
    )
