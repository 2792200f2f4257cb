"""A row of views is one Reshape, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from onnx_ir.passes import common

from kerve.compiler.passes.merge_views import MergeViews

CASES: list[Any] = [
    pytest.param(
        lambda e, x: e.op.Reshape(e.op.Reshape(x, e.ints(-1, 24)), e.ints(-1, 4, 6)), 1, id="two reshapes"
    ),
    pytest.param(
        lambda e, x: e.op.Reshape(e.op.Reshape(x, e.ints(-1, 24)), e.ints(-1, 2, 3, 4)),
        0,
        id="there and back",
    ),
    pytest.param(lambda e, x: e.op.Reshape(x, e.ints(0, 0, 3, 4)), 0, id="to the same shape"),
    pytest.param(
        lambda e, x: e.op.Squeeze(e.op.Unsqueeze(x, e.ints(1)), e.ints(1)), 0, id="unsqueeze, squeeze"
    ),
    pytest.param(
        lambda e, x: e.op.Unsqueeze(e.op.Unsqueeze(x, e.ints(1)), e.ints(1)), 1, id="two axes of one"
    ),
    pytest.param(lambda e, x: e.op.Unsqueeze(x, e.ints(1)), 1, id="one axis of one"),
    pytest.param(lambda e, x: e.op.Flatten(x, axis=1), 1, id="flatten"),
    pytest.param(
        lambda e, x: e.op.Transpose(e.op.Unsqueeze(x, e.ints(1)), perm=[0, 2, 1, 3, 4]),
        1,
        id="a transpose of ones",
    ),
    pytest.param(
        lambda e, x: e.op.Reshape(e.op.Transpose(x, perm=[0, 2, 1, 3]), e.ints(-1, 24)),
        2,
        id="a transpose of more",
    ),
]


@pytest.mark.parametrize(("make", "views"), CASES)
def test_views_in_a_row_become_one_or_none(
    emitter: Any, optimized: Callable[..., Any], make: Any, views: int
) -> None:
    e = emitter
    model = e.model(e.op.Relu(make(e, e.op.Relu(e.input("batch", 2, 3, 4)))))
    counts = optimized(model, MergeViews(transposes=True), common.RemoveUnusedNodesPass())
    assert sum(counts.values()) - counts["Relu"] == views


def test_a_transpose_of_ones_waits_for_the_layout_pass(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    model = e.model(e.op.Transpose(e.input("batch", 1, 3), perm=[0, 2, 1]))
    assert optimized(model, MergeViews())["Transpose"] == 1


def test_a_view_that_others_read_stays_for_them(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    flat = e.op.Reshape(e.input("batch", 2, 3), e.ints(-1, 6))
    model = e.model(e.op.Relu(flat), e.op.Abs(e.op.Reshape(flat, e.ints(-1, 3, 2))))
    assert optimized(model, MergeViews())["Reshape"] == 2


def test_two_open_sizes_stay_with_the_operators_that_can_name_them(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    x = e.op.Unsqueeze(e.input("batch", None, None), e.ints(3))
    model = e.model(e.op.Relu(e.op.Transpose(x, perm=[0, 3, 1, 2])))
    assert optimized(model, MergeViews(transposes=True))["Unsqueeze"] == 1
