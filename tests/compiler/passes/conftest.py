"""Graphs as the lowering emits them, and the question every test of a pass asks: is it still the same?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import onnxscript
import pytest
from numpy.typing import NDArray
from onnx_ir.passes import common

from kerve.compiler.passes import optimize

Arrays = Mapping[str, NDArray[Any]]


class Emitter:
    """Writes a graph the way the lowering does: Keras's channels last around ONNX's channels first."""

    def __init__(self, opset: int = 21) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="model")
        self._builder = onnxscript.GraphBuilder(self.graph)
        self._random = np.random.default_rng(0)

    @property
    def op(self) -> Any:
        """Write any node."""
        return self._builder.op

    def input(self, *shape: int | str | None, name: str = "x", dtype: Any = ir.DataType.FLOAT) -> Any:
        value = ir.val(name, dtype, ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def constant(self, array: Any, name: str = "constant") -> Any:
        array = np.asarray(array)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        unique, count = name, 0
        while unique in self.graph.initializers:
            count += 1
            unique = f"{name}_{count}"
        value = ir.Value(
            name=unique,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.tensor(array).dtype),
            const_value=ir.tensor(array, name=unique),
        )
        self.graph.register_initializer(value)
        return value

    def weight(self, *shape: int, name: str = "kernel") -> Any:
        scale = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
        return self.constant((self._random.normal(size=shape) * scale).astype(np.float32), name)

    def ints(self, *values: int) -> Any:
        return self.constant(np.array(values, dtype=np.int64), "shape")

    def layer(self, name: str, *values: Any) -> Any:
        """Say which Keras layer the last nodes come from: all that have no layer yet."""
        for node in self.graph:
            node.metadata_props.setdefault("kerve.layer", name)
        return values[0]

    def channels_first(self, x: Any) -> Any:
        rank = len(x.shape)
        return self.op.Transpose(x, perm=[0, rank - 1, *range(1, rank - 1)])

    def channels_last(self, x: Any) -> Any:
        rank = len(x.shape)
        return self.op.Transpose(x, perm=[0, *range(2, rank), 1])

    def spatial(self, op_type: str, x: Any, *inputs: Any, **attributes: Any) -> Any:
        """An operator of ONNX that wants the channels first."""
        return self.channels_last(getattr(self.op, op_type)(self.channels_first(x), *inputs, **attributes))

    def conv(
        self,
        x: Any,
        filters: int,
        kernel: int = 3,
        *,
        group: int = 1,
        bias: bool = True,
        same: bool = True,
        **attributes: Any,
    ) -> Any:
        spatial = len(x.shape) - 2
        channels = x.shape[-1]
        inputs = [self.weight(filters, channels // group, *[kernel] * spatial)]
        if bias:
            inputs.append(self.weight(filters, name="bias"))
        pads = [kernel // 2 if same else 0] * (2 * spatial)
        return self.spatial("Conv", x, *inputs, group=group, pads=pads, **attributes)

    def depthwise(self, x: Any, kernel: int = 3, **attributes: Any) -> Any:
        channels = x.shape[-1]
        return self.conv(x, channels, kernel, group=channels, **attributes)

    def batch_normalization(self, x: Any) -> Any:
        channels = x.shape[-1]
        gamma, variance = (self._random.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(2))
        parameters = [
            self.constant(gamma, "gamma"),
            self.weight(channels, name="beta"),
            self.weight(channels, name="mean"),
            self.constant(variance, "variance"),
        ]
        if len(x.shape) == 2:
            return self.op.BatchNormalization(x, *parameters, epsilon=1e-3)
        return self.spatial("BatchNormalization", x, *parameters, epsilon=1e-3)

    def dense(self, x: Any, units: int) -> Any:
        channels = x.shape[-1]
        return self.op.Add(self.op.MatMul(x, self.weight(channels, units)), self.weight(units, name="bias"))

    def max_pool(self, x: Any, size: int = 2) -> Any:
        spatial = len(x.shape) - 2
        return self.spatial("MaxPool", x, kernel_shape=[size] * spatial, strides=[size] * spatial)

    def global_average(self, x: Any) -> Any:
        pooled = self.spatial("GlobalAveragePool", x)
        return self.op.Squeeze(pooled, self.ints(*range(1, len(x.shape) - 1)))

    def squeeze_excite(self, x: Any) -> Any:
        """As in MobileNetV3: the means of the channels, two convolutions of one point, a scale."""
        channels = x.shape[-1]
        squeezed = self.spatial("GlobalAveragePool", x)
        squeezed = self.op.Relu(self.conv(squeezed, max(1, channels // 2), 1))
        return self.op.Mul(x, self.op.HardSigmoid(self.conv(squeezed, channels, 1)))

    def output(self, *values: Any) -> None:
        for index, value in enumerate(values):
            value.name = "y" if len(values) == 1 else f"y{index}"
            self.graph.outputs.append(value)

    def model(self, *outputs: ir.Value) -> ir.Model:
        self.output(*outputs)
        model = ir.Model(self.graph, ir_version=10)
        common.NameFixPass()(model)  # as the lowering does, for the bodies of loops
        return model


@pytest.fixture
def emitter() -> Emitter:
    return Emitter()


@pytest.fixture(scope="session")
def emitters() -> type[Emitter]:
    """The class itself, for tests that need several or another version of the operator set."""
    return Emitter


@pytest.fixture(scope="session")
def count() -> Callable[[ir.Model], Counter[str]]:
    """Count operators, those in bodies of loops and branches included."""
    return _count


def _count(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))


@pytest.fixture(scope="session")
def optimized() -> Callable[..., Counter[str]]:
    """Return `optimized(model, *passes)`: run the passes, compare, and count the operators after them.

    Without passes the whole pipeline runs. The graph must stay valid, keep its inputs and outputs, and
    compute the same in ONNX Runtime, at two sizes of every open dimension; its Transposes must not grow in
    number.
    """
    return _optimized


def _optimized(
    model: ir.Model, *passes: ir.passes.PassBase, rtol: float = 1e-4, atol: float = 1e-5
) -> Counter[str]:
    before = ir.serde.serialize_model(model)
    transposes = _count(model)["Transpose"]
    if passes:
        ir.passes.Sequential(*passes)(model)
    else:
        optimize(model)
    after = ir.serde.serialize_model(model)
    onnx.checker.check_model(after, full_check=True)
    assert [str(v) for v in before.graph.input] == [str(v) for v in after.graph.input]
    assert [v.name for v in before.graph.output] == [v.name for v in after.graph.output]
    for open_size in (1, 3):
        feeds = _feeds(before, open_size)
        for one, other in zip(_run(before, feeds), _run(after, feeds), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(other, one, rtol=rtol, atol=atol)
    counts = _count(model)
    assert counts["Transpose"] <= transposes
    return counts


def _feeds(model: onnx.ModelProto, open_size: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(1)
    feeds: dict[str, NDArray[Any]] = {}
    for value in model.graph.input:
        shape = [dim.dim_value or open_size for dim in value.type.tensor_type.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = (random.normal(size=shape) * 2).astype(dtype)
    return feeds


def _run(model: onnx.ModelProto, feeds: Arrays) -> Sequence[NDArray[Any]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, dict(feeds))]
