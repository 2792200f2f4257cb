"""Control flow of `keras.ops`, with sizes fixed and open, values captured, and loops in loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import ops

CheckOp = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_X = np.arange(12, dtype=np.float32).reshape(3, 4) / 4 - 1
_FLAG = np.array([True, False, True])


def _model(function: Callable[..., Any], *shapes: Any, dtype: str = "float32") -> keras.Model:
    """A model whose function runs inside a layer, as an author's would."""

    class Author(keras.Layer):
        def call(self, *inputs: Any) -> Any:
            return function(*inputs)

    inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
    return keras.Model(inputs, Author()(*inputs))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: ops.cond(ops.sum(x) > 0, lambda: x + 1, lambda: x * 2), id="captured"),
        pytest.param(
            lambda x: ops.cond(ops.sum(x) > 0, lambda: x, lambda: -x), id="branch returns its capture"
        ),
        pytest.param(
            lambda x: ops.cond(ops.max(x) > 9, lambda: ops.ones((2,)), lambda: ops.zeros((2,))),
            id="constants",
        ),
        pytest.param(lambda x: ops.cond(ops.sum(x) > 0, lambda: (x, x + 1), lambda: (x - 1, x)), id="pairs"),
        pytest.param(
            lambda x: ops.cond(
                ops.sum(x) > 0,
                lambda: ops.cond(ops.max(x) > 100, lambda: x, lambda: x * 3),
                lambda: ops.cond(ops.min(x) < -100, lambda: x, lambda: x * 5),
            ),
            id="nested",
        ),
        pytest.param(
            lambda x: ops.switch(
                ops.cast(ops.max(x), "int32"), [lambda a: a, lambda a: a + 1, lambda a: a * a], x
            ),
            id="switch",
        ),
    ],
)
def test_a_branch_is_taken_when_the_graph_runs(
    equal_to_keras: CheckOp, operators: Count, function: Any
) -> None:
    model = equal_to_keras(_model(function, (4,)), _X, -_X, _X * 0, batched=False)
    assert operators(model)["If"] >= 1


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: ops.while_loop(lambda v: ops.sum(v) < 500, lambda v: v * 1.5 + 1, x), id="data dependent"),
        pytest.param(lambda x: ops.while_loop(lambda i, v: i < 5, lambda i, v: (i + 1, v + x), (0, x))[1], id="counted and captured"),
        pytest.param(lambda x: ops.while_loop(lambda i, v: i < 5, lambda i, v: (i + 1, v + x), (0, x), maximum_iterations=3)[1], id="limited"),
        pytest.param(lambda x: ops.while_loop(lambda v: v < 10, lambda v: v + 3.0, 0.5) + x, id="without a tensor of the model"),
        pytest.param(lambda x: ops.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a + ops.sum(x)), (0, 0.0))[1] + x, id="only captures"),
        pytest.param(lambda x: ops.fori_loop(0, 4, lambda i, v: v * 0.5 + ops.cast(i, "float32"), x), id="range"),
        pytest.param(lambda x: ops.fori_loop(1, ops.shape(x)[0], lambda i, v: v + ops.cast(i, "float32"), x), id="range to an open size"),
        pytest.param(
            lambda x: ops.fori_loop(0, 2, lambda i, v: ops.fori_loop(0, 3, lambda j, w: w + x * ops.cast(i + j, "float32"), v), x),
            id="loop in a loop",
        ),
        pytest.param(lambda x: ops.fori_loop(0, 3, lambda i, v: ops.cond(ops.sum(v) > 0, lambda: v - 1, lambda: v + 1), x), id="branch in a loop"),
    ],
)  # fmt: skip
def test_a_loop_repeats_as_often_as_its_data_say(
    equal_to_keras: CheckOp, operators: Count, function: Any
) -> None:
    model = equal_to_keras(_model(function, (4,)), _X, _X * 2)
    assert operators(model)["Loop"] >= 1


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: ops.scan(lambda c, v: (c + v, c * v), ops.zeros((4,)), x), id="carry and outputs"),
        pytest.param(lambda x: ops.scan(lambda c, v: (c + v, c * v), ops.zeros((4,)), x, reverse=True), id="backwards"),
        pytest.param(lambda x: ops.scan(lambda c, _: (c * 2, c), x, length=3), id="without slices"),
        pytest.param(lambda x: ops.map(lambda v: ops.sum(v) * v, x), id="map"),
        pytest.param(lambda x: ops.map(lambda v: {"a": v[0] * v[1], "b": v[1]}, (x, x + 1)), id="map of structures"),
        pytest.param(lambda x: ops.vectorized_map(lambda v: ops.cumsum(v) * ops.sum(x, 0), x), id="vectorized map"),
    ],
)  # fmt: skip
def test_a_function_runs_along_the_first_axis(
    equal_to_keras: CheckOp, operators: Count, function: Any
) -> None:
    model = equal_to_keras(_model(function, (4,)), _X)
    assert operators(model)["Scan"] == 1


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_associative_scan(check_op: CheckOp, axis: int, reverse: bool) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    check_op(
        lambda x: ops.associative_scan(lambda a, b: a + b, x, axis=axis, reverse=reverse), x, sizes=["batch"]
    )


def test_a_loop_uses_the_weights_of_layers_around_it(equal_to_keras: CheckOp) -> None:
    class Refine(keras.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(4, activation="tanh")

        def call(self, x: Any) -> Any:
            return ops.fori_loop(0, 3, lambda _, v: v + self.dense(v), x)

    inputs = keras.Input((4,))
    equal_to_keras(keras.Model(inputs, Refine()(inputs)), _X)


def test_a_condition_that_is_known_leaves_no_branch(equal_to_keras: CheckOp, operators: Count) -> None:
    model = equal_to_keras(_model(lambda x: ops.cond(True, lambda: x + 1, lambda: x - 1), (4,)), _X)
    assert "If" not in operators(model)
