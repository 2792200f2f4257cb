"""ONNX files, written without a copy of the weights."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from kerve.compiler import serialization

#: Large enough to go from its array into the file.
_SHAPE = (64, 33)


def _graph_of(*tensors: ir.TensorProtocol) -> ir.Model:
    values = [
        ir.Value(
            name=each.name,
            shape=ir.Shape(each.shape.numpy()),
            type=ir.TensorType(each.dtype),
            const_value=each,
        )
        for each in tensors
    ]
    nodes = [ir.node("Identity", [value], name=f"node {value.name}") for value in values]
    for node in nodes:
        node.outputs[0].name = f"out {node.name}"
    graph = ir.Graph(
        [],
        [node.outputs[0] for node in nodes],
        nodes=nodes,
        initializers=values,
        name="graph",
        doc_string="of tensors",
        opset_imports={"": 21},
    )
    graph.metadata_props["kept"] = "yes"
    return ir.Model(graph, ir_version=10, producer_name="kerve")


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(ir.tensor(np.ones(_SHAPE, np.float32), name="w"), id="float32"),
        pytest.param(ir.tensor(np.ones(_SHAPE, np.float32).T, name="w"), id="transposed"),
        pytest.param(ir.tensor(np.ones(_SHAPE, ml_dtypes.bfloat16), name="w"), id="bfloat16"),
        pytest.param(ir.tensor(np.ones((128, 127), ml_dtypes.int4), name="w"), id="int4"),
        pytest.param(ir.tensor(np.arange(3), name="w"), id="small"),
        pytest.param(ir.tensor(np.empty((0, 4), np.float32), name="w"), id="empty"),
        pytest.param(ir.tensor(np.float32(1), name="w"), id="scalar"),
        pytest.param(ir.StringTensor([b"a" * 9999], shape=ir.Shape([1]), name="w"), id="strings"),
        pytest.param(ir.tensor(np.ones(_SHAPE), name="w", doc_string="told"), id="described"),
        pytest.param(
            ir.ExternalTensor("w", 0, 8448, ir.DataType.FLOAT, shape=ir.Shape(_SHAPE), name="w"), id="outside"
        ),
    ],
)
def test_the_file_is_what_protobuf_writes(tensor: ir.TensorProtocol, tmp_path: Path) -> None:
    model = _graph_of(ir.tensor(np.zeros(_SHAPE, np.int64), name="before"), tensor)
    serialization.write(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == ir.to_proto(model).SerializeToString()
    assert model.graph.initializers["w"].const_value is tensor


def test_weights_are_written_in_no_memory(tmp_path: Path) -> None:
    model = _graph_of(*(ir.tensor(np.ones(1 << 24, np.float32), name=name) for name in "ab"))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _memory("VmRSS")
    serialization.write(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 1 << 27
    assert _memory("VmHWM") - before < 1 << 25


def _memory(kind: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024
