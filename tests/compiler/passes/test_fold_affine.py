"""Scales and shifts of channels go into the weights before them, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from kerve.compiler.passes import fold_affine
from kerve.compiler.passes.fold_affine import FoldAffine
from kerve.compiler.passes.layout import Layout

Make = Callable[[Any], Any]


def _image(e: Any) -> Any:
    return e.input("batch", 6, 6, 3)


def _transposed_convolution(e: Any, group: int) -> Any:
    x = e.op.ConvTranspose(e.input("batch", 4, 5, 5), e.weight(4, 3, 2, 2), group=group)
    return e.model(
        e.op.BatchNormalization(x, *(e.constant(np.linspace(0.5, 1.5, 3 * group)) for _ in range(4)))
    )


def _gemm(e: Any, **attributes: Any) -> Any:
    shape = (3, 5) if attributes.get("transB") else (5, 3)
    x = e.op.Gemm(e.input("batch", 5), e.weight(*shape), e.weight(3), **attributes)
    return e.model(e.batch_normalization(x))


FIRES: list[Any] = [
    pytest.param(lambda e: e.model(e.batch_normalization(e.conv(_image(e), 4))), "Conv", id="conv"),
    pytest.param(
        lambda e: e.model(e.batch_normalization(e.conv(_image(e), 4, bias=False))),
        "Conv",
        id="conv without bias",
    ),
    pytest.param(lambda e: e.model(e.batch_normalization(e.depthwise(_image(e)))), "Conv", id="depthwise"),
    pytest.param(
        lambda e: e.model(e.batch_normalization(e.conv(e.input("b", 6, 3), 4))),
        "Conv",
        id="conv of a sequence",
    ),
    pytest.param(lambda e: _transposed_convolution(e, 1), "ConvTranspose", id="transposed conv"),
    pytest.param(lambda e: _transposed_convolution(e, 2), "ConvTranspose", id="transposed conv in groups"),
    pytest.param(lambda e: _gemm(e), "Gemm", id="gemm"),
    pytest.param(lambda e: _gemm(e, transB=1, alpha=0.5, beta=2.0), "Gemm", id="gemm with attributes"),
    pytest.param(lambda e: e.model(e.op.Add(e.op.Mul(e.conv(_image(e), 4), 0.5), 1.0)), "Conv", id="scalars"),
    pytest.param(
        lambda e: e.model(e.op.Sub(e.weight(4), e.conv(_image(e), 4))), "Conv", id="from a constant"
    ),
    pytest.param(
        lambda e: e.model(e.op.Div(e.conv(_image(e), 2), e.constant([1.0, 8.0]))), "Conv", id="quotients"
    ),
    pytest.param(
        lambda e: e.model(e.op.Mul(e.op.MatMul(e.input("b", 3, 4), e.weight(4, 2)), e.weight(2))),
        "MatMul",
        id="matmul",
    ),
]


@pytest.mark.parametrize(("make", "op_type"), FIRES)
def test_a_scale_disappears_into_the_weights(
    emitter: Any, optimized: Callable[..., Any], make: Make, op_type: str
) -> None:
    counts = optimized(make(emitter), FoldAffine(), Layout())
    assert set(counts) <= {op_type, "Transpose"}


def test_a_product_and_its_bias_take_a_normalization_and_keep_one_add(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    counts = optimized(
        e.model(e.batch_normalization(e.dense(e.input("batch", 7, 4), 3))), FoldAffine(), Layout()
    )
    assert counts == {"MatMul": 1, "Add": 1}


def test_an_input_is_scaled_and_shifted_once(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.op.Add(e.op.Mul(e.input("batch", 4, 4, 3), 1 / 127.5), -1.0)
    x = e.op.Div(e.op.Sub(x, e.constant([0.4, 0.5, 0.6])), e.constant([[[[0.1, 0.2, 0.3]]]]))
    assert optimized(e.model(x), FoldAffine()) == {"Mul": 1, "Add": 1}


def test_a_scale_of_one_and_a_shift_of_zero_are_nothing(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    assert not optimized(e.model(e.op.Relu(e.op.Add(e.op.Mul(e.input("batch", 4), 1.0), 0.0))), FoldAffine())[
        "Add"
    ]


STAYS: list[Any] = [
    pytest.param(lambda e, x: e.op.Mul(e.op.Relu(x), 0.5), "Mul", id="behind an activation"),
    pytest.param(lambda e, x: e.op.Mul(x, e.weight(6, 1)), "Mul", id="along another axis"),
    pytest.param(lambda e, x: e.op.Mul(x, e.weight(6, 4)), "Mul", id="along two axes"),
    pytest.param(lambda e, x: e.op.Div(e.constant(2.0), x), "Div", id="a constant over channels"),
    pytest.param(
        lambda e, x: e.op.Concat(e.op.Mul(x, 0.5), x, axis=3), "Mul", id="the channels are read twice"
    ),
    pytest.param(lambda e, x: e.op.Mul(x, e.op.Sigmoid(x)), "Mul", id="two variables"),
    pytest.param(lambda e, x: e.op.Mul(x, e.weight(2, 1, 1, 1, 1)), "Mul", id="a constant that widens"),
]


@pytest.mark.parametrize(("make", "op_type"), STAYS)
def test_what_is_no_scale_of_these_channels_stays(
    emitter: Any, optimized: Callable[..., Any], make: Callable[[Any, Any], Any], op_type: str
) -> None:
    e = emitter
    model = e.model(make(e, e.conv(e.input("batch", 6, 6, 3), 4)))
    assert optimized(model, FoldAffine())[op_type] == 1


def test_an_average_that_would_cancel_digits_is_subtracted_first(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    """(year - 2000) / 0.01 is exact; year * 100 - 200000 is not."""
    e = emitter
    x = e.op.Div(e.op.Sub(e.input("batch", 1), 2000.0), 0.01)
    assert optimized(e.model(e.op.Relu(e.op.Add(x, 1.0))), FoldAffine())["Sub"] == 1


def test_integers_are_left_alone(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.op.Mul(
        e.op.Mul(e.input("batch", 2, dtype=ir.DataType.INT64), e.constant(np.array(3))),
        e.constant(np.array(5)),
    )
    assert optimized(e.model(x), FoldAffine())["Mul"] == 2


def test_shared_weights_are_copied_only_while_they_are_small(
    emitters: Any, optimized: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shared() -> Any:
        e = emitters()
        kernel = e.weight(4, 3, 1, 1)
        images = [e.input("batch", 5, 5, 3, name=name) for name in ("a", "b")]
        return e.model(*(e.batch_normalization(e.spatial("Conv", image, kernel)) for image in images))

    assert "BatchNormalization" not in optimized(shared(), FoldAffine())
    monkeypatch.setattr(fold_affine, "_COPY_BYTES", 1)
    fold = FoldAffine()
    assert optimized(shared(), fold)["BatchNormalization"] == 2
    assert any("shared and large" in note for note in fold.notes)


def test_weights_keep_their_names(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    model = e.model(e.batch_normalization(e.conv(e.input("batch", 6, 6, 3), 4, bias=False)))
    optimized(model)
    assert set(model.graph.initializers) == {"kernel", "beta"}


def test_a_normalization_without_weights_says_why_it_stays(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e, fold = emitter, FoldAffine()
    model = e.model(e.layer("bn", e.op.Relu(e.batch_normalization(e.input("batch", 4)))))
    assert optimized(model, fold)["BatchNormalization"] == 1
    (note,) = fold.notes
    assert note.startswith("bn/BatchNormalization: kept: no weights before or after it")


BEHIND: list[Any] = [
    pytest.param(lambda e, x: e.dense(x, 2), {"MatMul", "Add"}, id="dense"),
    pytest.param(lambda e, x: e.op.MatMul(x, e.weight(3, 2)), {"MatMul", "Add"}, id="matmul without bias"),
    pytest.param(lambda e, x: e.conv(x, 2, same=False), {"Conv", "Transpose"}, id="conv without padding"),
    pytest.param(lambda e, x: e.conv(x, 3, group=3, same=False), {"Conv", "Transpose"}, id="conv in groups"),
    pytest.param(lambda e, x: e.conv(x, 2, 1, bias=False), {"MatMul", "Add"}, id="conv of one point"),
]


@pytest.mark.parametrize(("make", "left"), BEHIND)
def test_a_normalization_disappears_into_the_weights_behind_it(
    emitter: Any, optimized: Callable[..., Any], make: Callable[[Any, Any], Any], left: set[str]
) -> None:
    e = emitter
    x = e.batch_normalization(e.op.Relu(_image(e)))
    assert set(optimized(e.model(make(e, x)), FoldAffine(), Layout(), FoldAffine())) <= {"Relu", *left}


@pytest.mark.parametrize("attributes", [{}, {"transB": 1, "alpha": 0.5, "beta": 2.0}])
def test_a_normalization_disappears_into_a_gemm_behind_it(
    emitter: Any, optimized: Callable[..., Any], attributes: dict[str, Any]
) -> None:
    e = emitter
    kernel = e.weight(2, 5) if attributes else e.weight(5, 2)
    x = e.op.Gemm(e.batch_normalization(e.op.Relu(e.input("batch", 5))), kernel, e.weight(2), **attributes)
    assert optimized(e.model(x), FoldAffine()) == {"Relu": 1, "Gemm": 1}


def test_a_scale_goes_through_a_border_of_zeros_and_a_shift_does_not(
    emitters: Any, optimized: Callable[..., Any]
) -> None:
    e = emitters()
    assert optimized(e.model(e.conv(e.op.Mul(_image(e), 1 / 255), 2)), FoldAffine())["Mul"] == 0
    e, fold = emitters(), FoldAffine()
    x = e.op.Add(e.op.Mul(_image(e), 1 / 127.5), -1.0)
    assert optimized(e.model(e.conv(x, 2)), fold)["Add"] == 1
    assert any("which pads with zeros" in note for note in fold.notes)


def test_a_normalization_that_something_else_reads_stays(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.batch_normalization(e.op.Relu(e.input("batch", 5)))
    assert optimized(e.model(e.dense(x, 2), x), FoldAffine())["BatchNormalization"] == 1
