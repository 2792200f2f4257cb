"""The models that `serving.py` serves, written as ONNX, and the bytes of one request to each."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(folder: Path) -> Path:
    """A 32-64-64-10 MLP: what Keras makes of three Dense layers, relu and softmax."""
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    sizes = (32, 64, 64, 10)
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        limit = np.sqrt(6 / (fan_in + fan_out))
        kernel = random.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32)
        weights += [
            numpy_helper.from_array(kernel, f"kernel{layer}"),
            numpy_helper.from_array(np.zeros(fan_out, np.float32), f"bias{layer}"),
        ]
        last = layer == len(sizes) - 2
        nodes += [
            helper.make_node("MatMul", [value, f"kernel{layer}"], [f"product{layer}"]),
            helper.make_node("Add", [f"product{layer}", f"bias{layer}"], [f"sum{layer}"]),
            helper.make_node(
                "Softmax" if last else "Relu", [f"sum{layer}"], ["y" if last else f"act{layer}"]
            ),
        ]
        value = f"act{layer}"
    return save(folder / "mlp.onnx", nodes, weights, ["batch", 32], ["batch", 10])


def network(folder: Path) -> Path:
    """A separable network at 224x224x3 with the cost of MobileNetV2: 600 KB requests, milliseconds each."""
    random = np.random.default_rng(0)
    nodes, weights, value, channels = [], [], "x", 3
    plan = [(32, 2, 1), (64, 2, 1), (96, 1, 2), (192, 2, 6), (320, 2, 6)]
    index = 0
    for out, stride, repeats in plan:
        for repeat in range(repeats):
            kernel = random.normal(0, 0.05, (out, channels, 3, 3) if index == 0 else (channels, 1, 3, 3))
            first = index == 0
            weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{index}"))
            step = stride if repeat == 0 else 1
            nodes.append(
                helper.make_node(
                    "Conv",
                    [value, f"w{index}"],
                    [f"c{index}"],
                    pads=[1] * 4,
                    strides=[step] * 2,
                    group=1 if first else channels,
                )
            )
            value = f"c{index}"
            if not first:
                pointwise = random.normal(0, 0.05, (out, channels, 1, 1)).astype(np.float32)
                weights.append(numpy_helper.from_array(pointwise, f"p{index}"))
                nodes.append(helper.make_node("Conv", [value, f"p{index}"], [f"q{index}"]))
                value = f"q{index}"
            nodes.append(helper.make_node("Relu", [value], [f"r{index}"]))
            value, channels, index = f"r{index}", out, index + 1
    classes = random.normal(0, 0.05, (channels, 1000)).astype(np.float32)
    weights.append(numpy_helper.from_array(classes, "classes"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "classes"], ["y"]),
    ]
    return save(folder / "network.onnx", nodes, weights, ["batch", 3, 224, 224], ["batch", 1000])


def summary(folder: Path) -> Path:
    """The same input as `network`, and next to no work: what is left is what the transport costs."""
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["corner"]),
        helper.make_node("Flatten", ["corner"], ["y"]),
    ]
    bounds = {"starts": [0, 0, 0], "ends": [1, 1, 10], "axes": [1, 2, 3]}
    weights = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in bounds.items()]
    return save(folder / "summary.onnx", nodes, weights, ["batch", 3, 224, 224], ["batch", 10])


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    takes: list[str | int],
    gives: list[str | int],
) -> Path:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, takes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, gives)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def request(shape: tuple[int, ...], file: Path) -> Path:
    """Write a ModelInferRequest of one FP32 tensor, by hand: it needs no generated code."""

    def field(number: int, payload: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(payload)) + payload

    data = np.random.default_rng(1).random(shape, np.float32).tobytes()
    sizes = b"".join(varint(size) for size in shape)
    tensor = field(1, b"x") + field(2, b"FP32") + field(3, sizes)
    file.write_bytes(field(1, b"model") + field(5, tensor) + field(7, data))
    return file


def varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
