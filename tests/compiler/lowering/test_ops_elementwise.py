"""Elementwise operations of `keras.ops`, one by one, against TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import ops
from numpy.typing import NDArray

CheckOp = Callable[..., ir.Model]

_NUMBERS = np.array(
    [[-7.25, -2.5, -1.0, -0.6, -1e-5], [0.0, 1e-5, 0.5, 1.0, 1.5], [2.5, 3.0, 6.5, 20.0, -20.0]], np.float32
)
_UNIT = np.linspace(-0.95, 0.95, 12, dtype=np.float32).reshape(3, 4)
_POSITIVE = np.array([[0.01, 0.3, 1.0], [2.0, 5.5, 80.0]], np.float32)
_OTHER = np.array(
    [[3.0, -2.0, 0.7, 2.0, 1.0], [-1.0, 4.0, -0.5, 1.0, -3.0], [2.5, -0.1, 2.0, 7.0, 6.0]], np.float32
)
_INTEGERS = np.array([[-9, -4, -1, 0], [1, 3, 8, 12]], np.int32)
_DIVISORS = np.array([[2, -3, 5, -7], [4, 2, -3, 5]], np.int32)
_SPECIAL = np.array([[0.0, -0.0, np.nan], [np.inf, -np.inf, 2.0]], np.float32)
_TRUTH = np.array([[True, False], [False, True]])
_LIES = np.array([[True, True], [False, False]])

_UNARY = {
    "abs": _NUMBERS,
    "absolute": _NUMBERS,
    "angle": _OTHER,
    "arccos": _UNIT,
    "arccosh": 1.0 + _POSITIVE,
    "arcsin": _UNIT,
    "arcsinh": _NUMBERS,
    "arctan": _NUMBERS,
    "arctanh": _UNIT,
    "cbrt": _NUMBERS,
    "ceil": _NUMBERS,
    "conj": _NUMBERS,
    "conjugate": _NUMBERS,
    "copy": _NUMBERS,
    "cos": _NUMBERS,
    "cosh": _UNIT,
    "deg2rad": _NUMBERS,
    "erf": _NUMBERS,
    "erfc": _NUMBERS,
    "erfinv": np.array([[-0.999, -0.5, -1e-3, 0.0], [1e-6, 0.3, 0.9, 0.99999]], np.float32),
    "exp": _UNIT,
    "exp2": _UNIT,
    "expm1": _NUMBERS[:, :3],
    "fabs": _NUMBERS,
    "floor": _NUMBERS,
    "i0": _OTHER,
    "imag": _NUMBERS,
    "isfinite": _SPECIAL,
    "isinf": _SPECIAL,
    "isnan": _SPECIAL,
    "isneginf": _SPECIAL,
    "isposinf": _SPECIAL,
    "isreal": _NUMBERS,
    "log": _POSITIVE,
    "log10": _POSITIVE,
    "log1p": np.array([[-0.9, -1e-6, 0.0], [1e-7, 0.5, 100.0]], np.float32),
    "log2": _POSITIVE,
    "nan_to_num": _SPECIAL,
    "negative": _NUMBERS,
    "rad2deg": _NUMBERS,
    "real": _NUMBERS,
    "reciprocal": _POSITIVE,
    "round": _NUMBERS,
    "rsqrt": _POSITIVE,
    "sign": _NUMBERS,
    "signbit": _SPECIAL[:, [0, 1]],
    "sin": _NUMBERS,
    "sinc": _NUMBERS,
    "sinh": _UNIT,
    "sqrt": _POSITIVE,
    "square": _NUMBERS,
    "stop_gradient": _NUMBERS,
    "tan": _UNIT,
    "tanh": _NUMBERS,
    "trunc": _NUMBERS,
}


@pytest.mark.parametrize(("name", "x"), [pytest.param(n, x, id=n) for n, x in _UNARY.items()])
def test_functions_of_one_tensor(check_op: CheckOp, name: str, x: NDArray[Any]) -> None:
    check_op(getattr(ops, name), x)


_OF_INTEGERS = [
    "abs", "arctan", "bitwise_invert", "bitwise_not", "cbrt", "ceil", "cos", "deg2rad", "exp", "expm1", "fabs",
    "floor", "isfinite", "isinf", "isnan", "isneginf", "isposinf", "log1p", "logical_not", "nan_to_num", "negative",
    "round", "sign", "signbit", "sin", "sinc", "square", "tanh", "trunc",
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
@pytest.mark.parametrize("name", _OF_INTEGERS)
def test_functions_of_integers_promote_as_keras_does(check_op: CheckOp, name: str, dtype: str) -> None:
    x = np.array([[1, 2, 3], [4, 0, 7]], dtype)
    if name not in ("log1p",):
        x = x - 2
    check_op(getattr(ops, name), x.astype(dtype))


@pytest.mark.parametrize("name", ["abs", "logical_not", "square", "exp", "floor", "isnan", "nan_to_num"])
def test_functions_of_booleans(check_op: CheckOp, name: str) -> None:
    check_op(getattr(ops, name), _TRUTH)


_BINARY = {
    "add": (_NUMBERS, _OTHER),
    "arctan2": (_NUMBERS, _OTHER),
    "bitwise_and": (_INTEGERS, _DIVISORS),
    "bitwise_left_shift": (_INTEGERS, np.abs(_DIVISORS)),
    "bitwise_or": (_INTEGERS, _DIVISORS),
    "bitwise_right_shift": (_INTEGERS, np.abs(_DIVISORS)),
    "bitwise_xor": (_INTEGERS, _DIVISORS),
    "divide": (_NUMBERS, _OTHER),
    "divide_no_nan": (_OTHER, np.round(_NUMBERS)),
    "equal": (_NUMBERS, np.round(_NUMBERS)),
    "floor_divide": (_NUMBERS, _OTHER),
    "fmax": (_SPECIAL, _SPECIAL[::-1].copy()),
    "fmin": (_SPECIAL, _SPECIAL[::-1].copy()),
    "fmod": (_NUMBERS, _OTHER),
    "gcd": (_INTEGERS, _DIVISORS),
    "greater": (_NUMBERS, _OTHER),
    "greater_equal": (_NUMBERS, np.round(_NUMBERS)),
    "heaviside": (_NUMBERS, _OTHER),
    "hypot": (_NUMBERS, _OTHER),
    "isclose": (_NUMBERS, _NUMBERS + 1e-6),
    "lcm": (_INTEGERS, _DIVISORS),
    "ldexp": (_NUMBERS[:2, :4], _DIVISORS),
    "left_shift": (_INTEGERS, np.abs(_DIVISORS)),
    "less": (_NUMBERS, _OTHER),
    "less_equal": (_NUMBERS, np.round(_NUMBERS)),
    "logaddexp": (_NUMBERS, _OTHER),
    "logaddexp2": (_NUMBERS, _OTHER),
    "logical_and": (_TRUTH, _LIES),
    "logical_or": (_TRUTH, _LIES),
    "logical_xor": (_TRUTH, _LIES),
    "maximum": (_NUMBERS, _OTHER),
    "minimum": (_NUMBERS, _OTHER),
    "mod": (_NUMBERS, _OTHER),
    "multiply": (_NUMBERS, _OTHER),
    "not_equal": (_NUMBERS, np.round(_NUMBERS)),
    "power": (_POSITIVE, _POSITIVE[:, ::-1] / 10),
    "right_shift": (_INTEGERS, np.abs(_DIVISORS)),
    "subtract": (_NUMBERS, _OTHER),
    "true_divide": (_NUMBERS, _OTHER),
}


@pytest.mark.parametrize(("name", "xs"), [pytest.param(n, xs, id=n) for n, xs in _BINARY.items()])
def test_functions_of_two_tensors(
    check_op: CheckOp, name: str, xs: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    check_op(getattr(ops, name), *xs)


_PROMOTING = [
    "add",
    "divide",
    "equal",
    "floor_divide",
    "less",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "subtract",
]
_DTYPES = ["int8", "uint8", "int16", "int32", "int64", "uint32", "float16", "float32", "float64"]


@pytest.mark.parametrize("second", _DTYPES)
@pytest.mark.parametrize("first", _DTYPES)
def test_operands_of_two_types_promote_as_keras_does(check_op: CheckOp, first: str, second: str) -> None:
    a = np.array([[1, 2, 3], [5, 7, 11]], first)
    b = np.array([[2, 2, 1], [3, 4, 3]], second)
    check_op(lambda x, y: [getattr(ops, name)(x, y) for name in _PROMOTING], a, b, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("number", [pytest.param(2, id="int"), pytest.param(2.5, id="float")])
@pytest.mark.parametrize("dtype", _DTYPES)
def test_a_python_number_keeps_the_type_of_the_tensor_where_it_can(
    check_op: CheckOp, dtype: str, number: Any
) -> None:
    x = np.array([[1, 2, 3], [5, 7, 11]], dtype)
    names = ["add", "multiply", "subtract", "divide", "maximum", "minimum", "power", "greater"]
    check_op(lambda x: [getattr(ops, name)(x, number) for name in names], x, rtol=2e-3, atol=1e-3)
    check_op(lambda x: [number * x, number - x, x / number, x // number, x % number], x, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
@pytest.mark.parametrize("name", ["floor_divide", "mod", "power", "right_shift", "left_shift"])
def test_integer_division_and_powers_round_as_keras_does(check_op: CheckOp, name: str, dtype: str) -> None:
    a = np.array([[7, 6, 5, 4, 9, 1]], dtype)
    b = np.array([[2, 3, 4, 1, 2, 3]], dtype)
    if dtype != "uint8" and name != "power":
        a = a * np.array([-1, 1, -1, 1, -1, 1], dtype)
        if "shift" not in name:
            b = b * np.array([1, -1, -1, 1, 1, 1], dtype)
    check_op(getattr(ops, name), a, b)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_powers_that_have_no_room_are_cut_as_keras_cuts_them(check_op: CheckOp, dtype: str) -> None:
    check_op(ops.power, np.arange(10, dtype=dtype), np.full(10, 9, dtype))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_powers_beyond_what_a_float_holds_are_exact(check_op: CheckOp, dtype: str) -> None:
    x = np.array([[2**31 - 1, -(2**24) - 1, 3, 0]], dtype)
    check_op(lambda x: [x**2, x**3, ops.power(x, 5)], x)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8"])
@pytest.mark.parametrize("name", ["right_shift", "left_shift"])
def test_shifts_by_more_bits_than_there_are_end_where_tensorflows_do(
    check_op: CheckOp, name: str, dtype: str
) -> None:
    counts = np.array([[0, 1, 7, 8, 31, 64, 100]], dtype)
    x = np.array([[100, 101, 102, 103, 104, 105, 106]], dtype)
    check_op(getattr(ops, name), x, counts)
    if dtype != "uint8":
        check_op(getattr(ops, name), -x, counts - np.array(5, dtype))


@pytest.mark.parametrize("name", ["logaddexp", "logaddexp2", "outer", "hypot"])
@pytest.mark.parametrize(("left", "right"), [("uint8", "uint8"), ("bool", "int32"), ("int64", "float16")])
def test_operands_of_other_types_meet_where_keras_has_them_meet(
    check_op: CheckOp, name: str, left: str, right: str
) -> None:
    a, b = np.array([3, 0, 1], left), np.array([5, 2, 7], right)
    check_op(getattr(ops, name), a, b, rtol=2e-3, atol=1e-3)


def test_broadcasting_follows_numpy(check_op: CheckOp) -> None:
    check_op(
        lambda x, y: x * y + y, np.ones((2, 3, 1), np.float32), np.arange(4, dtype=np.float32)[None, None]
    )


@pytest.mark.parametrize(
    ("low", "high"),
    [
        pytest.param(-1.0, 2.0, id="numbers"),
        pytest.param(None, 2.0, id="above only"),
        pytest.param(-1.0, None, id="below only"),
        pytest.param(np.array([-1, -2, -3, 0, 0], np.float32), 4.0, id="array and number"),
    ],
)
def test_clip(check_op: CheckOp, low: Any, high: Any) -> None:
    if low is None or high is None:
        low, high = (-1e30 if low is None else low), (1e30 if high is None else high)
    check_op(lambda x: ops.clip(x, low, high), _NUMBERS)


def test_clip_of_integers_and_booleans(check_op: CheckOp) -> None:
    check_op(lambda x: ops.clip(x, -2, 5), _INTEGERS)
    check_op(lambda x: ops.clip(x, 0, 1), _TRUTH)


@pytest.mark.parametrize("decimals", [-1, 0, 2])
def test_round_at_a_decimal_place(check_op: CheckOp, decimals: int) -> None:
    check_op(lambda x: ops.round(x, decimals), _NUMBERS * 10 + 0.123)
    if decimals:
        check_op(lambda x: ops.round(x, decimals), _INTEGERS)


@pytest.mark.parametrize(
    "choose",
    [
        pytest.param(lambda x, y: ops.where(x > y, x, y), id="tensors"),
        pytest.param(lambda x, y: ops.where(x > y, x, 0), id="tensor and number"),
        pytest.param(lambda x, y: ops.where(x > y, 1, 0), id="numbers"),
        pytest.param(lambda x, y: ops.where(x > y, True, x < 0), id="booleans"),
        pytest.param(lambda x, y: ops.where(x, ops.cast(x, "int32"), y), id="mixed types"),
        pytest.param(
            lambda x, y: ops.where(x > y, ops.cast(x, "float16"), ops.cast(y, "float16")), id="halves"
        ),
    ],
)
def test_where(check_op: CheckOp, choose: Callable[..., Any]) -> None:
    check_op(choose, _NUMBERS, _OTHER)


def test_nan_to_num_with_given_values(check_op: CheckOp) -> None:
    check_op(lambda x: ops.nan_to_num(x, nan=5.0, posinf=7.0, neginf=-7.0), _SPECIAL)


def test_allclose(check_op: CheckOp) -> None:
    check_op(lambda x, y: ops.allclose(x, y), _NUMBERS, _NUMBERS + 1e-7)
    check_op(lambda x, y: ops.allclose(x, y), _NUMBERS, _OTHER)
    check_op(lambda x, y: ops.allclose(x, y, equal_nan=True), _SPECIAL, _SPECIAL)


def test_operators_of_python(check_op: CheckOp) -> None:
    check_op(
        lambda x, y: [-x, abs(x), x**2, x @ ops.transpose(y), x != y, (x < y) & (y > 0), ~(x > y)],
        _NUMBERS,
        _OTHER,
    )


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        pytest.param(lambda x: keras.activations.relu(x), "Relu", id="relu"),
        pytest.param(lambda x: keras.activations.relu(x, max_value=4.0), "Clip", id="limited relu"),
        pytest.param(lambda x: keras.activations.relu(x, negative_slope=0.1), "LeakyRelu", id="sloped relu"),
        pytest.param(keras.activations.relu6, "Clip", id="relu6"),
        pytest.param(keras.activations.gelu, "Gelu", id="exact gelu"),
        pytest.param(lambda x: keras.activations.gelu(x, approximate=True), "Gelu", id="tanh gelu"),
        pytest.param(keras.activations.hard_sigmoid, "HardSigmoid", id="hard sigmoid"),
        pytest.param(keras.activations.hard_silu, "HardSwish", id="hard silu"),
        pytest.param(keras.activations.sparse_sigmoid, "HardSigmoid", id="sparse sigmoid"),
        pytest.param(keras.activations.hard_tanh, "Clip", id="hard tanh"),
        pytest.param(keras.activations.elu, "Elu", id="elu"),
        pytest.param(lambda x: keras.activations.elu(x, alpha=0.3), "Elu", id="elu with alpha"),
        pytest.param(keras.activations.selu, "Selu", id="selu"),
        pytest.param(keras.activations.leaky_relu, "LeakyRelu", id="leaky relu"),
        pytest.param(keras.activations.softmax, "Softmax", id="softmax"),
        pytest.param(keras.activations.log_softmax, "LogSoftmax", id="log softmax"),
        pytest.param(keras.activations.softplus, "Softplus", id="softplus"),
        pytest.param(keras.activations.softsign, "Softsign", id="softsign"),
        pytest.param(keras.activations.sigmoid, "Sigmoid", id="sigmoid"),
        pytest.param(keras.activations.tanh, "Tanh", id="tanh"),
        pytest.param(keras.activations.exponential, "Exp", id="exponential"),
    ],
)
def test_an_activation_with_an_operator_of_its_own_becomes_that_operator(
    check_op: CheckOp, operators: Callable[[ir.Model], Counter[str]], function: Any, operator: str
) -> None:
    assert operators(check_op(keras.layers.Activation(function), _NUMBERS)) == {operator: 1}


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(
            lambda x: keras.activations.relu(x, negative_slope=0.1, max_value=4.0), id="sloped limited relu"
        ),
        pytest.param(lambda x: keras.activations.relu(x, threshold=1.0), id="relu with a threshold"),
        pytest.param(lambda x: keras.activations.relu(x, 0.2, 5.0, 1.0), id="relu with everything"),
        pytest.param(
            lambda x: keras.activations.relu(x, 0.0, 2.0, -1.0), id="relu with a negative threshold"
        ),
        pytest.param(keras.activations.silu, id="silu"),
        pytest.param(keras.activations.mish, id="mish"),
        pytest.param(keras.activations.linear, id="linear"),
        pytest.param(keras.activations.squareplus, id="squareplus"),
        pytest.param(keras.activations.soft_shrink, id="soft shrink"),
        pytest.param(keras.activations.hard_shrink, id="hard shrink"),
        pytest.param(lambda x: keras.activations.hard_shrink(x, -1.0), id="hard shrink of nothing"),
        pytest.param(keras.activations.tanh_shrink, id="tanh shrink"),
        pytest.param(keras.activations.sparse_plus, id="sparse plus"),
        pytest.param(keras.activations.sparsemax, id="sparsemax"),
        pytest.param(keras.activations.log_sigmoid, id="log sigmoid"),
        pytest.param(lambda x: keras.activations.threshold(x, 1.0, -3.0), id="threshold"),
        pytest.param(lambda x: keras.activations.glu(ops.concatenate([x, x * 0.1], -1)), id="glu"),
        pytest.param(lambda x: ops.softmax(x, axis=(0, 1)), id="softmax over all axes"),
        pytest.param(
            lambda x: ops.softmax(ops.stack([x, x + 1], 1), axis=(1, 2)), id="softmax over two axes"
        ),
        pytest.param(lambda x: ops.softmax(x, axis=None), id="softmax over everything"),
        pytest.param(lambda x: ops.softmax(x, axis=0), id="softmax over the first axis"),
        pytest.param(lambda x: ops.log_softmax(x, axis=None), id="log softmax over everything"),
    ],
)
def test_every_other_activation(check_op: CheckOp, function: Any) -> None:
    check_op(keras.layers.Activation(function), _NUMBERS)


@pytest.mark.parametrize("opset", [17, 18, 21, 23])
@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_written_out_where_the_opset_has_none(
    check_op: CheckOp, operators: Callable[[ir.Model], Counter[str]], opset: int, approximate: bool
) -> None:
    model = check_op(lambda x: ops.gelu(x, approximate=approximate), _NUMBERS, opset=opset)
    assert ("Gelu" in operators(model)) == (opset >= 20)


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (ops.erfc, [0.3, 0.5, 2.0, 4.5, 7.0, 9.1, -0.3, -4.0, 40.0, np.inf, -np.inf, np.nan]),
        (ops.exp2, [-120.057, -15.05, 19.787, 88.7]),
        (lambda x: ops.celu(x, alpha=0.7), [-1e-30, -8e-9, -2e-6, -0.14, -20.0, 1e-9, 3.0]),
    ],
)
def test_small_results_keep_their_digits(check_op: CheckOp, function: Any, numbers: list[float]) -> None:
    check_op(function, np.array([numbers], np.float32), rtol=2e-6, atol=0.0)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize(
    "name", ["gelu", "elu", "celu", "selu", "silu", "softplus", "hard_silu", "softmax", "leaky_relu"]
)
def test_activations_in_other_precisions(check_op: CheckOp, name: str, dtype: str) -> None:
    check_op(keras.layers.Activation(name, dtype=dtype), _NUMBERS.astype(dtype), rtol=3e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(4, 1), (1, 4), (4, 1, 1), (1, 4, 1)])
def test_a_vector_is_added_along_the_axis_that_keras_takes(check_op: CheckOp, shape: tuple[int, ...]) -> None:
    """`ops.add` and `+` of tensors differ: the first takes a column of a square for a bias, along rows."""
    vector = np.arange(4, dtype="float32").reshape(shape)
    square = np.random.default_rng(3).normal(size=(3, 4, 4, 4)[: len(shape) + 1]).astype("float32")
    check_op(lambda x: ops.add(x, vector), square)
    check_op(lambda x: _Plus(vector)(x), square)


class _Plus(keras.Layer):
    """`+` of tensors, which inside a layer is TensorFlow's."""

    def __init__(self, vector: Any) -> None:
        super().__init__()
        self.vector = vector

    def call(self, x: Any) -> Any:
        return x + self.vector


def test_a_number_may_stand_beside_a_tensor(check_op: CheckOp) -> None:
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    check_op(lambda x: [ops.arctan2(x, 2), ops.arctan2(1.5, x), ops.isclose(x, 1), ops.ldexp(x, 2)], x)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
def test_bounds_that_cross_are_tensorflows(check_op: CheckOp, dtype: str) -> None:
    x = np.arange(12).reshape(3, 4).astype(dtype)
    check_op(lambda x: [ops.clip(x, -1, 5), ops.clip(x, 7, 2), ops.clip(x, [3, 9, 1, 0], 4)], x)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_log_of_sums_keeps_its_type(check_op: CheckOp, dtype: str) -> None:
    check_op(lambda x: ops.logsumexp(x, axis=(0, -1)), np.ones((3, 4), dtype), rtol=1e-3)


def test_a_leaky_slope_of_integers_is_a_float(check_op: CheckOp) -> None:
    check_op(lambda x: ops.leaky_relu(x, 0.1), np.arange(-6, 6, dtype=np.int32).reshape(3, 4))
