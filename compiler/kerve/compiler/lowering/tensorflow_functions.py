"""Common functions of TensorFlow, written with those of Keras.

Each takes the lowering, then the arguments of the TensorFlow function under their names there, and returns
`NotImplemented` for what Keras cannot say: it is traced then.
"""

from __future__ import annotations

import functools
import inspect
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.ops import core

from kerve.compiler.lowering import backend, randomness
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.operators import plus
from kerve.compiler.lowering.ops import resampling
from kerve.compiler.lowering.symbol import Symbol, is_symbol

__all__ = ["BLOCKS", "call"]

_Function = Callable[..., Any]


def call(g: Lowering, op: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call our form of a function of TensorFlow; `NotImplemented` if there is none for these arguments."""
    function = _by_identity().get(_identity(op))
    if function is None:
        return NotImplemented
    signature = inspect.signature(_identity(op))
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return NotImplemented
    several = [name for name, each in signature.parameters.items() if each.kind is each.VAR_POSITIONAL]
    positional = [value for name in several for value in bound.arguments.pop(name, ())]
    named = {name: value for name, value in bound.arguments.items() if value is not None and name != "name"}
    return function(g, *positional, **named)


def _identity(op: Callable[..., Any]) -> Any:
    """TensorFlow wraps its functions, some more than once."""
    return tf.__internal__.decorator.unwrap(op)[1]


@functools.cache
def _by_identity() -> dict[Any, _Function]:
    """Find the functions, in the forms of TensorFlow 2 and of TensorFlow 1, which the former call."""
    table = {}
    for name, function in _FUNCTIONS.items():
        for namespace in (tf.compat.v1, tf):
            op = functools.reduce(lambda part, each: getattr(part, each, None), name.split("."), namespace)
            if op is not None:
                table[_identity(op)] = function
    return table


def _is_float(x: Any) -> bool:
    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(getattr(x, "dtype", "float32"))))


def _dtype(dtype: Any) -> str:
    return str(tf.as_dtype(dtype).name)


def _known(x: Any) -> Any:
    """Return an argument that says how (an axis, sizes) as plain Python; None if it is computed."""
    if x is None or isinstance(x, int):
        return x
    if isinstance(x, list | tuple):
        return [_known(part) for part in x]
    static = None if is_symbol(x) else tf.get_static_value(x)
    return None if static is None else np.asarray(static).tolist()


def _sizes(x: Any) -> Any:
    """Return a shape as Keras takes it: a tuple, or a symbol."""
    if isinstance(x, _Sizes):
        return tuple(x)
    if isinstance(x, tf.TensorShape):
        return tuple(x.as_list())
    if is_symbol(x):
        return x
    if isinstance(x, list | tuple):
        return tuple(size if is_symbol(size) else int(size) for size in x)
    return tuple(int(size) for size in np.atleast_1d(np.asarray(x)))


class _Sizes(Symbol):
    """What `tf.shape` returns: a vector, of which single elements may be known."""

    def __init__(self, g: Lowering, x: Symbol, dtype: str) -> None:
        super().__init__(g.cast(g.op.Shape(x.value), dtype))
        self._of = x

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int):
            return ops.shape(self._of)[key]
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(ops.shape(self._of))


def _shape(g: Lowering, input: Any, out_type: Any = tf.int32) -> Any:
    if None not in input.shape:
        return tf.constant(list(input.shape), out_type)
    return _Sizes(g, input, _dtype(out_type))


def _unary(function: _Function) -> _Function:
    return lambda g, x: function(x)


def _binary(function: _Function) -> _Function:
    return lambda g, x, y: function(x, y)


def _of_floats(function: _Function) -> _Function:
    """Functions that treat integers otherwise than Keras's."""

    @functools.wraps(function)
    def checked(g: Lowering, **named: Any) -> Any:
        return function(g, **named) if _is_float(next(iter(named.values()))) else NotImplemented

    return checked


def _reduction(function: _Function) -> _Function:
    def reduce(g: Lowering, input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
        if is_symbol(axis):
            return NotImplemented
        return function(input_tensor, axis=_axes(axis), keepdims=bool(keepdims))

    return reduce


def _axes(axis: Any) -> Any:
    known = _known(axis)
    return tuple(known) if isinstance(known, list) else known


def _arg(function: _Function) -> _Function:
    def arg(g: Lowering, input: Any, axis: Any = None, output_type: Any = tf.int64) -> Any:
        return ops.cast(function(input, axis=_known(axis) or 0), _dtype(output_type))

    return arg


def _matmul(
    g: Lowering, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False, **rest: Any
) -> Any:
    if not _is_float(a) or any(value for name, value in rest.items() if name != "name"):
        return NotImplemented
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _split(g: Lowering, value: Any, num_or_size_splits: Any, axis: Any = 0, num: Any = None) -> Any:
    sizes = _known(num_or_size_splits)
    if isinstance(sizes, int):
        return ops.split(value, sizes, axis=_known(axis))
    if sizes is None or None in sizes or -1 in sizes:
        return NotImplemented
    return ops.split(value, np.cumsum(sizes)[:-1].tolist(), axis=_known(axis))


def _tensors(values: Sequence[Any]) -> list[Any]:
    return [value if hasattr(value, "shape") else tf.convert_to_tensor(value) for value in values]


def _squeeze(g: Lowering, input: Any, axis: Any = None) -> Any:
    axis = _known(axis)
    axes = [axis] if isinstance(axis, int) else axis
    if axes is None and None in input.shape:
        return NotImplemented
    if axes and any(input.shape[each] is None for each in axes):
        keep = [
            place for place in range(len(input.shape)) if place not in {a % len(input.shape) for a in axes}
        ]
        return ops.reshape(input, [ops.shape(input)[place] for place in keep])
    return ops.squeeze(input, axes)


def _gather(
    g: Lowering, params: Any, indices: Any, validate_indices: Any = None, axis: Any = None, batch_dims: int = 0,
) -> Any:  # fmt: skip
    return NotImplemented if batch_dims else ops.take(params, indices, axis=_known(axis) or 0)


def _where(g: Lowering, condition: Any, x: Any = None, y: Any = None) -> Any:
    return NotImplemented if x is None else ops.where(condition, x, y)


def _pad(g: Lowering, tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Any:
    widths = paddings if isinstance(paddings, list | tuple) else _known(paddings)
    if widths is None:
        return NotImplemented
    if mode.upper() != "CONSTANT":
        return ops.pad(tensor, widths, mode=mode.lower())
    return ops.pad(tensor, widths, constant_values=constant_values)


def _full(value: Any) -> _Function:
    def full(g: Lowering, shape: Any, dtype: Any = tf.float32, **_: Any) -> Any:
        return ops.full(_sizes(shape), value, dtype=_dtype(dtype))

    return full


def _like(value: Any) -> _Function:
    def like(g: Lowering, dtype: Any = None, **tensor: Any) -> Any:
        template = tensor.get("input", tensor.get("tensor"))
        return ops.full_like(template, value, dtype=None if dtype is None else _dtype(dtype))

    return like


def _fill(g: Lowering, dims: Any, value: Any, **_: Any) -> Any:
    dtype = getattr(value, "dtype", None) or tf.convert_to_tensor(value).dtype
    return ops.full(_sizes(dims), value, dtype=keras.backend.standardize_dtype(dtype))


def _range(g: Lowering, start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None) -> Any:
    return ops.arange(start, limit, delta, dtype=None if dtype is None else _dtype(dtype))


def _one_hot(
    g: Lowering, indices: Any, depth: Any, on_value: Any = None, off_value: Any = None, axis: Any = None,
    dtype: Any = None,
) -> Any:  # fmt: skip
    if on_value is not None or off_value is not None or _known(depth) is None:
        return NotImplemented
    axis = -1 if axis is None else axis
    return ops.one_hot(indices, _known(depth), axis=axis, dtype=_dtype(dtype or tf.float32))


def _cumsum(g: Lowering, x: Any, axis: Any = 0, exclusive: bool = False, reverse: bool = False) -> Any:
    return NotImplemented if exclusive or reverse else ops.cumsum(x, axis=_known(axis))


_TopK = namedtuple("_TopK", ["values", "indices"])  # as TensorFlow returns them


def _top_k(g: Lowering, input: Any, k: Any = 1, sorted: bool = True, **_: Any) -> Any:
    return _TopK(*ops.top_k(input, _known(k) or k, sorted=sorted))


def _sort(g: Lowering, values: Any, axis: int = -1, direction: str = "ASCENDING") -> Any:
    result = ops.sort(values, axis=axis)
    return result if direction == "ASCENDING" else ops.flip(result, axis=axis)


def _per_channel(value: Any, numbers: Any, data_format: str | None) -> Any:
    """Arrange numbers of channels so that they are spread over what lies behind the channels."""
    behind = len(value.shape) - 2 if (data_format or "").startswith("NC") else 0
    return ops.reshape(numbers, [-1, *[1] * behind])


def _l2_normalize(g: Lowering, x: Any, axis: Any = None, epsilon: float = 1e-12, **_: Any) -> Any:
    squares = ops.sum(ops.square(x), axis=_axes(axis), keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, epsilon))


def _moments(g: Lowering, x: Any, axes: Any, shift: Any = None, keepdims: bool = False) -> Any:
    return ops.moments(x, _axes(axes), keepdims=keepdims)


def _batch_normalization(
    g: Lowering, x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: float
) -> Any:
    factor = ops.rsqrt(ops.add(variance, variance_epsilon))
    factor = factor if scale is None else ops.multiply(factor, scale)
    result = ops.multiply(ops.subtract(x, mean), factor)
    return result if offset is None else plus(result, offset)


def _convolution(g: Lowering, input: Any, filters: Any, strides: Any, padding: Any, **rest: Any) -> Any:
    layout = rest.get("data_format") or "NHWC"
    if not isinstance(padding, str) or not layout.endswith("C"):
        return NotImplemented
    count = len(filters.shape) - 2
    return ops.conv(
        input,
        filters,
        strides=_spatial(strides, count),
        padding=padding.lower(),
        data_format="channels_last",
        dilation_rate=_spatial(rest.get("dilations") or 1, count),
    )


def _pooling(function: _Function) -> _Function:
    def pool(g: Lowering, input: Any, ksize: Any, strides: Any, padding: Any, **rest: Any) -> Any:
        layout = rest.get("data_format") or "NHWC"
        if not isinstance(padding, str) or not layout.endswith("C"):
            return NotImplemented
        count = len(input.shape) - 2
        window, steps = _spatial(ksize, count), _spatial(strides, count)
        return function(input, window, steps, padding=padding.lower(), data_format="channels_last")

    return pool


def _spatial(sizes: Any, count: int) -> list[int]:
    """Return as many sizes as there are spatial axes, from one, from so many, or from two more."""
    known = _known(sizes)
    listed: Sequence[int] = [known] if isinstance(known, int) else known
    if len(listed) == 1:
        return [listed[0]] * count
    return list(listed) if len(listed) == count else list(listed[1:-1])


def _extract_patches(g: Lowering, images: Any, sizes: Any, strides: Any, rates: Any, padding: str) -> Any:
    (_, *size, _), (_, *step, _), (_, *rate, _) = _known(sizes), _known(strides), _known(rates)
    if max(step) > 1 and max(rate) > 1:  # which Keras does not know
        return NotImplemented
    return ops.image.extract_patches(images, size, step, rate, padding.lower(), "channels_last")


def _resize(
    g: Lowering, images: Any, size: Any, method: str = "bilinear", preserve_aspect_ratio: bool = False,
    antialias: bool = False,
) -> Any:  # fmt: skip
    if preserve_aspect_ratio or method not in (
        "area",
        "bicubic",
        "bilinear",
        "lanczos3",
        "lanczos5",
        "nearest",
    ):
        return NotImplemented
    images = images if method == "nearest" else ops.cast(images, "float32")
    return resampling.resize(g, images, _sizes(size), method, antialias, data_format="channels_last")


def _norm(
    g: Lowering,
    tensor: Any,
    ord: Any = "euclidean",
    axis: Any = None,
    keepdims: bool = False,
) -> Any:
    if ord == "euclidean":
        return ops.sqrt(ops.sum(ops.square(tensor), axis=_axes(axis), keepdims=bool(keepdims)))
    return NotImplemented


def _dropout(g: Lowering, x: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    return randomness.SAMPLERS["dropout"](g, x, rate, noise_shape)


def _while_loop(g: Lowering, cond: Any, body: Any, loop_vars: Any, *args: Any, **kwargs: Any) -> Any:
    results = backend.LOOPS["while_loop"](g, cond, body, tuple(loop_vars), kwargs.get("maximum_iterations"))
    return type(loop_vars)(results) if isinstance(loop_vars, list) else results


def _scan(g: Lowering, fn: Any, elems: Any, initializer: Any = None, *args: Any, **kwargs: Any) -> Any:
    if initializer is None or kwargs.get("reverse"):
        return NotImplemented

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        after = fn(carry, x)
        return after, after

    return g.lower(core.Scan(), (step, initializer, elems), {})[1]


def _map(g: Lowering, fn: Any, elems: Any, *args: Any, **kwargs: Any) -> Any:
    return g.lower(core.Map(), (fn, elems), {})


def _nothing(g: Lowering, *args: Any, **kwargs: Any) -> None:
    """What is only said or checked while a model runs."""


#: Functions that do not ask the dispatchers, or of which only the functions given to them hold symbols.
BLOCKS: dict[str, _Function] = {
    "map_fn": _map,
    "vectorized_map": lambda g, fn, elems, *_, **__: _map(g, fn, elems),
    "while_loop": _while_loop,
}

_FUNCTIONS: dict[str, _Function] = {
    "abs": _unary(ops.abs),
    "add": _binary(plus),
    "argmax": _arg(ops.argmax),
    "argmin": _arg(ops.argmin),
    "argsort": lambda g, values, axis=-1, direction="ASCENDING", **_: (
        ops.argsort(values, axis) if direction == "ASCENDING" else NotImplemented
    ),
    "broadcast_to": lambda g, input, shape: ops.broadcast_to(input, _sizes(shape)),
    "cast": lambda g, x, dtype: ops.cast(x, _dtype(dtype)),
    "clip_by_value": lambda g, t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "concat": lambda g, values, axis: ops.concatenate(_tensors(values), axis=_known(axis)),
    "cond": lambda g, pred, true_fn=None, false_fn=None: ops.cond(pred, true_fn, false_fn),
    "convert_to_tensor": lambda g, value, dtype=None, **_: (
        ops.convert_to_tensor(value, None if dtype is None else _dtype(dtype))
        if is_symbol(value)
        else NotImplemented
    ),
    "cumsum": _cumsum,
    "debugging.assert_equal": _nothing,
    "debugging.assert_greater": _nothing,
    "debugging.assert_greater_equal": _nothing,
    "debugging.assert_less": _nothing,
    "debugging.assert_less_equal": _nothing,
    "debugging.assert_non_negative": _nothing,
    "debugging.assert_positive": _nothing,
    "debugging.assert_rank": _nothing,
    "debugging.assert_shapes": _nothing,
    "debugging.Assert": _nothing,
    "divide": _of_floats(_binary(ops.divide)),
    "einsum": lambda g, *inputs, equation, **_: ops.einsum(equation, *inputs),
    "ensure_shape": lambda g, x, shape: x,
    "equal": _binary(ops.equal),
    "exp": _of_floats(_unary(ops.exp)),
    "expand_dims": lambda g, input, axis: ops.expand_dims(input, _known(axis)),
    "eye": lambda g, num_rows, num_columns=None, batch_shape=None, dtype=tf.float32: (
        ops.eye(num_rows, num_columns, dtype=_dtype(dtype)) if batch_shape is None else NotImplemented
    ),
    "fill": _fill,
    "floor": _of_floats(_unary(ops.floor)),
    "gather": _gather,
    "greater": _binary(ops.greater),
    "greater_equal": _binary(ops.greater_equal),
    "identity": lambda g, input: input,
    "image.extract_patches": _extract_patches,
    "image.resize": _resize,
    "less": _binary(ops.less),
    "less_equal": _binary(ops.less_equal),
    "linalg.matvec": lambda g, a, b, transpose_a=False, **_: (
        NotImplemented if transpose_a else ops.squeeze(ops.matmul(a, ops.expand_dims(b, -1)), -1)
    ),
    "logical_and": _binary(ops.logical_and),
    "logical_not": _unary(ops.logical_not),
    "logical_or": _binary(ops.logical_or),
    "math.ceil": _of_floats(_unary(ops.ceil)),
    "math.cos": _of_floats(_unary(ops.cos)),
    "math.divide_no_nan": _of_floats(_binary(ops.divide_no_nan)),
    "math.erf": _unary(ops.erf),
    "math.erfc": _unary(ops.erfc),
    "math.erfinv": _unary(ops.erfinv),
    "math.expm1": _of_floats(_unary(ops.expm1)),
    "math.floordiv": _binary(ops.floor_divide),
    "math.floormod": _binary(ops.mod),
    "math.is_finite": _unary(ops.isfinite),
    "math.is_inf": _unary(ops.isinf),
    "math.is_nan": _unary(ops.isnan),
    "math.log": _of_floats(_unary(ops.log)),
    "math.log1p": _of_floats(_unary(ops.log1p)),
    "math.multiply_no_nan": lambda g, x, y: ops.where(ops.equal(y, 0), ops.zeros_like(x * y), x * y),
    "math.rsqrt": _unary(ops.rsqrt),
    "math.sin": _of_floats(_unary(ops.sin)),
    "math.squared_difference": _binary(lambda x, y: ops.square(ops.subtract(x, y))),
    "math.top_k": _top_k,
    "matmul": _matmul,
    "maximum": _binary(ops.maximum),
    "minimum": _binary(ops.minimum),
    "multiply": _binary(ops.multiply),
    "negative": _unary(ops.negative),
    "nn.avg_pool": _pooling(ops.average_pool),
    "nn.avg_pool1d": _pooling(ops.average_pool),
    "nn.avg_pool2d": _pooling(ops.average_pool),
    "nn.batch_normalization": _batch_normalization,
    "nn.bias_add": lambda g, value, bias, data_format=None: ops.add(
        value, _per_channel(value, bias, data_format)
    ),
    "nn.conv1d": lambda g, input, filters, stride, padding, data_format="NWC", **rest: _convolution(
        g, input, filters, stride, padding, data_format=data_format, **rest
    ),
    "nn.conv2d": _convolution,
    "nn.conv3d": _convolution,
    "nn.dropout": _dropout,
    "nn.elu": lambda g, features: ops.elu(features),
    "nn.embedding_lookup": lambda g, params, ids, max_norm=None: (
        ops.take(params, ids, axis=0) if max_norm is None else NotImplemented
    ),
    "nn.gelu": lambda g, features, approximate=False: ops.gelu(features, approximate),
    "nn.l2_normalize": _l2_normalize,
    "nn.leaky_relu": lambda g, features, alpha=0.2: ops.leaky_relu(features, alpha),
    "nn.log_softmax": lambda g, logits, axis=None: ops.log_softmax(logits, -1 if axis is None else axis),
    "nn.max_pool": _pooling(ops.max_pool),
    "nn.max_pool1d": _pooling(ops.max_pool),
    "nn.max_pool2d": _pooling(ops.max_pool),
    "nn.moments": _moments,
    "nn.relu": lambda g, features: ops.relu(features),
    "nn.relu6": lambda g, features: ops.relu6(features),
    "nn.selu": lambda g, features: ops.selu(features),
    "nn.silu": lambda g, features, beta=1.0: (
        features * ops.sigmoid(features * beta) if beta != 1 else ops.silu(features)
    ),
    "nn.softmax": lambda g, logits, axis=None: ops.softmax(logits, -1 if axis is None else axis),
    "nn.softplus": lambda g, features: ops.softplus(features),
    "nn.softsign": lambda g, features: ops.softsign(features),
    "norm": _norm,
    "not_equal": _binary(ops.not_equal),
    "one_hot": _one_hot,
    "ones": _full(1),
    "ones_like": _like(1),
    "pad": _pad,
    "pow": _of_floats(_binary(ops.power)),
    "print": _nothing,
    "range": _range,
    "rank": lambda g, input: tf.constant(len(input.shape), tf.int32),
    "reduce_all": _reduction(ops.all),
    "reduce_any": _reduction(ops.any),
    "reduce_logsumexp": _reduction(ops.logsumexp),
    "reduce_max": _reduction(ops.max),
    "reduce_mean": _of_floats(_reduction(ops.mean)),
    "reduce_min": _reduction(ops.min),
    "reduce_prod": _of_floats(_reduction(ops.prod)),
    "reduce_sum": _reduction(ops.sum),
    "math.reduce_std": _of_floats(_reduction(ops.std)),
    "math.reduce_variance": _of_floats(_reduction(ops.var)),
    "repeat": lambda g, input, repeats, axis=None: ops.repeat(input, repeats, axis=_known(axis)),
    "reshape": lambda g, tensor, shape: ops.reshape(tensor, _sizes(shape)),
    "reverse": lambda g, tensor, axis: ops.flip(tensor, _axes(axis)),
    "round": _of_floats(_unary(ops.round)),
    "scan": _scan,
    "shape": _shape,
    "sigmoid": _unary(ops.sigmoid),
    "sign": _unary(ops.sign),
    "slice": lambda g, input_, begin, size: ops.slice(input_, _sizes(begin), _sizes(size)),
    "sort": _sort,
    "split": _split,
    "sqrt": _unary(ops.sqrt),
    "square": _unary(ops.square),
    "squeeze": _squeeze,
    "stack": lambda g, values, axis=0: ops.stack(_tensors(values), axis=_known(axis)),
    "stop_gradient": lambda g, input: input,
    "subtract": _binary(ops.subtract),
    "tanh": _unary(ops.tanh),
    "tensordot": lambda g, a, b, axes: ops.tensordot(a, b, _known(axes)),
    "tile": lambda g, input, multiples: ops.tile(input, _sizes(multiples)),
    "transpose": lambda g, a, perm=None, conjugate=False: ops.transpose(a, _axes(perm)),
    "truediv": _of_floats(_binary(ops.true_divide)),
    "unstack": lambda g, value, num=None, axis=0: ops.unstack(value, num, _known(axis)),
    "where": _where,
    "zeros": _full(0),
    "zeros_like": _like(0),
}
