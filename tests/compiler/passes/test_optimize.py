"""The pipeline as a whole: what it keeps, what it says, and that it says it twice alike."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from kerve.compiler.passes import Step, optimize
from kerve.compiler.passes.drop_identities import DropIdentities
from kerve.compiler.passes.name import NameCanonically
from kerve.compiler.passes.share_constants import ShareConstants

_DIGEST = """
import hashlib, sys
import onnx_ir as ir
from kerve.compiler.passes import optimize
model = ir.load(sys.argv[1])
print(hashlib.sha256(ir.serde.serialize_model(optimize(model)).SerializeToString()).hexdigest())
"""


def _network(e: Any) -> Any:
    x = e.layer("conv", e.conv(e.input("batch", 8, 8, 3, name="image"), 4, bias=False))
    x = e.layer("norm", e.batch_normalization(x))
    x = e.layer("block/act", e.op.Relu(x))
    x = e.layer("block/conv", e.squeeze_excite(x))
    return e.model(e.layer("head", e.dense(e.global_average(x), 2)), e.op.ReduceMax(x, e.ints(-1)))


def test_the_same_model_gives_the_same_bytes_in_any_process(emitter: Any, tmp_path: Path) -> None:
    model = _network(emitter)
    ir.save(model, tmp_path / "model.onnx")
    here = hashlib.sha256(
        ir.serde.serialize_model(optimize(ir.load(tmp_path / "model.onnx"))).SerializeToString()
    )
    there = subprocess.run(
        [sys.executable, "-c", _DIGEST, str(tmp_path / "model.onnx")],
        env={**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert there.stdout.strip() == here.hexdigest()


def test_nodes_and_values_are_named_after_layers_and_weights_after_variables(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    model = _network(emitter)
    optimized(model)
    names = [node.name for node in model.graph]
    assert len(set(names)) == len(names)
    assert "conv/Conv" in names
    assert "block/conv/Conv_1" in names
    assert {"kernel", "beta"} <= set(model.graph.initializers)
    assert [value.name for value in model.graph.inputs] == ["image"]
    assert [value.name for value in model.graph.outputs] == ["y0", "y1"]
    inner = [output for node in model.graph for output in node.outputs if not output.is_graph_output()]
    assert all(value.name == value.producer().name for value in inner if value.index() == 0)


def test_no_other_tool_leaves_notes_in_the_model(emitter: Any) -> None:
    model = optimize(_network(emitter))
    keys = {key for node in model.graph for key in node.metadata_props}
    assert keys <= {"kerve.layer"}
    assert not any(value.metadata_props for value in model.graph.initializers.values())
    assert not any(value.metadata_props for node in model.graph for value in node.outputs)


def test_an_observer_sees_every_pass_and_its_remarks(emitter: Any) -> None:
    steps: list[Step] = []
    e = emitter
    x = e.layer("bn", e.batch_normalization(e.op.Relu(e.input("batch", 4))))
    model = optimize(e.model(e.dense(e.op.Relu(x), 2)), steps.append)
    assert steps[-1].name == "NameCanonically"
    assert all(step.model is model for step in steps)
    assert all(one.nodes_after == other.nodes_before for one, other in itertools.pairwise(steps))
    remarks = [note for step in steps if step.name == "FoldAffine" for note in step.notes]
    assert any(note.startswith("bn/BatchNormalization") for note in remarks)


class _Untouchable:
    """Weights that must not be read: of any size, then, they cost nothing."""

    dtype, shape = np.dtype(np.float32), (30000, 30000)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AssertionError("the weights were read")


def test_weights_are_not_read_where_nothing_changes_them(emitter: Any) -> None:
    """30000 x 30000 single precision: 3.6 GB, more than a protobuf holds."""
    e = emitter
    tensor = ir.Tensor(_Untouchable(), dtype=ir.DataType.FLOAT, shape=ir.Shape([30000, 30000]), name="big")
    big = ir.Value(name="big", shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    e.graph.register_initializer(big)
    x = e.op.Relu(e.op.Identity(e.op.MatMul(e.input("batch", 30000), big)))
    x = e.op.Reshape(x, e.ints(-1, 300, 100, 1))
    model = optimize(e.model(e.global_average(e.op.Relu(e.conv(x, 2)))))
    assert model.graph.initializers["big"].const_value is tensor
    assert "Identity" not in {node.op_type for node in model.graph}


def test_equal_shapes_are_kept_once_and_equal_weights_apart(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    x = e.input("batch", 4)
    zeros = [e.constant(np.zeros(4), name) for name in ("a/bias", "b/bias")]
    ones = [e.op.Reshape(e.op.Add(x, bias), e.ints(-1, 2, 2)) for bias in zeros]
    model = e.model(*ones)
    optimized(model, ShareConstants())
    assert list(model.graph.initializers) == ["a/bias", "b/bias", "shape"]


def test_one_value_that_is_two_outputs_keeps_two_names(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    x = e.op.Relu(e.input("batch", 4))
    model = e.model(e.op.Identity(e.op.Identity(x)), x)
    assert optimized(model, DropIdentities()) == {"Relu": 1, "Identity": 1}


def test_an_input_that_is_an_output_keeps_its_identity(emitter: Any, optimized: Callable[..., Any]) -> None:
    e = emitter
    assert optimized(e.model(e.op.Identity(e.input("batch", 4)))) == {"Identity": 1}


def test_an_output_named_like_a_layer_does_not_clash_with_its_nodes(
    emitter: Any, optimized: Callable[..., Any]
) -> None:
    e = emitter
    x = e.layer("y/Relu", e.op.Relu(e.input("batch", 4, name="y")))
    model = e.model(e.op.Abs(x))
    model.graph.outputs[0].name = "Relu"
    optimized(model, NameCanonically())
    assert [node.name for node in model.graph] == ["y/Relu/Relu", "Abs"]


def test_text_survives(emitter: Any) -> None:
    """Constants of strings are rearranged, and not folded into what cannot be written down."""
    e = emitter
    x = e.op.Transpose(e.input("batch", 2, 3, dtype=ir.DataType.STRING), perm=[0, 2, 1])
    words = np.array([[b"a"], [b"b"], [b"c"]], dtype=object)
    constant = ir.Value(name="words", shape=ir.Shape([3, 1]), type=ir.TensorType(ir.DataType.STRING))
    constant.const_value = ir.StringTensor(words, shape=ir.Shape([3, 1]), name="words")
    e.graph.register_initializer(constant)
    same = e.op.Transpose(e.op.Equal(x, e.op.Reshape(constant, e.ints(3, 1))), perm=[0, 2, 1])
    model = optimize(e.model(same))
    session = ort.InferenceSession(ir.serde.serialize_model(model).SerializeToString())
    (answer,) = session.run(None, {"x": np.array([[["a", "b", "x"], ["a", "x", "c"]]], dtype=object)})
    assert answer.tolist() == [[[True, True, False], [True, False, True]]]
