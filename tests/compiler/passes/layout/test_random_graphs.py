"""Whatever graph comes, it computes the same afterwards, with no more Transposes than before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

_LARGEST = 300

Draw = st.DataObject


def _sizes(x: Any) -> list[int]:
    assert x.shape is not None
    return [dim if isinstance(dim, int) else 2 for dim in x.shape]


def _reshape(e: Any, x: Any, *sizes: int) -> Any:
    """Reshape all but the batch."""
    y = e.op.Reshape(x, e.ints(-1, *sizes))
    assert x.shape is not None
    y.shape = ir.Shape([x.shape[0], *sizes])  # as Keras says
    return y


def _axis(data: Draw, x: Any) -> int:
    return data.draw(st.integers(0, len(_sizes(x)) - 1), label="axis")


def _axes(data: Draw, x: Any) -> list[int]:
    rank = len(_sizes(x))
    return sorted(data.draw(st.sets(st.integers(0, rank - 1), min_size=1, max_size=rank - 1), label="axes"))


def _unary(e: Any, data: Draw, x: Any) -> Any:
    op_type = data.draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "HardSwish", "Neg", "Softplus"]))
    return getattr(e.op, op_type)(x)


def _with_constant(e: Any, data: Draw, x: Any) -> Any:
    sizes = _sizes(x)
    kept = data.draw(st.integers(0, len(sizes)), label="rank of the constant")
    shape = [size if data.draw(st.booleans()) else 1 for size in sizes[len(sizes) - kept :]]
    if len(shape) == len(sizes):
        shape[0] = 1  # the batch is open
    constant = e.weight(*shape)
    operands = (x, constant) if data.draw(st.booleans()) else (constant, x)
    return getattr(e.op, data.draw(st.sampled_from(["Add", "Sub", "Mul"])))(*operands)


def _with_itself(e: Any, data: Draw, x: Any) -> Any:
    mean = e.op.ReduceMean(x, e.ints(*_axes(data, x)), keepdims=1)
    return e.op.Where(e.op.Greater(x, mean), x, e.op.Mul(mean, 0.5))


def _conv(e: Any, data: Draw, x: Any) -> Any:
    kernel = data.draw(st.sampled_from([1, 3]), label="kernel")
    return e.conv(x, data.draw(st.integers(1, 4), label="filters"), kernel, bias=data.draw(st.booleans()))


def _pool(e: Any, data: Draw, x: Any) -> Any:
    spatial = len(_sizes(x)) - 2
    op_type = data.draw(st.sampled_from(["AveragePool", "GlobalAveragePool", "GlobalMaxPool"]))
    if op_type == "AveragePool":
        return e.spatial(op_type, x, kernel_shape=[3] * spatial, pads=[1] * (2 * spatial))
    return e.spatial(op_type, x)


def _batch_normalization(e: Any, data: Draw, x: Any) -> Any:
    return e.batch_normalization(x)


def _squeeze_excite(e: Any, data: Draw, x: Any) -> Any:
    return e.squeeze_excite(x)


def _concat(e: Any, data: Draw, x: Any) -> Any:
    return e.op.Concat(x, e.op.Abs(x), axis=data.draw(st.integers(-len(_sizes(x)), len(_sizes(x)) - 1)))


def _split(e: Any, data: Draw, x: Any) -> Any:
    even = [axis for axis, size in enumerate(_sizes(x)) if axis and size % 2 == 0]
    if not even:
        return x
    left, right = e.op.Split(x, num_outputs=2, axis=data.draw(st.sampled_from(even)), _outputs=2)
    return e.op.Sub(left, right)


def _slice(e: Any, data: Draw, x: Any) -> Any:
    axis = data.draw(st.integers(1, len(_sizes(x)) - 1), label="axis")
    return e.op.Slice(x, e.ints(0), e.ints(max(1, _sizes(x)[axis] - 1)), e.ints(axis))


def _pad(e: Any, data: Draw, x: Any) -> Any:
    rank = len(_sizes(x))
    pads = data.draw(st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank), label="pads")
    pads[0] = pads[rank] = 0
    return e.op.Pad(x, e.ints(*pads))


def _reduce(e: Any, data: Draw, x: Any) -> Any:
    keep = data.draw(st.booleans(), label="keepdims")
    op_type = data.draw(st.sampled_from(["ReduceMean", "ReduceMax", "ReduceSum"]))
    axes = [axis for axis in _axes(data, x) if axis]
    return getattr(e.op, op_type)(x, e.ints(*axes), keepdims=int(keep)) if axes else x


def _arg_max(e: Any, data: Draw, x: Any) -> Any:
    axis = data.draw(st.integers(1, len(_sizes(x)) - 1), label="axis")
    keep = data.draw(st.booleans(), label="keepdims")
    return e.op.Cast(e.op.ArgMax(x, axis=axis, keepdims=int(keep)), to=int(ir.DataType.FLOAT))


def _softmax(e: Any, data: Draw, x: Any) -> Any:
    return e.op.Softmax(x, axis=_axis(data, x))


def _top_k(e: Any, data: Draw, x: Any) -> Any:
    axis = data.draw(st.integers(1, len(_sizes(x)) - 1), label="axis")
    values, _ = e.op.TopK(x, e.ints(1), axis=axis, _outputs=2)
    return values


def _gather(e: Any, data: Draw, x: Any) -> Any:
    axis = data.draw(st.integers(1, len(_sizes(x)) - 1), label="axis")
    shape = data.draw(st.sampled_from([(), (2,), (1, 2)]), label="shape of the indices")
    return e.op.Gather(x, e.constant(np.zeros(shape, dtype=np.int64), "indices"), axis=axis)


def _tile(e: Any, data: Draw, x: Any) -> Any:
    repeats = [
        1,
        *data.draw(st.lists(st.integers(1, 2), min_size=len(_sizes(x)) - 1, max_size=len(_sizes(x)) - 1)),
    ]
    return e.op.Tile(x, e.ints(*repeats))


def _unsqueeze(e: Any, data: Draw, x: Any) -> Any:
    return e.op.Unsqueeze(x, e.ints(data.draw(st.integers(1, len(_sizes(x))), label="axis")))


def _squeeze(e: Any, data: Draw, x: Any) -> Any:
    ones = [axis for axis, size in enumerate(_sizes(x)) if axis and size == 1]
    return e.op.Squeeze(x, e.ints(data.draw(st.sampled_from(ones)))) if ones else x


def _merge_axes(e: Any, data: Draw, x: Any) -> Any:
    sizes = _sizes(x)
    if len(sizes) < 3:
        return x
    axis = data.draw(st.integers(1, len(sizes) - 2), label="axis")
    return _reshape(e, x, *sizes[1:axis], sizes[axis] * sizes[axis + 1], *sizes[axis + 2 :])


def _cut_axis(e: Any, data: Draw, x: Any) -> Any:
    sizes = _sizes(x)
    axis = data.draw(st.integers(1, len(sizes) - 1), label="axis")
    factor = data.draw(st.sampled_from([n for n in (1, 2, 3) if sizes[axis] % n == 0]))
    return _reshape(e, x, *sizes[1:axis], factor, sizes[axis] // factor, *sizes[axis + 1 :])


def _flatten_dense(e: Any, data: Draw, x: Any) -> Any:
    flat = _reshape(e, x, int(np.prod(_sizes(x)[1:])))
    return _with_constant(e, data, e.op.Relu(e.dense(_with_constant(e, data, flat), 12)))


def _dense_image(e: Any, data: Draw, x: Any) -> Any:
    flat = _reshape(e, x, int(np.prod(_sizes(x)[1:])))
    return _reshape(e, e.op.Relu(e.dense(flat, 12)), 2, 3, 2)


def _transpose(e: Any, data: Draw, x: Any) -> Any:
    return e.op.Transpose(x, perm=[0, *data.draw(st.permutations(range(1, len(_sizes(x)))))])


def _normalize(e: Any, data: Draw, x: Any) -> Any:
    channels = _sizes(x)[-1]
    return e.op.LayerNormalization(x, e.weight(channels), e.weight(channels), axis=-1)


def _dense(e: Any, data: Draw, x: Any) -> Any:
    return e.dense(x, data.draw(st.integers(1, 4), label="units"))


def _times_size(e: Any, data: Draw, x: Any) -> Any:
    start = _axis(data, x)
    size = e.op.ReduceProd(e.op.Shape(x, start=start), keepdims=0)
    return e.op.Mul(x, e.op.Cast(size, to=int(ir.DataType.FLOAT)))


_SPATIAL = (
    _conv,
    _conv,
    _pool,
    _batch_normalization,
    _squeeze_excite,
)
_ANY = (
    _unary,
    _unary,
    _with_constant,
    _with_itself,
    _concat,
    _split,
    _slice,
    _pad,
    _reduce,
    _arg_max,
    _softmax,
    _top_k,
    _gather,
    _tile,
    _unsqueeze,
    _squeeze,
    _merge_axes,
    _cut_axis,
    _flatten_dense,
    _dense_image,
    _transpose,
    _normalize,
    _dense,
    _times_size,
)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_random_graph_stays_the_same_with_no_more_transposes(
    data: Draw, emitters: Any, optimized: Callable[..., Any]
) -> None:
    e = emitters()
    rank = data.draw(st.integers(3, 5), label="rank")
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=rank - 1, max_size=rank - 1), label="sizes")
    values = [e.input("batch", *sizes)]
    for _ in range(data.draw(st.integers(2, 9), label="nodes")):
        x = data.draw(st.sampled_from(values[-3:]), label="x")
        spatial = 3 <= len(_sizes(x)) <= 5
        make = data.draw(st.sampled_from((_SPATIAL * 3 + _ANY) if spatial else _ANY), label="operator")
        if len(_sizes(x)) < 2:
            break
        y = make(e, data, x)
        assert y.shape is not None
        sure = all(isinstance(dim, int) or dim.value is not None for dim in y.shape)
        twin = [other for other in values if sure and other.shape == y.shape and other is not y]
        if data.draw(st.booleans(), label="add to another") and twin:
            y = e.op.Add(y, data.draw(st.sampled_from(twin), label="other"))
        if 2 <= len(_sizes(y)) <= 6 and np.prod(_sizes(y)) <= _LARGEST:
            values.append(y)
    outputs = list(dict.fromkeys([values[-1], data.draw(st.sampled_from(values), label="another output")]))
    optimized(
        e.model(*(e.op.Mul(value, 0.5) if value.is_graph_input() else value for value in outputs)), atol=1e-4
    )
