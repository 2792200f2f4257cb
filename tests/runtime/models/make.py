"""Writes the small ONNX files beside it: `python tests/runtime/models/make.py`, where the onnx package is.

They are committed, because the runtime's tests run in an environment that has no onnx.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent

DATATYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bytes": TensorProto.STRING,
}

Shape = Sequence[int | str]


def write(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    weights: dict[str, np.ndarray] | None = None,
) -> None:
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(key, *value) for key, value in inputs.items()],
        [helper.make_tensor_value_info(key, *value) for key, value in outputs.items()],
        [numpy_helper.from_array(value, key) for key, value in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def echo(datatype: str) -> None:
    """y = x, for matrices of one datatype."""
    spec = (DATATYPES[datatype], ("batch", "width"))
    write(f"echo_{datatype}", [helper.make_node("Identity", ["x"], ["y"])], {"x": spec}, {"y": spec})


def classifier() -> None:
    """A dense layer and a softmax: two outputs, one input."""
    random = np.random.default_rng(0)
    write(
        "classifier",
        [
            helper.make_node("Gemm", ["features", "kernel", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"]),
        ],
        {"features": (TensorProto.FLOAT, ("batch", 4))},
        {"probabilities": (TensorProto.FLOAT, ("batch", 3)), "logits": (TensorProto.FLOAT, ("batch", 3))},
        {
            "kernel": random.normal(size=(4, 3)).astype(np.float32),
            "bias": random.normal(size=3).astype(np.float32),
        },
    )


def doubling() -> None:
    """An operator that only a library has; not among the others, which every server can load."""
    spec = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 2))
    doubled = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 2))
    node = helper.make_node("Double", ["x"], ["y"], domain="com.example")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(
        helper.make_graph([node], "doubling", [spec], [doubled]), opset_imports=opsets, ir_version=10
    )
    (HERE.parent / "operators" / "doubling.onnx").write_bytes(model.SerializeToString(deterministic=True))


def pair() -> None:
    """Two inputs that share their dimensions."""
    spec = (TensorProto.FLOAT, ("batch", "time"))
    write(
        "pair",
        [helper.make_node("Add", ["left", "right"], ["sum"])],
        {"left": spec, "right": spec},
        {"sum": spec},
    )


def scalar() -> None:
    """No dimensions at all, and so no batch."""
    spec = (TensorProto.DOUBLE, ())
    write("scalar", [helper.make_node("Neg", ["x"], ["y"])], {"x": spec}, {"y": spec})


def offset() -> None:
    """A constant that is an input, too: a request may replace it."""
    vector = (TensorProto.FLOAT, (2,))
    write(
        "offset",
        [helper.make_node("Add", ["x", "offset"], ["y"])],
        {"x": vector, "offset": vector},
        {"y": vector},
        {"offset": np.array([10, 20], np.float32)},
    )


def constant() -> None:
    """No inputs."""
    write(
        "constant",
        [helper.make_node("Identity", ["answer"], ["y"])],
        {},
        {"y": (TensorProto.INT64, (2,))},
        {"answer": np.array([4, 2], np.int64)},
    )


def lookup() -> None:
    """An embedding of ten rows: other indices are outside it."""
    write(
        "lookup",
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        {"ids": (TensorProto.INT64, ("batch", "time"))},
        {"rows": (TensorProto.FLOAT, ("batch", "time", 2))},
        {"table": np.arange(20, dtype=np.float32).reshape(10, 2)},
    )


def triples() -> None:
    """A reshape that fails within ONNX Runtime unless the width is a multiple of three."""
    write(
        "triples",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": (TensorProto.FLOAT, ("batch", "width"))},
        {"y": (TensorProto.FLOAT, ("rows", 3))},
        {"shape": np.array([-1, 3], np.int64)},
    )


def counter() -> None:
    """A loop that takes as long as it is told: total = steps, one by one."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still_go"]),
            helper.make_node("Add", ["sum", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("sum", TensorProto.INT64, ()),
        ],
        [
            helper.make_tensor_value_info("still_go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.INT64, ()),
        ],
    )
    write(
        "counter",
        [helper.make_node("Loop", ["steps", "", "zero"], ["total"], body=body)],
        {"steps": (TensorProto.INT64, ())},
        {"total": (TensorProto.INT64, ())},
        {"zero": np.array(0, np.int64), "one": np.array(1, np.int64)},
    )


def accumulator() -> None:
    """What Triton calls implicit state: total = sum_in + x, sum_out = total; and what it is told."""
    one, two = ("batch", 1), ("batch", 2)
    write(
        "accumulator",
        [
            helper.make_node("Add", ["sum_in", "x"], ["total"]),
            helper.make_node("Identity", ["total"], ["sum_out"]),
            *(
                helper.make_node("Cast", [name], [f"{name}_number"], to=TensorProto.INT64)
                for name in ("start", "end", "ready")
            ),
            helper.make_node(
                "Concat", ["start_number", "end_number", "ready_number", "id"], ["told"], axis=1
            ),
        ],
        {
            "x": (TensorProto.FLOAT, two),
            "start": (TensorProto.BOOL, one),
            "end": (TensorProto.INT32, one),
            "ready": (TensorProto.FLOAT, one),
            "id": (TensorProto.INT64, one),
            "sum_in": (TensorProto.FLOAT, two),
        },
        {
            "total": (TensorProto.FLOAT, two),
            "sum_out": (TensorProto.FLOAT, two),
            "told": (TensorProto.INT64, ("batch", 4)),
        },
    )


def stepper() -> None:
    """A state without a batch, as the compiler writes one: y = x + step, then step = step + 1."""
    write(
        "stepper",
        [
            helper.make_node("Add", ["x", "step"], ["y"]),
            helper.make_node("Add", ["step", "one"], ["step/next"]),
        ],
        {"x": (TensorProto.FLOAT, ("batch", 3)), "step": (TensorProto.FLOAT, ())},
        {"y": (TensorProto.FLOAT, ("batch", 3)), "step/next": (TensorProto.FLOAT, ())},
        {"one": np.array(1, np.float32)},
    )


def recurrent() -> None:
    """A GRU as others write it: of a sequence without steps ONNX Runtime ends the process."""
    weights = np.random.default_rng(0).random((1, 6, 5), np.float32)
    write(
        "recurrent",
        [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node("GRU", ["steps", "w", "r"], ["", "last"], hidden_size=2),
            helper.make_node("Squeeze", ["last", "axes"], ["y"]),
        ],
        {"x": (TensorProto.FLOAT, ("batch", "time", 3))},
        {"y": (TensorProto.FLOAT, ("batch", 2))},
        {"w": weights[..., :3], "r": weights[..., 3:], "axes": np.array([0])},
    )


if __name__ == "__main__":
    for each in DATATYPES:
        echo(each)
    others = (classifier, pair, scalar, offset, constant, lookup, triples, counter, accumulator, stepper)
    for model in (*others, recurrent, doubling):
        model()
