"""What ONNX Runtime is slow at is written otherwise, computes the same, and else stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from kerve.compiler.passes.avoid_slow_kernels import AvoidSlowKernels


def _unary(e: Any, op_type: str, shape: tuple[int | str, ...], *inputs: Any, **attributes: Any) -> ir.Model:
    model: ir.Model = e.model(getattr(e.op, op_type)(e.input("batch", *shape), *inputs, **attributes))
    return model


@pytest.mark.parametrize(
    ("exponent", "left"),
    [
        pytest.param(0.5, {"Sqrt": 1}, id="root"),
        pytest.param(-0.5, {"Sqrt": 1, "Reciprocal": 1}, id="inverse root"),
        pytest.param(-1.0, {"Reciprocal": 1}, id="inverse"),
        pytest.param(-2.0, {"Mul": 1, "Reciprocal": 1}, id="inverse square"),
        pytest.param(4.0, {"Mul": 2}, id="fourth"),
        pytest.param(1.5, {"Pow": 1}, id="no such power"),
        pytest.param(2.0, {"Pow": 1}, id="square"),
    ],
)
def test_powers_with_an_operator_of_their_own_are_that(
    emitter: Any, optimized: Callable[..., Any], exponent: float, left: dict[str, int]
) -> None:
    model = _unary(emitter, "Pow", (8,), emitter.constant(np.float32(exponent)))
    assert optimized(model, AvoidSlowKernels()) == left


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        pytest.param((8, 32, 32), 1, id="of channels"),
        pytest.param(("channels", 64, 64), 1, id="of an open axis"),
        pytest.param((8, 64, "width"), -3, id="before an open axis"),
        pytest.param((4, 8, 16, 16), 2, id="in the middle"),
    ],
)
def test_a_softmax_before_several_axes_sees_them_as_one(
    emitter: Any, optimized: Callable[..., Any], op_type: str, shape: Any, axis: int
) -> None:
    counts = optimized(_unary(emitter, op_type, shape, axis=axis), AvoidSlowKernels())
    assert counts == {"Reshape": 2, op_type: 1}


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        pytest.param((64, 64), -1, id="last"),
        pytest.param((64, 64), 1, id="last but one"),
        pytest.param((8, "height", "width"), 1, id="several open"),
        pytest.param((2, 4, 4), 1, id="few elements"),
    ],
)
def test_other_softmaxes_stay(emitter: Any, optimized: Callable[..., Any], shape: Any, axis: int) -> None:
    assert optimized(_unary(emitter, "Softmax", shape, axis=axis), AvoidSlowKernels()) == {"Softmax": 1}


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_normalization_of_a_sum_stands_apart_from_it(
    emitter: Any, optimized: Callable[..., Any], axis: int, tmp_path: Path
) -> None:
    e = emitter
    x, shape = (
        e.input("batch", "steps", 8) if axis == -1 else e.input("batch", 4, 8),
        (8,) if axis == -1 else (4, 8),
    )
    total = e.op.Add(x, e.op.Tanh(x))
    model = e.model(
        e.op.LayerNormalization(total, e.weight(*shape), e.weight(*shape), axis=axis, epsilon=1e-3)
    )
    counts = optimized(model, AvoidSlowKernels())
    assert (counts["Unsqueeze"], counts["LayerNormalization"], counts["Squeeze"]) == (1, 1, 1)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    file = ir.serde.serialize_model(model).SerializeToString()
    ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    assert "LayerNormalization" in {node.op_type for node in ir.load(tmp_path / "loaded.onnx").graph}


def test_a_sum_that_others_read_stays_where_it_is(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.input("batch", 4, 8)
    total = e.op.Add(x, e.op.Tanh(x))
    model = e.model(e.op.LayerNormalization(total, e.weight(8)), total)
    assert optimized(model, AvoidSlowKernels()) == {"Add": 1, "Tanh": 1, "LayerNormalization": 1}


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_logarithm_of_a_sum_of_exponentials_is_taken_apart(
    emitter: Any, optimized: Callable[..., Any], keepdims: int
) -> None:
    model = _unary(emitter, "ReduceLogSumExp", (64, 64), emitter.ints(-1), keepdims=keepdims)
    counts = optimized(model, AvoidSlowKernels())
    assert (counts["ReduceLogSumExp"], counts["ReduceMax"], counts["Squeeze"]) == (0, 1, 1 - keepdims)


@pytest.mark.parametrize(
    ("sizes", "mode", "by_copy"),
    [
        pytest.param((16, 24), "round_prefer_ceil", True, id="whole factors"),
        pytest.param((24, 24), "round_prefer_floor", True, id="odd factor"),
        pytest.param((12, 24), "round_prefer_ceil", False, id="a half more"),
        pytest.param((4, 4), "round_prefer_ceil", False, id="smaller"),
        pytest.param((16, 24), "floor", False, id="another rule"),
    ],
)
def test_the_nearest_element_by_a_whole_factor_is_a_copy(
    emitter: Any, optimized: Callable[..., Any], sizes: tuple[int, int], mode: str, by_copy: bool
) -> None:
    e = emitter
    x = e.input(1, 3, 8, 8)
    y = e.op.Resize(x, None, None, e.ints(1, 3, *sizes), mode="nearest", nearest_mode=mode)
    y.shape = ir.Shape([1, 3, *sizes])
    model = e.model(y)
    optimized(model, AvoidSlowKernels())
    written = next(iter(model.graph)).attributes.get_string("coordinate_transformation_mode", "half_pixel")
    assert (written == "asymmetric") == by_copy


@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 2), (1, 2, 4)])
def test_volumes_grow_as_images(
    emitter: Any, optimized: Callable[..., Any], factors: tuple[int, int, int]
) -> None:
    e = emitter
    x, rule = (
        e.input("batch", 3, 4, 2, 5),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    )
    y = e.op.Resize(x, None, e.constant([1.0, 1.0, *map(float, factors)]), mode="nearest", **rule)
    model = e.model(y)
    assert optimized(model, AvoidSlowKernels()) == {"Reshape": 3, "Resize": 2}
    assert all(len(node.outputs[0].shape or ()) == 4 for node in model.graph if node.op_type == "Resize")


@pytest.mark.parametrize(
    ("opset", "size", "attributes", "taken_apart"),
    [
        pytest.param(21, (4, 6, 8), {"strides": [2, 3, 2]}, True, id="side by side"),
        pytest.param(18, (4, 6, 8), {"strides": [2, 3, 2]}, False, id="fast version"),
        pytest.param(21, (4, 6, 8), {}, True, id="overlapping"),
        pytest.param(21, (5, 6, 8), {"strides": [2, 3, 2]}, True, id="a rest"),
        pytest.param(21, (5, 7, 8), {"pads": [1, 2, 0, 0, 1, 1]}, True, id="padding left out"),
        pytest.param(
            21, (5, 7, 8), {"pads": [1, 2, 0, 0, 1, 1], "count_include_pad": 1}, True, id="padding counted"
        ),
        pytest.param(21, (5, 7, 8), {"strides": [2, 2, 2], "ceil_mode": 1}, False, id="rounded up"),
        pytest.param(21, (5, 7, "w"), {}, False, id="open"),
    ],
)
def test_means_of_volumes_are_those_of_images_and_rows(
    emitters: Any,
    optimized: Callable[..., Any],
    opset: int,
    size: tuple[int, ...],
    attributes: dict[str, Any],
    taken_apart: bool,
) -> None:
    model = _unary(emitters(opset), "AveragePool", (3, *size), kernel_shape=[2, 3, 2], **attributes)
    apart = {"Reshape": 3, "AveragePool": 2}
    assert optimized(model, AvoidSlowKernels()) == (apart if taken_apart else {"AveragePool": 1})


def test_sums_of_infinite_exponentials_are_as_before(emitter: Any) -> None:
    model = _unary(emitter, "ReduceLogSumExp", (64, 64), emitter.ints(-1), keepdims=0)
    x = np.zeros((1, 64, 64), np.float32)
    x[0, 0], x[0, 1, 3], x[0, 2, 5], x[0, 3] = -np.inf, np.inf, np.nan, 3e38
    before = _answer(model, x)
    AvoidSlowKernels()(model)
    np.testing.assert_array_equal(_answer(model, x), before)


def test_few_elements_stay_one_operator(emitter: Any, optimized: Callable[..., Any]) -> None:
    rewrite = AvoidSlowKernels()
    model = _unary(emitter, "ReduceLogSumExp", (8, 8), emitter.ints(-1))
    assert optimized(model, rewrite) == {"ReduceLogSumExp": 1}
    assert rewrite.notes == ["ReduceLogSumExp: kept: it has few elements"]


def _answer(model: ir.Model, x: Any) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        ir.serde.serialize_model(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]
