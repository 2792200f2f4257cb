"""Whether a request fits a model, and what it is told when not."""

import pytest

from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.signature import (
    Dimension,
    Signature,
    TensorSpec,
    check_inputs,
    check_outputs,
    check_tensor,
    show_shape,
)

IMAGE = TensorSpec("image", "FP32", ("batch", 28, 28, 1))
MASK = TensorSpec("mask", "BOOL", ("batch", None), optional=True)
SIGNATURE = Signature((IMAGE, MASK), (TensorSpec("probabilities", "FP32", ("batch", 10)),), batched=True)


@pytest.mark.parametrize(
    ("datatype", "shape", "message"),
    [
        pytest.param("FP32", (3, 28, 28), "expected shape [batch, 28, 28, 1], got [3, 28, 28]", id="rank"),
        pytest.param(
            "FP32", (3, 28, 27, 1), "expected shape [batch, 28, 28, 1], got [3, 28, 27, 1]", id="size"
        ),
        pytest.param(
            "FP32", (-1, 28, 28, 1), "expected shape [batch, 28, 28, 1], got [-1, 28, 28, 1]", id="negative"
        ),
        pytest.param("INT64", (3, 28, 28, 1), "expected datatype FP32, got INT64", id="datatype"),
        pytest.param("FLOAT", (3, 28, 28, 1), "expected datatype FP32, got FLOAT", id="unknown datatype"),
    ],
)
def test_a_tensor_that_does_not_fit_is_told_what_was_expected_and_what_came(
    datatype: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_tensor(IMAGE, datatype, shape, {})
    assert str(caught.value) == f"input 'image': {message}"


def test_a_symbol_must_have_one_size_in_a_request() -> None:
    sizes: dict[str, tuple[int, str]] = {}
    check_tensor(IMAGE, "FP32", (3, 28, 28, 1), sizes)
    check_tensor(MASK, "BOOL", (3, 99), sizes)
    with pytest.raises(InvalidArgumentError) as caught:
        check_tensor(MASK, "BOOL", (4, 99), sizes)
    assert (
        str(caught.value)
        == "input 'mask': expected shape [batch, ?], got [4, 99]; batch is 3 in input 'image'"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param([], "input 'image' is missing; model 'digits' takes: image, mask", id="missing"),
        pytest.param(
            ["image", "x"], "unexpected input 'x'; model 'digits' takes: image, mask", id="unexpected"
        ),
        pytest.param(["image", "image"], "input 'image' is given twice", id="twice"),
    ],
)
def test_the_inputs_must_be_the_models(given: list[str], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_inputs(SIGNATURE, "digits", given)
    assert str(caught.value) == message


def test_an_optional_input_may_be_left_out() -> None:
    check_inputs(SIGNATURE, "digits", ["image"])
    check_inputs(SIGNATURE, "digits", ["mask", "image"])


def test_a_requested_output_must_be_the_models() -> None:
    check_outputs(SIGNATURE, "digits", ["probabilities"])
    with pytest.raises(InvalidArgumentError) as caught:
        check_outputs(SIGNATURE, "digits", ["foo"])
    assert str(caught.value) == "unexpected inference output 'foo' for model 'digits'; it has: probabilities"


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        pytest.param(("batch", 28, None), "[batch, 28, ?]", id="all kinds"),
        pytest.param((), "[]", id="scalar"),
    ],
)
def test_a_shape_is_shown_with_its_symbols(shape: tuple[Dimension, ...], text: str) -> None:
    assert show_shape(shape) == text
