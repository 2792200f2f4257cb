"""Which axes hold the same elements before and after a Reshape."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest

from kerve.compiler.passes.layout.rules.grouping import group


def _dims(*dims: int | str | None) -> Any:
    return ir.Shape(dims).dims


CASES: list[Any] = [
    pytest.param(_dims(2, 3, 4), _dims(2, 12), [((0,), (0,)), ((1, 2), (1,))], id="joined"),
    pytest.param(_dims(2, 12), _dims(2, 3, 4), [((0,), (0,)), ((1,), (1, 2))], id="cut"),
    pytest.param(_dims(6, 4), _dims(4, 6), [((0, 1), (0, 1))], id="cut anew"),
    pytest.param(
        _dims(4, 6, 5), _dims(2, 12, 5), [((0, 1), (0, 1)), ((2,), (2,))], id="cut anew, then alike"
    ),
    pytest.param(_dims("n", 1, 3), _dims("n", 3, 1), [((0,), (0,)), ((2,), (1,))], id="axes of one"),
    pytest.param(
        _dims("n", "h", 8), _dims("n", "h", 2, 4), [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))], id="named"
    ),
    pytest.param(_dims("n", 4, 8), _dims(None, 32), [((0,), (0,)), ((1, 2), (1,))], id="one size is open"),
    pytest.param(
        _dims("n", "h", "w", 8),
        _dims("n", None, 8),
        [((0,), (0,)), ((1, 2), (1,)), ((3,), (2,))],
        id="open product",
    ),
    pytest.param(
        _dims(None, 4, 8), _dims(None, 8), [((0, 1), (0,)), ((2,), (1,))], id="the batch takes an axis in"
    ),
    pytest.param(
        _dims("a", 8), _dims("b", 4, 8), [((0,), (0, 1)), ((1,), (2,))], id="the batch gives an axis out"
    ),
    pytest.param(_dims(None, None, 8), _dims(None, None, 2, 4), None, id="two open sizes"),
    pytest.param(_dims("n", 4), _dims("n", 5), None, id="a contradiction"),
    pytest.param(_dims(0, 4), _dims(0, 2, 2), None, id="no elements"),
]


@pytest.mark.parametrize(("before", "after", "groups"), CASES)
def test_axes_are_grouped_by_the_elements_they_hold(before: Any, after: Any, groups: Any) -> None:
    assert group(before, after) == groups
