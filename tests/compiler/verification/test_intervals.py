"""Inputs are drawn where casts to small integers are defined, and nowhere else is anything left out."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf

from kerve.compiler import compile_model
from kerve.compiler.verification.data import seeded
from kerve.compiler.verification.intervals import UNBOUNDED, defined_interval


def cast_to(dtype: ir.DataType, *operators: tuple[str, tuple[object, ...]]) -> ir.Model:
    """Build a graph of operators with constants, `...` for their input, before a cast."""
    x = ir.val("x", ir.DataType.FLOAT, ir.Shape(["batch", 300]))
    nodes: list[ir.Node] = []
    constants: list[ir.Value] = []
    last = x
    for op_type, operands in operators:
        inputs = []
        for operand in operands:
            if operand is not ...:
                array = np.asarray(operand, np.float32)
                constants.append(ir.val(f"c{len(constants)}", const_value=ir.tensor(array)))
                constants[-1].dtype = ir.DataType.FLOAT
            inputs.append(last if operand is ... else constants[-1])
        nodes.append(ir.node(op_type, inputs))
        last = nodes[-1].outputs[0]
        last.dtype = ir.DataType.FLOAT
    nodes.append(ir.node("Cast", [last], {"to": int(dtype)}))
    nodes[-1].outputs[0].dtype = dtype
    graph = ir.Graph([x], [], nodes=nodes, initializers=constants, opset_imports={"": 21}, name="g")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("operators", "interval"),
    [
        ([], (0, 255)),
        ([("Reshape", (..., 1)), ("Round", (...,))], (0, 255)),
        ([("Mul", (..., 127.5)), ("Add", (127.5, ...))], (-1, 1)),
        ([("Sub", (255.0, ...))], (0, 255)),
        ([("Div", (..., -0.5))], (-127.5, 0)),
        ([("Add", (..., [10.0, 20.0]))], (-10, 235)),
        ([("Clip", (..., 0.0, 255.0))], UNBOUNDED),
        ([("Clip", (..., 0.0, 300.0))], (-np.inf, 255)),
        ([("Relu", (...,))], (-np.inf, 255)),
        ([("Sigmoid", (...,)), ("Mul", (..., 255.0))], UNBOUNDED),
        ([("Mul", (..., 0.0))], UNBOUNDED),
    ],
)
def test_the_interval_of_a_cast_is_found_behind_operators(
    operators: list[tuple[str, tuple[object, ...]]], interval: tuple[float, float]
) -> None:
    model = cast_to(ir.DataType.UINT8, *operators)
    assert defined_interval(model.graph.inputs[0]) == interval


def test_numbers_in_the_interval_are_drawn_as_before() -> None:
    bounded, free = (cast_to(dtype) for dtype in (ir.DataType.INT8, ir.DataType.INT32))
    for one, other in zip(seeded(bounded, (7, 12)), seeded(free, (7, 12)), strict=True):
        np.testing.assert_array_equal(one.inputs["x"], other.inputs["x"])


def test_numbers_outside_are_replaced_by_ones_from_the_whole_interval() -> None:
    (first, _) = seeded(cast_to(ir.DataType.UINT8), (7, 12))
    assert first.inputs["x"].min() >= 0
    assert 200 < first.inputs["x"].max() <= 255


class _Image(keras.layers.Layer):
    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.cast(tf.cast(x, tf.uint8), tf.float32) / 255.0,
        lambda x: tf.image.convert_image_dtype(x, tf.uint8),
        # Bilinear interpolation rounds differently in TensorFlow; a cast may make one of that.
        lambda x: tf.cast(tf.image.resize(x, (4, 5), "nearest") * 127.5 + 127.5, tf.uint16),
    ],
)
def test_floats_that_become_pixels_are_verified(
    function: Callable[[tf.Tensor], tf.Tensor], tmp_path: Path
) -> None:
    x = keras.Input((6, 7, 3), name="x")
    artifact = compile_model(keras.Model(x, _Image(function)(x)), repository=tmp_path, name="m")
    assert artifact.path.exists()
