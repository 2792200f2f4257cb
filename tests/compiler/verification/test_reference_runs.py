"""What a source is asked beside ordinary inputs, and what is made of a source that does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from kerve.compiler import compile_model
from kerve.compiler.verification import Reference, VerificationResult, seeded, verify

Array = NDArray[Any]


class Graph:
    """A graph from `x` to `y`, both of some numbers a row, node by node."""

    def __init__(self, dtype: ir.DataType, columns: int = 5) -> None:
        self.x = ir.val("x", dtype, ir.Shape(["batch", columns]))
        self._nodes: list[ir.Node] = []
        self._constants: list[ir.Value] = []

    def constant(self, array: Any) -> ir.Value:
        name = f"c{len(self._constants)}"
        self._constants.append(ir.val(name, const_value=ir.tensor(np.asarray(array), name=name)))
        return self._constants[-1]

    def node(self, op_type: str, *inputs: ir.Value, dtype: ir.DataType, **attributes: Any) -> ir.Value:
        output = ir.val(f"n{len(self._nodes)}", dtype, self.x.shape)
        self._nodes.append(ir.node(op_type, inputs, attributes, outputs=[output]))
        return output

    def model(self, y: ir.Value) -> ir.Model:
        y.name = "y"
        graph = ir.Graph(
            [self.x], [y], nodes=self._nodes, initializers=self._constants, opset_imports={"": 21}, name="g"
        )
        return ir.Model(graph, ir_version=10)


def proof(model: ir.Model, folder: Path, function: Any) -> VerificationResult:
    def reference(inputs: Any) -> dict[str, Any]:
        return {"y": function(inputs["x"])}

    ir.save(model, folder / "model.onnx")
    return verify(model, folder / "model.onnx", reference)


def doubled(dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Model:
    graph = Graph(dtype)
    return graph.model(graph.node("Add", graph.x, graph.x, dtype=dtype))


def batches(verified: VerificationResult) -> list[int]:
    return [check.batch_size for check in verified.checks]


def test_what_is_wrong_at_one_row_alone_is_refused(tmp_path: Path) -> None:
    verified = proof(doubled(), tmp_path, lambda x: 2 * x if len(x) > 1 else 3 * x)
    assert [check.batch_size for check in verified.checks if not check.passed] == [1]


def test_a_source_that_fails_at_one_row_is_told_of(tmp_path: Path) -> None:
    def pick(x: Array) -> Array:
        x[1]
        return 2 * x

    verified = proof(doubled(), tmp_path, pick)
    assert verified.passed
    assert batches(verified) == [2, 3]
    (remark,) = verified.remarks
    assert remark.startswith("the source model fails on one row (index 1 is out of bounds")


def test_a_source_that_squeezes_one_row_is_told_of(tmp_path: Path) -> None:
    verified = proof(doubled(), tmp_path, lambda x: 2 * np.squeeze(x))
    assert verified.passed
    assert batches(verified) == [2, 3]
    assert verified.remarks == (
        "the source model returns another shape for one row: output 'y' has shape [5], for 2 rows [2, 5]; "
        "one row was not compared",
    )


def test_a_model_of_a_fixed_batch_is_asked_at_that_alone(tmp_path: Path) -> None:
    model = doubled()
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([4, 5])
    verified = proof(model, tmp_path, lambda x: 2 * x)
    assert [each.dataset.inputs["x"].shape for each in verified.answered] == [(4, 5), (4, 5)]


def test_negative_integers_are_compared(tmp_path: Path) -> None:
    graph = Graph(ir.DataType.INT32)
    model = graph.model(graph.node("Div", graph.x, graph.constant(np.int32(3)), dtype=ir.DataType.INT32))
    assert not proof(model, tmp_path, lambda x: x // np.int32(3)).passed  # ONNX divides towards 0
    assert proof(model, tmp_path, lambda x: np.trunc(x / 3).astype(np.int32)).passed


@pytest.mark.parametrize("dtype", [ir.DataType.INT32, ir.DataType.INT64])
def test_integers_that_a_float_cannot_hold_are_compared(tmp_path: Path, dtype: ir.DataType) -> None:
    graph = Graph(dtype)
    real = graph.node("Cast", graph.x, dtype=ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
    model = graph.model(graph.node("Cast", real, dtype=dtype, to=int(dtype)))
    assert not proof(model, tmp_path, lambda x: x).passed


def test_integers_that_the_source_refuses_are_not_asked_of_it(tmp_path: Path) -> None:
    def accepting(x: Array) -> Array:
        if x.min() < 0 or x.max() > 9:
            raise ValueError("digits alone")
        return 2 * x

    verified = proof(doubled(ir.DataType.INT32), tmp_path, accepting)
    assert verified.passed
    assert batches(verified) == [2, 3, 1]
    assert verified.remarks == ()
    assert all(each.ordinary for each in verified.answered)


@pytest.mark.parametrize("rounded", [np.rint, lambda x: np.floor(x + np.float32(0.5))])
def test_halves_are_compared(tmp_path: Path, rounded: Any) -> None:
    graph = Graph(ir.DataType.FLOAT)
    model = graph.model(graph.node("Round", graph.x, dtype=ir.DataType.FLOAT))
    assert proof(model, tmp_path, rounded).passed == (rounded is np.rint)


def test_where_a_source_overflows_it_is_asked_smaller_things(tmp_path: Path) -> None:
    graph = Graph(ir.DataType.FLOAT)
    model = graph.model(graph.node("Exp", graph.x, dtype=ir.DataType.FLOAT))
    with np.errstate(over="ignore"):
        verified = proof(model, tmp_path, np.exp)
    assert verified.passed
    assert all(np.abs(each.dataset.inputs["x"]).max() < 10 for each in verified.answered)


def test_what_rounding_decides_far_from_0_is_compared_near_it(tmp_path: Path) -> None:
    graph = Graph(ir.DataType.FLOAT, columns=200)
    angle = graph.node("Mul", graph.x, graph.constant(np.float32(80.1)), dtype=ir.DataType.FLOAT)
    model = graph.model(graph.node("Cos", angle, dtype=ir.DataType.FLOAT))

    def precisely(x: Array) -> Array:
        return np.cos(x.astype(np.float64) * np.float64(np.float32(80.1))).astype(np.float32)

    verified = proof(model, tmp_path, precisely)
    assert verified.passed
    (remark,) = verified.remarks
    assert remark.startswith(
        "output 'y': on inputs that are ties, halves and hundreds, rounding alone changes it"
    )


def test_ids_and_counts_stay_what_they_are(tmp_path: Path) -> None:
    asked: list[Array] = []

    def kept(function: Any) -> Any:
        def answer(x: Array) -> Any:
            asked.append(x)
            return function(x)

        return answer

    graph = Graph(ir.DataType.INT64)
    table = np.arange(11, dtype=np.float32)
    looked_up = graph.model(
        graph.node("Gather", graph.constant(table), graph.x, dtype=ir.DataType.FLOAT, axis=0)
    )
    assert proof(looked_up, tmp_path, kept(lambda x: table[x])).passed
    graph = Graph(ir.DataType.INT64)
    most = graph.node(
        "ReduceMax", graph.x, graph.constant(np.array([0, 1])), dtype=ir.DataType.INT64, keepdims=0
    )
    most.shape = ir.Shape([])
    zero, one = (graph.constant(np.int64(each)) for each in (0, 1))
    counted = graph.node("Range", zero, most, one, dtype=ir.DataType.INT64)
    counted.shape = ir.Shape(["x_0"])
    assert proof(graph.model(counted), tmp_path, kept(lambda x: np.arange(x.max()))).passed
    assert asked
    assert all(x.min() >= 0 and x.max() <= 10 for x in asked)


def test_ordinary_values_do_not_depend_on_what_lies_beyond() -> None:
    model = doubled()
    first, second = seeded(model, (7, 12))
    assert not first.draw.beyond
    assert not second.draw.beyond
    assert np.unique(first.inputs["x"]).size == first.inputs["x"].size


def test_the_golden_inputs_are_ordinary(tmp_path: Path) -> None:
    reference: Reference = lambda inputs: {"y": 2 * inputs["x"]}  # noqa: E731
    ir.save(doubled(), tmp_path / "model.onnx")
    verified = verify(doubled(), tmp_path / "model.onnx", reference)
    assert verified.answered[0].ordinary
    assert not verified.answered[1].ordinary


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.INT32])
def test_rows_are_padded_with_what_the_model_compares_them_with(dtype: ir.DataType, tmp_path: Path) -> None:
    graph = Graph(dtype)
    is_padding = graph.node("Equal", graph.x, graph.constant(dtype.numpy().type(-7)), dtype=ir.DataType.BOOL)
    model = graph.model(graph.node("Cast", is_padding, dtype=dtype, to=dtype))
    assert proof(model, tmp_path, lambda x: (x == -7).astype(x.dtype)).passed
    assert not proof(model, tmp_path, np.zeros_like).passed


def test_a_condition_that_is_one_bool_is_asked_for_both(tmp_path: Path) -> None:
    x, twice = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 5])), ir.val("twice", ir.DataType.BOOL)
    twice.shape = ir.Shape([])
    total, y = ir.val("total", ir.DataType.FLOAT, x.shape), ir.val("y", ir.DataType.FLOAT, x.shape)
    nodes = [ir.node("Add", [x, x], outputs=[total]), ir.node("Where", [twice, total, x], outputs=[y])]
    model = ir.Model(ir.Graph([x, twice], [y], nodes=nodes, opset_imports={"": 21}, name="g"), ir_version=10)
    ir.save(model, tmp_path / "model.onnx")
    asked = []

    def reference(inputs: Any) -> dict[str, Any]:
        asked.append(bool(inputs["twice"]))
        return {"y": np.where(inputs["twice"], inputs["x"] * 2, inputs["x"])}

    verify(model, tmp_path / "model.onnx", reference)
    assert set(asked) == {False, True}


@pytest.mark.parametrize("emptied", [0, 1])
def test_rows_of_nothing_but_padding_and_of_one_step_are_compared(tmp_path: Path, emptied: int) -> None:
    """A graph that takes the length of each row for `emptied` more than it is, where it is `emptied`."""
    graph = Graph(ir.DataType.FLOAT)
    is_padding = graph.node("Equal", graph.x, graph.constant(np.float32(-7)), dtype=ir.DataType.BOOL)
    is_step = graph.node("Not", is_padding, dtype=ir.DataType.BOOL)
    steps = graph.node("Cast", is_step, dtype=ir.DataType.FLOAT, to=int(ir.DataType.FLOAT))
    model = graph.model(steps)

    def lengthened(x: Array) -> Any:
        steps = (x != -7).astype(x.dtype)
        steps[steps.sum(1) == emptied] = 1.0
        return steps

    assert proof(model, tmp_path, lambda x: (x != -7).astype(x.dtype)).passed
    assert not proof(model, tmp_path, lengthened).passed


def open_model(nodes: Any) -> ir.Model:
    """Return a graph from images of open size to y, as a function of the input writes it."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", "height", "width"]))
    y, written = nodes(x)
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape(["batch", None, None])
    graph = ir.Graph([x], [y], nodes=written, opset_imports={"": 21}, name="g")
    return ir.Model(graph, ir_version=10)


def copied(x: ir.Value) -> Any:
    node = ir.node("Identity", [x])
    return node.outputs[0], [node]


def test_a_size_that_is_neither_of_two_is_compared(tmp_path: Path) -> None:
    asked = []

    def reference(x: Array) -> Array:
        asked.append(x.shape[1:])
        return x if x.shape[1] in (7, 12) else 2 * x

    assert not proof(open_model(copied), tmp_path, reference).passed
    assert (11, 13) in asked


def test_one_open_dimension_is_not_taken_for_the_other(tmp_path: Path) -> None:
    def turned(x: ir.Value) -> Any:
        node = ir.node("Transpose", [x], {"perm": [0, 2, 1]})
        return node.outputs[0], [node]

    symmetric = lambda x: np.transpose(x, (0, 2, 1)) if x.shape[1] == x.shape[2] else x  # noqa: E731
    assert not proof(open_model(turned), tmp_path, symmetric).passed


def test_a_source_that_takes_squares_alone_is_asked_for_another(tmp_path: Path) -> None:
    asked = []

    def square(x: Array) -> Array:
        asked.append(x.shape[1:])
        if x.shape[1] != x.shape[2]:
            raise ValueError("a square, please")
        return x

    verified = proof(open_model(copied), tmp_path, square)
    assert verified.passed
    assert [each.dataset.inputs["x"].shape[1] for each in verified.answered] == [7, 12, 11, 7]


@pytest.mark.parametrize(
    ("operator", "function"), [("Log", np.log), ("Acos", np.arccos), ("Acosh", np.arccosh), ("Sqrt", np.sqrt)]
)
def test_numbers_are_found_that_a_function_has_values_of(
    tmp_path: Path, operator: str, function: Any
) -> None:
    graph = Graph(ir.DataType.FLOAT)
    model = graph.model(graph.node(operator, graph.x, dtype=ir.DataType.FLOAT))
    with np.errstate(invalid="ignore", divide="ignore"):
        verified = proof(model, tmp_path, function)
    assert verified.passed
    assert verified.remarks == ()
    assert np.isfinite(verified.outputs["y"]).all()
    assert np.isnan(verified.answered[-2].answers["y"]).any()  # and what has none is compared, too
    assert not verified.answered[1].ordinary


def test_corners_without_numbers_are_left_out_and_others_are_not(tmp_path: Path) -> None:
    graph = Graph(ir.DataType.FLOAT, columns=200)
    rounded = graph.node(
        "Round", graph.node("Exp", graph.x, dtype=ir.DataType.FLOAT), dtype=ir.DataType.FLOAT
    )
    with np.errstate(over="ignore"):
        verified = proof(graph.model(rounded), tmp_path, lambda x: np.rint(np.exp(x)))
    assert verified.passed
    assert verified.answered[1].dataset.draw.beyond == "close"


def test_what_has_no_number_here_and_there_is_told_of(tmp_path: Path) -> None:
    graph = Graph(ir.DataType.FLOAT)
    negative = graph.node("Neg", graph.x, dtype=ir.DataType.FLOAT)
    roots = [graph.node("Sqrt", each, dtype=ir.DataType.FLOAT) for each in (graph.x, negative)]
    y = graph.node("Concat", *roots, dtype=ir.DataType.FLOAT, axis=1)
    y.shape = ir.Shape(["batch", 10])
    with np.errstate(invalid="ignore"):
        verified = proof(graph.model(y), tmp_path, lambda x: np.concatenate([np.sqrt(x), np.sqrt(-x)], 1))
    (remark,) = verified.remarks
    assert remark.startswith("output 'y': 50% of the source's values are NaN or infinity")


def test_an_output_without_a_number_is_told_of(tmp_path: Path) -> None:
    graph = Graph(ir.DataType.FLOAT)
    below = graph.node("Neg", graph.node("Exp", graph.x, dtype=ir.DataType.FLOAT), dtype=ir.DataType.FLOAT)
    model = graph.model(graph.node("Sqrt", below, dtype=ir.DataType.FLOAT))
    with np.errstate(invalid="ignore"):
        verified = proof(model, tmp_path, lambda x: np.sqrt(-np.exp(x)))
    (remark,) = verified.remarks
    assert remark.startswith("output 'y': all values of the source are NaN or infinity")
    assert "--data FILE.npz" in remark


class _Detections(keras.layers.Layer):
    def call(self, boxes: Any, scores: Any) -> list[Any]:
        shared = keras.ops.expand_dims(keras.ops.sigmoid(boxes), 2)
        return list(tf.image.combined_non_max_suppression(shared, keras.ops.sigmoid(scores), 5, 8, 0.5, 0.3))


def test_ties_that_the_source_orders_as_it_likes_are_not_asked_of_it(tmp_path: Path) -> None:
    inputs = keras.Input((20, 4)), keras.Input((20, 3))
    artifact = compile_model(keras.Model(inputs, _Detections()(*inputs)), repository=tmp_path, name="m")
    assert artifact.path.exists()
