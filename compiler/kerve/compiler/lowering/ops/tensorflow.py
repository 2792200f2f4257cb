"""Operators of TensorFlow that tf2onnx does not convert, implemented with operations of Keras.

A handler takes the operator's attributes, then its inputs. Complex tensors are pairs of real ones, tables are
TensorFlow's resource handles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf
from keras import ops

from kerve.compiler.lowering import randomness
from kerve.compiler.lowering.layers.encoding import look_up
from kerve.compiler.lowering.layers.hashing import bucket
from kerve.compiler.lowering.lists import scalar
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.image import project
from kerve.compiler.lowering.ops.special import erfc
from kerve.compiler.lowering.registry import Handler, Handlers
from kerve.compiler.lowering.tracing import UntraceableError

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]


def _of_keras(function: Callable[..., Any]) -> Handler:
    def handler(g: Lowering, attributes: _Attributes, *inputs: Any) -> Any:
        if any(isinstance(x, ir.Value) and x.shape is None for x in inputs):
            raise UntraceableError("the rank of a tensor within it is not known")
        return g.call(lambda *xs: function(attributes, *xs), *inputs)

    return handler


def known_elements(x: ir.Value) -> Any:
    """Return the elements of a constant."""
    if x.const_value is None:
        raise UntraceableError("an argument that must be constant is computed")
    return x.const_value.numpy()


def _no_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that returns zero where the first factor is zero, for any second factor."""

    def fn(_: _Attributes, x: Any, y: Any) -> Any:
        zero = ops.equal(x, 0)
        return ops.where(zero, ops.zeros_like(x), function(x, ops.where(zero, ops.ones_like(y), y)))

    return fn


_OPSET_OF_EQUAL_TEXTS = 19

#: Lanczos approximation of the logarithm of the gamma function (g = 7, n = 9).
_LANCZOS = (
    676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip


def _broadcast_args(_: _Attributes, first: Any, second: Any) -> Any:
    if first.shape != second.shape or None in first.shape:
        raise UntraceableError("the rank to which tensors are broadcast is not known")
    return ops.maximum(first, second)


def _lgamma(_: _Attributes, x: Any) -> Any:
    small = x < 0.5
    z = ops.where(small, -x, x - 1.0)
    series: Any = 0.99999999999980993
    for index, coefficient in enumerate(_LANCZOS):
        series = series + coefficient / (z + (index + 1.0))
    t = z + 7.5
    above = 0.5 * math.log(2 * math.pi) + (z + 0.5) * ops.log(t) - t + ops.log(series)
    mirrored = math.log(math.pi) - ops.log(ops.abs(ops.sin(math.pi * x))) - above
    return ops.where(small, mirrored, above)


def _adjoint(attributes: _Attributes, matrix: Any) -> Any:
    return ops.swapaxes(matrix, -1, -2) if attributes.get("adjoint") else matrix


def _in_top_k(g: Lowering, _: _Attributes, predictions: ir.Value, targets: ir.Value, k: ir.Value) -> Any:
    return g.call(lambda t, p: ops.in_top_k(t, p, int(known_elements(k))), targets, predictions)


def _random(kind: str) -> Handler:
    """Make a handler for draws from a key or a seed; only the distribution is the same."""

    def handler(g: Lowering, attributes: _Attributes, shape: ir.Value, *_: Any) -> Any:
        dtype = ir.DataType(attributes["dtype"]).numpy().name
        return g.unwrap(randomness.SAMPLERS[kind](g, numbers_in(g, shape), dtype=dtype))

    return handler


def _random_integers(g: Lowering, attributes: _Attributes, shape: ir.Value, *inputs: ir.Value) -> Any:
    *_, low, high = g.wrap(inputs)
    return g.unwrap(randomness.SAMPLERS["randint"](g, numbers_in(g, shape), low, high, dtype=low.dtype))


def _random_gamma(g: Lowering, _: _Attributes, shape: ir.Value, *inputs: ir.Value) -> Any:
    alpha = g.wrap(inputs[-1])
    return g.unwrap(randomness.SAMPLERS["gamma"](g, numbers_in(g, shape), alpha, dtype=alpha.dtype))


def numbers_in(g: Lowering, shape: ir.Value) -> list[Any]:
    """Return the elements of a vector, as numbers or symbols."""
    if shape.const_value is not None:
        known: list[Any] = shape.const_value.numpy().tolist()
        return known
    if shape.shape is None or not isinstance(shape.shape[0], int):
        raise UntraceableError("the rank of a tensor within it is not known")
    return [g.wrap(g.op.Gather(shape, g.constant(np.int64(n), "axis"))) for n in range(shape.shape[0])]


def _project(
    g: Lowering,
    attributes: _Attributes,
    images: ir.Value,
    transforms: ir.Value,
    size: ir.Value,
    fill: ir.Value,
) -> Any:
    options = {name: attributes[name].lower() for name in ("interpolation", "fill_mode")}
    sizes, fill_value = numbers_in(g, size), float(known_elements(fill))
    return g.call(lambda x, t: project(x, t, sizes, fill_value=fill_value, **options), images, transforms)


def _key(g: Lowering, _: _Attributes, seed: ir.Value) -> Any:
    """Return a key and a counter for draws; `_random` ignores both."""
    g.state.draw(seed)
    return g.constant(np.zeros(1, np.int64), "key"), g.constant(np.zeros(2, np.int64), "counter")


def _rfft(g: Lowering, _: _Attributes, x: ir.Value, length: ir.Value) -> Any:
    return g.call(lambda value: ops.rfft(value, int(known_elements(length)[0])), x)


def _pad_parts(g: Lowering, _: _Attributes, x: Any, paddings: ir.Value) -> Any:
    return tuple(g.op.Pad(part, known_elements(paddings).T.reshape(-1).tolist()) for part in x)


def _irfft(g: Lowering, _: _Attributes, x: Any, length: ir.Value) -> Any:
    return g.call(lambda value: ops.irfft(value, int(known_elements(length)[0])), x)


def _ifft(_: _Attributes, x: Any) -> Any:
    real, imaginary = ops.fft((x[0], -x[1]))
    length = ops.cast(ops.shape(real)[-1], real.dtype)
    return real / length, -imaginary / length


def _rows_first(pair: Any) -> Any:
    return tuple(ops.swapaxes(part, -1, -2) for part in pair)


def _of_rows(x: Any, rows: int) -> Any:
    """Truncate, or pad with zeros, to a number of rows."""
    if x.shape[-2] == rows:
        return x
    return ops.pad(x, [(0, 0)] * (len(x.shape) - 2) + [(0, rows), (0, 0)])[..., :rows, :]


def _rfft2d(g: Lowering, _: _Attributes, x: ir.Value, lengths: ir.Value) -> Any:
    rows, columns = (int(length) for length in known_elements(lengths))
    return g.call(
        lambda value: _rows_first(ops.fft(_rows_first(ops.rfft(_of_rows(value, rows), columns)))), x
    )


def _irfft2d(g: Lowering, attributes: _Attributes, x: Any, lengths: ir.Value) -> Any:
    rows, columns = (int(length) for length in known_elements(lengths))

    def fn(real: Any, imaginary: Any) -> Any:
        pair = _rows_first((_of_rows(real, rows), _of_rows(imaginary, rows)))
        return ops.irfft(_rows_first(_ifft(attributes, pair)), columns)

    return g.call(fn, *x)


def _find(g: Lowering, _: _Attributes, table: Any, keys: ir.Value, default: ir.Value) -> Any:
    missing = known_elements(default)
    kinds = {"Tkeys": tf.as_dtype(_numpy(keys)), "Tvalues": tf.as_dtype(missing.dtype)}
    known, values = tf.raw_ops.LookupTableExportV2(table_handle=table, **kinds)
    return look_up(g, keys, known.numpy().reshape(-1), values.numpy().reshape(-1), missing)


def _numpy(x: ir.Value) -> Any:
    assert x.dtype is not None
    return object if x.dtype == ir.DataType.STRING else x.dtype.numpy()


def _size(g: Lowering, _: _Attributes, table: Any) -> Any:
    return g.constant(tf.raw_ops.LookupTableSizeV2(table_handle=table).numpy())


def _export(*_: Any) -> Any:
    raise UntraceableError(
        "TensorFlow orders the keys of a table differently in each process; return a list of them"
    )


def _equal(g: Lowering, _: _Attributes, x: ir.Value, y: ir.Value) -> Any:
    if g.opset < _OPSET_OF_EQUAL_TEXTS:
        raise UntraceableError(f"texts are compared from opset {_OPSET_OF_EQUAL_TEXTS} on; choose --opset 21")
    return g.op.Equal(x, y)


def _one_hot(
    g: Lowering, attributes: _Attributes, ids: ir.Value, depth: ir.Value, on: ir.Value, off: ir.Value
) -> Any:
    axis = attributes.get("axis", -1)
    if ids.shape is None and axis >= 0:
        raise UntraceableError("the rank of the indices of tf.one_hot is not known")
    behind = 0 if axis < 0 or ids.shape is None else len(ids.shape) - axis
    classes = g.op.Reshape(_numbers(g, depth), [-1, *[1] * behind])
    return g.op.Where(g.op.Equal(g.op.Unsqueeze(g.cast(ids, "int64"), [axis]), classes), on, off)


def _numbers(g: Lowering, count: ir.Value) -> ir.Value:
    """Return 0, 1, ... below a count."""
    if count.const_value is not None:
        return g.constant(np.arange(int(known_elements(count)), dtype=np.int64), "classes")
    return g.op.Range(0, scalar(g, count), 1)


def _adjust_saturation(_: _Attributes, images: Any, scale: Any) -> Any:
    hue, saturation, value = ops.unstack(
        ops.image.rgb_to_hsv(images, data_format="channels_last"), 3, axis=-1
    )
    hsv = ops.stack([hue, ops.clip(saturation * scale, 0.0, 1.0), value], axis=-1)
    return ops.image.hsv_to_rgb(hsv, data_format="channels_last")


def _fake_quant(attributes: _Attributes, x: Any, low: Any, high: Any) -> Any:
    """Round to the values that a quantized tensor can represent, of which one is zero.

    Follows TensorFlow's kernel (`fake_quant_ops_functor.h`, `Nudge`) operation by operation, for equal
    rounding of ties.
    """
    least, most = float(attributes.get("narrow_range", 0)), float(2 ** attributes.get("num_bits", 8) - 1)
    scale = (high - low) / (most - least)
    zero = ops.clip(ops.floor(least - low / scale + 0.5), least, most)
    low, high = (least - zero) * scale, (most - zero) * scale
    clipped = ops.minimum(ops.maximum(x, low), high)
    return ops.floor((clipped - low) / scale - (zero - least) + 0.5) * scale


def _fake_quant_to(attributes: _Attributes, x: Any) -> Any:
    bounds = (np.float32(attributes.get(name, default)) for name, default in (("min", -6.0), ("max", 6.0)))
    return _fake_quant(attributes, x, *map(ops.convert_to_tensor, bounds))


_HANDLERS: dict[str, Handler] = {
    "AdjustSaturation": _of_keras(_adjust_saturation),
    "Angle": _of_keras(lambda _, x: ops.arctan2(x[1], x[0])),
    "BesselI0": _of_keras(lambda _, x: ops.i0(x)),
    "BroadcastArgs": _of_keras(_broadcast_args),
    "Bucketize": _of_keras(lambda attributes, x: ops.digitize(x, np.asarray(attributes["boundaries"]))),
    "Cholesky": _of_keras(lambda _, x: ops.cholesky(x)),
    "Complex": lambda g, _, real, imaginary: (real, imaginary),
    "ComplexAbs": _of_keras(lambda _, x: ops.sqrt(ops.square(x[0]) + ops.square(x[1]))),
    "Conj": lambda g, _, x: (x[0], g.op.Neg(x[1])),
    "Cross": _of_keras(lambda _, a, b: ops.cross(a, b)),
    "Einsum": _of_keras(lambda attributes, *xs: ops.einsum(attributes["equation"], *xs)),
    "EqualTexts": _equal,
    "Erfc": _of_keras(erfc),
    "Erfinv": _of_keras(lambda _, x: ops.erfinv(x)),
    "Expm1": _of_keras(lambda _, x: ops.expm1(x)),
    "FFT": _of_keras(lambda _, x: ops.fft(x)),
    "FFT2D": _of_keras(lambda _, x: ops.fft2(x)),
    "FakeQuantWithMinMaxArgs": _of_keras(_fake_quant_to),
    "FakeQuantWithMinMaxVars": _of_keras(_fake_quant),
    "FakeQuantWithMinMaxVarsPerChannel": _of_keras(_fake_quant),
    "HSVToRGB": _of_keras(lambda _, x: ops.image.hsv_to_rgb(x, data_format="channels_last")),
    "IFFT": _of_keras(_ifft),
    "IFFT2D": _of_keras(lambda _, x: ops.ifft2(x)),
    "IRFFT": _irfft,
    "IRFFT2D": _irfft2d,
    "Imag": lambda g, _, x: x[1],
    "ImageProjectiveTransformV3": _project,
    "InTopKV2": _in_top_k,
    "Lgamma": _of_keras(_lgamma),
    "Log1p": _of_keras(lambda _, x: ops.log1p(x)),
    "LookupTableExportV2": _export,
    "LookupTableFindV2": _find,
    "LookupTableSizeV2": _size,
    "MatrixInverse": _of_keras(lambda attributes, x: ops.inv(_adjoint(attributes, x))),
    "MatrixSolve": _of_keras(lambda attributes, a, b: ops.solve(_adjoint(attributes, a), b)),
    "NotEqualTexts": lambda g, _, x, y: g.op.Not(_equal(g, _, x, y)),
    "OneHotOrNone": _one_hot,
    "PadParts": _pad_parts,
    "RFFT": _rfft,
    "RFFT2D": _rfft2d,
    "RGBToHSV": _of_keras(lambda _, x: ops.image.rgb_to_hsv(x, data_format="channels_last")),
    "Real": lambda g, _, x: x[0],
    "SignBit": _of_keras(lambda _, x: ops.where(ops.signbit(x), np.iinfo(np.int32).min, 0)),
    "StatelessRandomGammaV3": _random_gamma,
    "StatelessRandomGetKeyCounter": _key,
    "StatelessRandomNormalV2": _random("normal"),
    "StatelessRandomUniformIntV2": _random_integers,
    "StatelessRandomUniformV2": _random("uniform"),
    "StatelessTruncatedNormalV2": _random("truncated_normal"),
    "StringToHashBucketFast": lambda g, attributes, x: bucket(g, x, attributes["num_buckets"]),
    "TruncatedNormal": _random("truncated_normal"),
    "Xdivy": _of_keras(_no_nan(ops.divide)),
    "Xlog1py": _of_keras(_no_nan(lambda x, y: x * ops.log1p(y))),
    "Xlogy": _of_keras(_no_nan(lambda x, y: x * ops.log(y))),
}

for _name, _handler in _HANDLERS.items():
    HANDLERS.add(f"tensorflow.{_name}", _handler)
