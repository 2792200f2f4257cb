"""Lower bounds of a model's time on a device: arithmetic, memory or launches, counted from its graph."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from kerve.runtime.devices.device import Device
from kerve.runtime.devices.libraries import load_packaged
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.sessions import providers_for
from kerve.runtime.session import RECORD, Session

__all__ = ["Counts", "bound", "count", "launches", "read_counts"]

# Minimum seconds between two kernel launches by CUDA's driver, on the machines measured so far.
LAUNCH = 2.5e-6


class Counts(NamedTuple):
    """Operations (two for each multiply-add) and bytes of a model."""

    # For each row.
    operations: float
    # Parameters, read once for each batch.
    weights: float
    # Bytes that products read and write for each row, except parameters.
    activations: float
    # Inputs for each row, copied from the host.
    inputs: float


def count(file: Path) -> Counts:
    """Count a model's products for one row; needs onnx."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param:
            first.ClearField("dim_param")
            first.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model).graph
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    shapes = {name: array.shape for name, array in weights.items()}
    sizes = {name: array.itemsize for name, array in weights.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        shapes[value.name] = tuple(dim.dim_value or 1 for dim in tensor.shape.dim)
        if tensor.elem_type != onnx.TensorProto.STRING:
            sizes[value.name] = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize
    operations = activations = 0.0
    for node in graph.node:
        if node.op_type in OPERATIONS and all(name in shapes for name in (*node.input[:2], node.output[0])):
            operations += 2 * OPERATIONS[node.op_type](
                *(shapes[name] for name in (*node.input[:2], node.output[0])), node
            )
            moved = [name for name in (*node.input, *node.output) if name in shapes and name not in weights]
            activations += sum(prod(shapes[name]) * sizes.get(name, 4) for name in moved)
    return Counts(
        operations,
        float(sum(array.nbytes for array in weights.values())),
        activations,
        float(sum(prod(shapes[each.name]) * sizes.get(each.name, 4) for each in graph.input)),
    )


def recurrent(x: tuple[int, ...], w: tuple[int, ...], _: tuple[int, ...], __: Any) -> int:
    """Return the multiplications of a recurrent layer: of input and state by the gates' matrices."""
    directions, gates, inputs = w
    hidden = gates // 4
    return x[0] * x[1] * directions * gates * (inputs + hidden)


def general(a: tuple[int, ...], b: tuple[int, ...], y: tuple[int, ...], node: Any) -> int:
    """Return the multiplications of a Gemm."""
    del b
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return prod(y) * (a[0] if transposed else a[1])


# Multiplications of a product, by the shapes of its first two inputs and its output.
OPERATIONS: Mapping[str, Callable[..., int]] = {
    "Conv": lambda _x, w, y, _node: prod(y) * prod(w[1:]),
    "MatMul": lambda a, _b, y, _node: prod(y) * a[-1],
    "Gemm": general,
    "LSTM": recurrent,
}


def read_counts(file: Path) -> Mapping[str, Counts]:
    """Return the counts written with the artifacts; empty if there are none."""
    if not file.exists():
        return {}
    return {name: Counts(*numbers) for name, numbers in json.loads(file.read_text()).items()}


@cache
def launches(file: Path, device: Device) -> int:
    """Return the number of nodes that a device computes for a batch: each launches at least one kernel."""
    if device.kind != "cpu":
        load_packaged()
    providers = providers_for(device, CudaOptions(), enable_cuda_graph="0")
    with closing(Session(file, threads=1, providers=providers, entries={RECORD: "1"})) as session:
        return sum(each.provider == device.providers[0] for each in session.assignments())


def bound(
    counts: Counts, rows: int, seconds: float, precision: str, nodes: int, peaks: Mapping[str, float]
) -> str:
    """Describe the lower bounds of a batch's time, and the largest of them."""
    operations = counts.operations * rows
    moved = counts.weights + counts.activations * rows
    host = counts.inputs * rows
    parts = {
        f"arithmetic ({operations / 1e9:.2f} GFLOP)": operations / peaks[precision] if peaks else 0.0,
        f"device memory ({moved / 1e6:.1f} MB)": moved / peaks["bytes"] if peaks else 0.0,
        f"host memory ({host / 1e6:.2f} MB)": host / peaks["host bytes"] if peaks else 0.0,
        f"launches ({nodes})": nodes * LAUNCH,
    }
    most = max(parts, key=lambda part: parts[part])
    shown = ", ".join(f"{part} {taken * 1e3:.3f} ms" for part, taken in parts.items())
    return f"{seconds * 1e3:.3f} ms for {rows}; at least: {shown}; bound by {most.partition(' (')[0]}"
