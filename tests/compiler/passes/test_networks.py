"""The shapes of well-known networks keep one Transpose at each image that comes in or goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest


def _mobilenet(e: Any) -> Any:
    x = e.op.HardSwish(
        e.batch_normalization(e.conv(e.input("batch", 16, 16, 3), 8, bias=False, strides=[2, 2]))
    )
    for _ in range(2):
        y = e.op.HardSwish(e.batch_normalization(e.conv(x, 16, 1, bias=False)))
        padded = e.op.Pad(y, e.ints(0, 1, 1, 0, 0, 1, 1, 0))
        y = e.op.HardSwish(e.batch_normalization(e.depthwise(padded, same=False)))
        x = e.op.Add(x, e.batch_normalization(e.conv(e.squeeze_excite(y), 8, 1, bias=False)))
    return e.model(e.dense(e.global_average(x), 10))


def _efficientnet(e: Any) -> Any:
    def swish(x: Any) -> Any:
        return e.op.Mul(x, e.op.Sigmoid(x))

    x = e.op.Mul(e.input("batch", 16, 16, 3), 1 / 255)
    x = e.op.Div(e.op.Sub(x, e.weight(3, name="mean")), e.constant([0.5, 0.4, 0.3], "deviation"))
    x = swish(e.batch_normalization(e.conv(x, 8)))
    pooled = e.op.Reshape(e.global_average(x), e.ints(-1, 1, 1, 8))
    excited = e.op.Sigmoid(e.conv(swish(e.conv(pooled, 2, 1)), 8, 1))
    x = e.conv(e.op.Mul(x, excited), 4, 1)
    return e.model(e.op.Softmax(e.dense(e.global_average(x), 5), axis=-1))


def _densenet(e: Any) -> Any:
    x = e.conv(e.input("batch", 12, 12, 3), 8)
    for _ in range(3):
        y = e.conv(e.op.Relu(e.batch_normalization(x)), 4)
        x = e.op.Concat(x, y, axis=3)
    x = e.spatial("AveragePool", e.conv(x, 6, 1), kernel_shape=[2, 2], strides=[2, 2])
    return e.model(e.dense(e.global_average(e.op.Relu(e.batch_normalization(x))), 3))


def _inception(e: Any) -> Any:
    x = e.input("batch", 12, 12, 3)
    branches = [
        e.op.Relu(e.conv(x, 4, 1)),
        e.op.Relu(e.conv(e.op.Relu(e.conv(x, 4, 1)), 4, 3)),
        e.conv(e.spatial("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 4, 1),
    ]
    x = e.max_pool(e.op.Concat(*branches, axis=-1), 3)
    return e.model(e.dense(e.global_average(x), 3))


def _nasnet(e: Any) -> Any:
    x = e.conv(e.input("batch", 15, 15, 3), 8)
    padded = e.op.Pad(x, e.ints(0, 0, 0, 0, 0, 1, 1, 0))
    cropped = e.op.Slice(padded, e.ints(1, 1), e.ints(16, 16), e.ints(1, 2))
    left = e.conv(e.spatial("AveragePool", cropped, kernel_shape=[1, 1], strides=[2, 2]), 4, 1)
    right = e.conv(e.spatial("AveragePool", x, kernel_shape=[1, 1], strides=[2, 2]), 4, 1)
    joined = e.batch_normalization(e.op.Concat(left, right, axis=3))
    cell = e.op.Add(e.depthwise(e.op.Relu(joined), 5), joined)
    return e.model(e.dense(e.global_average(e.op.Relu(e.op.Concat(cell, joined, axis=3))), 3))


def _unet(e: Any) -> Any:
    x = e.input("batch", 16, 16, 3)
    down = e.op.Relu(e.conv(x, 4))
    deep = e.op.Relu(e.conv(e.max_pool(down), 8))
    scales = e.constant([1.0, 1.0, 2.0, 2.0], "scales")
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    up = e.spatial("Resize", deep, None, scales, mode="nearest", **nearest)
    up.shape = ir.Shape(["batch", 16, 16, 8])  # as Keras says
    x = e.conv(e.op.Concat(up, down, axis=3), 4)
    return e.model(e.op.Softmax(e.conv(x, 2, 1), axis=-1))


def _vgg(e: Any) -> Any:
    x = e.max_pool(e.op.Relu(e.conv(e.input("batch", 8, 8, 3), 4)))
    x = e.op.Reshape(x, e.ints(-1, 4 * 4 * 4))
    return e.model(e.dense(e.op.Relu(e.dense(x, 8)), 3))


def _decoder(e: Any) -> Any:
    x = e.op.Relu(e.batch_normalization(e.dense(e.input("batch", 6), 3 * 5 * 4)))
    x = e.op.Reshape(x, e.ints(-1, 3, 5, 4))
    x = e.op.Relu(e.spatial("ConvTranspose", x, e.weight(4, 3, 2, 2), strides=[2, 2]))
    return e.model(e.op.Sigmoid(e.conv(x, 1)))


def _conv1d(e: Any) -> Any:
    x = e.input("batch", "time", 6)
    for _ in range(2):
        padded = e.op.Pad(x, e.ints(0, 2, 0, 0, 0, 0))
        y = e.op.Relu(e.batch_normalization(e.conv(padded, 6, 3, same=False)))
        x = e.op.Add(x, y)
    return e.model(e.dense(e.global_average(x), 3))


def _conv3d(e: Any) -> Any:
    x = e.op.Elu(e.batch_normalization(e.conv(e.input("batch", 6, 6, 6, 2), 4)))
    x = e.op.Add(e.op.Relu(e.conv(x, 4)), x)
    return e.model(e.dense(e.global_average(e.max_pool(x)), 3))


def _open_image(e: Any) -> Any:
    """A U-Net for images of any size, whose upsampled half is cut to the size of the other."""
    x = e.input("batch", "height", "width", 3)
    down = e.op.Relu(e.conv(x, 4))
    deep = e.conv(down, 4, strides=[2, 2])
    size = e.op.Shape(down, start=1, end=3)
    sizes = e.op.Concat(e.op.Shape(deep, start=0, end=1), e.ints(4), size, axis=0)
    up = e.channels_last(e.op.Resize(e.channels_first(deep), None, None, sizes, mode="linear"))
    up.shape = ir.Shape(["batch", None, None, 4])  # as Keras says
    return e.model(e.conv(e.op.Concat(up, down, axis=3), 2, 1))


NETWORKS = [
    pytest.param(_mobilenet, 1, id="MobileNetV3"),
    pytest.param(_efficientnet, 1, id="EfficientNet"),
    pytest.param(_densenet, 1, id="DenseNet"),
    pytest.param(_inception, 1, id="Inception"),
    pytest.param(_nasnet, 1, id="NASNet"),
    pytest.param(_unet, 2, id="U-Net"),
    pytest.param(_vgg, 1, id="VGG"),
    pytest.param(_decoder, 0, id="decoder, whose one channel goes out as it is"),
    pytest.param(_conv1d, 1, id="Conv1D"),
    pytest.param(_conv3d, 1, id="Conv3D"),
    pytest.param(_open_image, 2, id="U-Net of open size"),
]


@pytest.mark.parametrize(("network", "transposes"), NETWORKS)
def test_a_network_keeps_one_transpose_at_each_image(
    emitter: Any, optimized: Callable[..., Any], network: Callable[[Any], Any], transposes: int
) -> None:
    assert optimized(network(emitter))["Transpose"] == transposes


@pytest.mark.parametrize("opset", [17, 18, 21, 23])
def test_every_version_of_the_operator_set_comes_out_valid(
    emitters: Any, optimized: Callable[..., Any], opset: int
) -> None:
    assert optimized(_mobilenet(emitters(opset)))["Transpose"] == 1
