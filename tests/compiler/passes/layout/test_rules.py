"""Every operator with a rule works between convolutions without a Transpose, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

Make = Callable[[Any, Any], Any]


def _int32(e: Any, *values: int) -> Any:
    return e.constant(np.array(values, dtype=np.int32), "bounds")


def _pooled(e: Any, x: Any) -> Any:
    return e.spatial("MaxPool", x, kernel_shape=[3, 1], pads=[1, 0, 1, 0])


def _flat(e: Any, x: Any) -> Any:
    return e.op.Reshape(x, e.ints(-1, 96))


def _two_heads(e: Any, x: Any) -> Any:
    return e.op.Concat(e.dense(_flat(e, x), 2), e.dense(_flat(e, x), 3), axis=1)


def _rows_of_channels(e: Any, x: Any) -> Any:
    return e.op.ReduceSum(_gather(e, x, 3, [[1, 0], [2, 2]]), e.ints(1, 2), keepdims=0)


def _gather(e: Any, x: Any, axis: int, indices: Any) -> Any:
    return e.op.Gather(x, e.constant(np.array(indices, dtype=np.int64), "indices"), axis=axis)


def _halves(e: Any, x: Any, axis: int) -> Any:
    left, right = e.op.Split(x, num_outputs=2, axis=axis, _outputs=2)
    return e.op.Concat(e.op.Relu(left), right, axis=axis)


def _padded(e: Any, x: Any, **attributes: Any) -> Any:
    return e.op.Pad(x, e.ints(0, 1, 2, 0, 0, 3, 1, 0), **attributes)


def _times_height(e: Any, x: Any) -> Any:
    return e.op.Mul(x, e.op.Cast(e.op.Shape(x, start=1, end=2), to=int(ir.DataType.FLOAT)))


def _times_sizes(e: Any, x: Any) -> Any:
    """[N, H, W, C] * [4]: all four sizes, each for one channel."""
    return e.op.Mul(x, e.op.Cast(e.op.Shape(x), to=int(ir.DataType.FLOAT)))


def _expanded(e: Any, x: Any) -> Any:
    mean = e.op.ReduceMean(x, e.ints(1, 2), keepdims=1)
    return e.op.Add(e.op.Expand(mean, e.op.Shape(x)), e.op.Expand(mean, e.ints(1, 4, 6, 4)))


def _dynamic_vector(e: Any, x: Any) -> Any:
    """A vector of the channels that is not a constant."""
    scale = e.op.Sigmoid(e.op.ReduceMean(x, e.ints(0, 1, 2), keepdims=0))
    return e.op.Mul(scale, x)


# The image is [batch, 4, 6, 4], its channels last.
FIRES: list[Any] = [
    pytest.param(lambda e, x: e.op.Relu(x), id="activation"),
    pytest.param(lambda e, x: e.op.Clip(x, 0.0, 6.0), id="clip"),
    pytest.param(lambda e, x: e.op.PRelu(x, e.weight(1, 1, 4)), id="prelu over shared axes"),
    pytest.param(lambda e, x: e.op.Add(x, e.weight(4)), id="a constant for each channel"),
    pytest.param(lambda e, x: e.op.Sub(e.weight(6, 1), x), id="a constant for each column"),
    pytest.param(lambda e, x: e.op.Mul(x, e.weight(1, 4, 6, 4)), id="a constant for each element"),
    pytest.param(_dynamic_vector, id="a computed vector of the channels"),
    pytest.param(lambda e, x: e.op.Where(e.op.Less(x, 0.1), x, e.op.Abs(x)), id="where"),
    pytest.param(lambda e, x: e.op.Mul(x, e.op.Cast(e.op.Cast(x, to=6), to=1)), id="cast"),
    pytest.param(lambda e, x: e.op.Concat(x, e.op.Neg(x), axis=3), id="concat of channels"),
    pytest.param(lambda e, x: e.op.Concat(x, x, axis=-2), id="concat of columns"),
    pytest.param(
        lambda e, x: e.op.Concat(
            x, e.op.Expand(e.weight(1, 1, 1, 2), e.op.Concat(e.op.Shape(x, end=3), e.ints(2), axis=0)), axis=3
        ),
        id="concat with a constant",
    ),
    pytest.param(lambda e, x: _halves(e, x, -1), id="split of channels"),
    pytest.param(lambda e, x: _halves(e, x, 1), id="split of rows"),
    pytest.param(lambda e, x: e.op.Slice(x, e.ints(1, 0), e.ints(4, 2), e.ints(1, 3)), id="slice"),
    pytest.param(lambda e, x: e.op.Slice(x, e.ints(0, 1), e.ints(9, 3)), id="slice of the first axes"),
    pytest.param(lambda e, x: e.op.Slice(x, _int32(e, 1), _int32(e, 3)), id="slice by int32"),
    pytest.param(lambda e, x: e.op.Slice(x, e.ints(-1), e.ints(-99), e.ints(2), e.ints(-1)), id="flip"),
    pytest.param(lambda e, x: _padded(e, x), id="pad"),
    pytest.param(lambda e, x: _padded(e, x, mode="reflect"), id="pad by reflection"),
    pytest.param(lambda e, x: e.op.Pad(x, e.ints(1, 2), None, e.ints(-2)), id="pad of one axis"),
    pytest.param(lambda e, x: e.op.Tile(x, e.ints(1, 2, 1, 3)), id="tile"),
    pytest.param(_expanded, id="expand to a shape that is known, and one that is not"),
    pytest.param(lambda e, x: _gather(e, x, 3, [2, 0]), id="gather of channels"),
    pytest.param(lambda e, x: e.op.Mul(x, e.op.ReduceMax(x, e.ints(3), keepdims=1)), id="spatial attention"),
    pytest.param(lambda e, x: e.op.Div(x, e.op.ReduceL2(x, e.ints(-1), keepdims=1)), id="unit norm"),
    pytest.param(_times_height, id="one size"),
    pytest.param(_times_sizes, id="all sizes"),
    pytest.param(lambda e, x: e.op.Squeeze(e.op.Unsqueeze(x, e.ints(2)), e.ints(2)), id="unsqueeze, squeeze"),
    pytest.param(lambda e, x: e.op.Reshape(x, e.ints(-1, 6, 4, 4)), id="rows and columns cut anew"),
    pytest.param(lambda e, x: e.op.Reshape(x, e.ints(-1, 4, 6, 1, 4)), id="an axis of size one"),
    pytest.param(lambda e, x: e.dense(x, 3), id="dense"),
    pytest.param(lambda e, x: e.op.Relu(e.batch_normalization(e.op.Relu(x))), id="batch normalization"),
    pytest.param(
        lambda e, x: e.op.TopK(e.op.Relu(x), e.ints(2), axis=-1, _outputs=2)[0], id="top k channels"
    ),
]


def _between_convolutions(e: Any, make: Make) -> Any:
    x = e.conv(e.input("batch", 4, 6, 2), 4)
    y = make(e, x)
    assert y.shape is not None
    channels = y.shape[-1]
    y.shape = ir.Shape([*y.shape.dims[:-1], channels if isinstance(channels, int) else 6])
    return e.model(e.global_average(e.conv(y, 3)))


@pytest.mark.parametrize("make", FIRES)
def test_between_convolutions_no_transpose_is_left(
    emitter: Any, optimized: Callable[..., Any], make: Make
) -> None:
    assert optimized(_between_convolutions(emitter, make))["Transpose"] == 1


def test_an_axis_whose_size_can_only_be_one_is_no_axis(emitter: Any, optimized: Callable[..., Any]) -> None:
    """It is cut to a computed size, and all others hold everything that there is."""
    e = emitter
    x = e.conv(e.input(2, 4, 6, 2), 4)
    rows = e.op.Shape(e.input("rows", name="rows"))
    y = e.op.Reshape(x, e.op.Concat(e.ints(2, 4), e.op.Div(rows, rows), e.ints(6, 4), axis=0))
    y.shape = ir.Shape([2, 4, None, 6, 4])
    assert optimized(e.model(e.global_average(e.conv(y, 3))))["Transpose"] == 1


ENDS: list[Any] = [
    pytest.param(lambda e, x: e.op.ArgMax(x, axis=3, keepdims=0), id="argmax of channels"),
    pytest.param(lambda e, x: e.op.ReduceMean(x, e.ints(1, 2), keepdims=0), id="mean of the image"),
    pytest.param(lambda e, x: e.op.ReduceMax(x, e.ints(-1), keepdims=0), id="maximum of channels"),
    pytest.param(lambda e, x: e.op.ReduceSum(x, keepdims=0), id="sum of all"),
    pytest.param(lambda e, x: _gather(e, x, 3, 1), id="one channel"),
    pytest.param(lambda e, x: _rows_of_channels(e, x), id="gather of channels by two axes"),
    pytest.param(lambda e, x: e.op.Shape(x), id="shape"),
    pytest.param(lambda e, x: e.op.Size(x), id="size"),
    pytest.param(lambda e, x: e.global_average(x), id="global pooling"),
    pytest.param(lambda e, x: e.dense(_flat(e, x), 3), id="flatten, dense"),
    pytest.param(lambda e, x: e.dense(e.op.Flatten(x, axis=1), 3), id="flatten operator, dense"),
    pytest.param(
        lambda e, x: e.dense(e.batch_normalization(e.op.Relu(_flat(e, x))), 3),
        id="flatten, normalization, dense",
    ),
    pytest.param(
        lambda e, x: e.op.Gemm(_flat(e, x), e.weight(3, 96), e.weight(3), transB=1), id="flatten, gemm"
    ),
    pytest.param(lambda e, x: _two_heads(e, x), id="flatten, two heads"),
]


@pytest.mark.parametrize("make", ENDS)
def test_where_the_image_ends_no_transpose_is_left(
    emitter: Any, optimized: Callable[..., Any], make: Make
) -> None:
    e = emitter
    assert optimized(e.model(make(e, e.conv(e.input("batch", 4, 6, 2), 4))))["Transpose"] == 1


STAYS: list[Any] = [
    pytest.param(lambda e, x: e.op.LayerNormalization(x, e.weight(4), axis=-1), 3, id="layer normalization"),
    pytest.param(lambda e, x: e.op.Reshape(x, e.ints(-1, 6, 8, 2)), 3, id="channels and columns mixed"),
    pytest.param(
        lambda e, x: e.op.MatMul(x, e.op.Transpose(x, perm=[0, 1, 3, 2])), 4, id="products of its own"
    ),
    pytest.param(
        lambda e, x: e.op.CumSum(x, e.constant(np.array(1)), exclusive=0), 3, id="operator without a rule"
    ),
]


@pytest.mark.parametrize(("make", "transposes"), STAYS)
def test_what_needs_the_channels_last_gets_them(
    emitter: Any, optimized: Callable[..., Any], make: Make, transposes: int
) -> None:
    assert optimized(_between_convolutions(emitter, make))["Transpose"] == transposes


def test_a_dense_image_takes_the_order_into_its_weights(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.op.Relu(e.batch_normalization(e.dense(e.input("batch", 5), 96)))
    assert (
        optimized(e.model(e.global_average(e.conv(e.op.Reshape(x, e.ints(-1, 4, 6, 4)), 3))))["Transpose"]
        == 0
    )


def test_features_that_are_also_an_output_keep_their_order(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    flat = e.op.Reshape(e.conv(e.input("batch", 4, 6, 2), 4), e.ints(-1, 96))
    assert optimized(e.model(e.dense(flat, 3), flat))["Transpose"] == 2


def test_weights_that_two_flattened_images_share_are_reordered_once(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    kernel = e.weight(96, 3)
    images = [e.conv(e.input("batch", 4, 6, 2, name=name), 4) for name in ("a", "b")]
    model = e.model(*(e.op.MatMul(e.op.Reshape(image, e.ints(-1, 96)), kernel) for image in images))
    assert optimized(model)["Transpose"] == 2
    matrices = [name for name, value in model.graph.initializers.items() if len(value.shape or ()) == 2]
    assert matrices == [kernel.name]


def test_a_convolution_of_one_point_among_sequences_becomes_a_product(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    """As in a transformer whose feed-forward part is Conv1D."""
    e = emitter
    x = e.input("batch", "time", 8)
    for _ in range(2):
        y = e.op.LayerNormalization(x, e.weight(8), axis=-1)
        x = e.op.Add(x, e.conv(e.op.Relu(e.conv(y, 16, 1)), 8, 1))
    counts = optimized(e.model(x))
    assert (counts["Transpose"], counts["Conv"], counts["MatMul"]) == (0, 0, 4)


def test_batch_normalization_of_a_sequence_becomes_a_scale_and_a_shift(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    counts = optimized(e.model(e.batch_normalization(e.op.Relu(e.input("batch", "time", 8)))))
    assert (counts["Transpose"], counts["BatchNormalization"], counts["Mul"]) == (0, 0, 1)


@pytest.mark.parametrize("opset", [17, 21])
def test_global_pooling_of_a_sequence_becomes_a_mean(
    emitters: Any, optimized: Callable[..., Any], opset: int
) -> None:
    e = emitters(opset)
    counts = optimized(e.model(e.global_average(e.op.Relu(e.input("batch", "time", 8)))))
    assert (counts["Transpose"], counts["ReduceMean"]) == (0, 1)


def test_attention_keeps_its_transposes(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.input("batch", 5, 8)
    query, key, value = (e.op.Reshape(e.dense(x, 8), e.ints(-1, 5, 2, 4)) for _ in range(3))
    query, value = (e.op.Transpose(tensor, perm=[0, 2, 1, 3]) for tensor in (query, value))
    scores = e.op.Softmax(e.op.MatMul(e.op.Mul(query, 0.5), e.op.Transpose(key, perm=[0, 2, 3, 1])), axis=-1)
    heads = e.op.Transpose(e.op.MatMul(scores, value), perm=[0, 2, 1, 3])
    counts = optimized(e.model(e.dense(e.op.Reshape(heads, e.ints(-1, 5, 8)), 8)))
    assert counts["Transpose"] == 4


def test_a_network_of_its_author_with_channels_first_needs_nothing(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    x = e.op.Relu(e.op.Conv(e.input("batch", 3, 8, 8), e.weight(4, 3, 3, 3)))
    counts = optimized(e.model(e.op.GlobalAveragePool(e.op.Relu(e.op.Conv(x, e.weight(2, 4, 3, 3))))))
    assert counts["Transpose"] == 0


def test_a_permute_that_undoes_the_layout_cancels_with_it(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    """The author writes channels first, permutes to channels last for a layer, and back."""
    e = emitter
    x = e.op.Transpose(e.input("batch", 3, 8, 8), perm=[0, 2, 3, 1])
    x = e.op.Transpose(e.op.Relu(e.conv(x, 4)), perm=[0, 3, 1, 2])
    assert optimized(e.model(x))["Transpose"] == 0


def test_an_image_and_its_transposed_twin_add_up(emitter: Any, optimized: Callable[..., Any]) -> None:
    """Two layouts of one tensor meet: whatever is chosen, one Transpose between them remains."""
    e = emitter
    x = e.conv(e.input("batch", 4, 4, 4), 4)
    assert optimized(e.model(e.op.Add(x, e.op.Transpose(x, perm=[0, 3, 1, 2]))))["Transpose"] <= 3


@pytest.mark.parametrize("with_outer", [
    pytest.param(lambda b, own, x: b.op.Add(own, x), id="added"),
    pytest.param(lambda b, own, x: b.op.Add(own, _pooled(b, b.op.Relu(x))), id="pooled"),
    pytest.param(lambda b, own, x: b.op.Add(own, _pooled(b, b.op.Add(x, own))), id="both"),
])  # fmt: skip
def test_the_body_of_a_loop_is_arranged_too(
    emitter: Any, emitters: Any, optimized: Callable[..., Any], with_outer: Callable[..., Any]
) -> None:
    """A loop that convolves its state: inside, one Transpose comes in and one goes out."""
    e, body = emitter, emitters()
    x = e.op.Relu(e.conv(e.input("batch", 4, 4, 3), 3))
    step, keep = (
        ir.val(name, dtype, ir.Shape([]))
        for name, dtype in (("i", ir.DataType.INT64), ("c", ir.DataType.BOOL))
    )
    state = ir.val("state", ir.DataType.FLOAT, ir.Shape(["batch", 4, 4, 3]))
    body.graph.inputs.extend([step, keep, state])
    convolved = body.conv(body.op.Relu(body.conv(state, 3, bias=False)), 3, bias=False)
    following = with_outer(body, convolved, x)  # a tensor of the outer graph
    body.graph.outputs.extend([body.op.Identity(keep), following])
    loop = e.op.Loop(e.constant(np.array(2)), e.constant(np.array(True)), x, body=body.graph)
    loop.shape, loop.dtype = ir.Shape(["batch", 4, 4, 3]), ir.DataType.FLOAT
    counts = optimized(e.model(e.conv(loop, 2)))
    assert counts["Transpose"] <= 8
