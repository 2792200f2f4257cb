"""The models served by `serving.py`, and the bytes of one request to each.

    python serving_models.py mlp|mobilenet FOLDER

The Keras models are compiled by kerve in a separate process, to keep TensorFlow out of the measured process.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(folder: Path) -> Path:
    """Return the file of a 32-64-64-10 MLP."""
    return compiled("mlp", folder)


def mobilenet(folder: Path) -> Path:
    """Return the file of MobileNetV2 at 224x224x3: 600 KB requests, milliseconds each."""
    return compiled("mobilenet", folder)


def compiled(name: str, folder: Path) -> Path:
    model = folder / name / "1" / "model.onnx"
    if not model.exists():
        subprocess.run([sys.executable, __file__, name, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return model


def compile_keras(name: str, folder: Path) -> None:
    import keras

    from kerve.compiler import compile_model

    keras.utils.set_random_seed(0)
    if name == "mlp":
        hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
        layers = [keras.Input((32,), name="x"), *hidden, keras.layers.Dense(10, "softmax")]
        model = keras.Sequential(layers)
    else:
        image = keras.Input((224, 224, 3), name="x")
        model = keras.applications.MobileNetV2(weights=None, input_tensor=image)
    compile_model(model, repository=folder, name=name)


def summary(folder: Path) -> Path:
    """Return a model with the input of `mobilenet` and almost no work, to measure the transport's cost."""
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["corner"]),
        helper.make_node("Flatten", ["corner"], ["y"]),
    ]
    bounds = {"starts": [0, 0, 0], "ends": [1, 1, 3], "axes": [1, 2, 3]}
    weights = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in bounds.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 224, 224, 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "summary", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path = folder / "summary.onnx"
    onnx.save(model, str(path))
    return path


def request(shape: tuple[int, ...], file: Path, model: str = "model") -> Path:
    """Write a ModelInferRequest with one FP32 tensor, encoded here so that no generated code is needed."""

    def field(number: int, payload: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(payload)) + payload

    data = np.random.default_rng(1).random(shape, np.float32).tobytes()
    sizes = b"".join(varint(size) for size in shape)
    tensor = field(1, b"x") + field(2, b"FP32") + field(3, sizes)
    file.write_bytes(field(1, model.encode()) + field(5, tensor) + field(7, data))
    return file


def rest_request(shape: tuple[int, ...], file: Path, *, binary: bool) -> int:
    """Write the same request as a REST body; returns the length of its JSON part, 0 for all of it."""
    data = np.random.default_rng(1).random(shape, np.float32)
    tensor: dict[str, object] = {"name": "x", "shape": shape, "datatype": "FP32"}
    if not binary:
        file.write_text(json.dumps({"inputs": [{**tensor, "data": data.ravel().tolist()}]}))
        return 0
    raw, parameters = data.tobytes(), {"binary_data_output": True}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
    file.write_bytes(text + raw)
    return len(text)


def varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


if __name__ == "__main__":
    compile_keras(sys.argv[1], Path(sys.argv[2]))
