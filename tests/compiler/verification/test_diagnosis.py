"""A graph that was tampered with is found out, and the layer where it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers

from kerve.compiler import Artifact, VerificationError, compile_model
from kerve.compiler.lowering import LAYER_KEY
from kerve.compiler.options import CompileOptions, Precision, VerifyOptions
from kerve.compiler.passes import optimize
from kerve.compiler.pipeline import check
from kerve.compiler.precision import PRECISIONS
from kerve.compiler.sources.base import KerasSource


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Two outputs; convolutions in a model in a model, with a normalization that is folded into them."""
    block_in = layers.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(block_in)
    block = keras.Model(
        block_in, layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x)), name="block"
    )
    tower_in = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="stem")(layers.Rescaling(0.5, name="rescaling")(tower_in))
    tower = keras.Model(tower_in, layers.Flatten(name="flatten")(block(x)), name="tower")
    image, extra = layers.Input((8, 8, 3), name="image"), layers.Input((5,), name="extra")
    features = layers.Dropout(0.5, name="dropout")(tower(image))
    both = layers.Concatenate(name="both")([features, layers.Dense(3, name="side")(extra)])
    return keras.Model(
        [image, extra],
        [
            layers.Dense(2, name="first")(both),
            layers.Dense(2, "tanh", name="second")(layers.Dense(4, name="last")(both)),
        ],
    )


@pytest.fixture(scope="module")
def artifact(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compile_model(model, repository=tmp_path_factory.mktemp("models"), name="m")


def _tampered(artifact: Artifact, layer: str, folder: Path) -> Path:
    """A copy of the artifact in which one weight of one layer is another."""
    graph = ir.load(artifact.path / "model.onnx")
    node = next(
        node
        for node in graph.graph
        if node.metadata_props.get(LAYER_KEY) == layer and node.op_type in ("Conv", "Gemm", "MatMul")
    )
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values.flat[values.size // 2] += 1.0
    weight.const_value = ir.tensor(values, name=weight.name)
    ir.save(graph, folder / "model.onnx")
    (folder / "manifest.json").write_bytes((artifact.path / "manifest.json").read_bytes())
    return folder


@pytest.mark.parametrize("layer", ["tower/stem", "tower/block/conv", "side", "first", "last", "second"])
def test_a_tampered_weight_is_found_in_its_layer(
    layer: str, model: keras.Model, artifact: Artifact, tmp_path: Path
) -> None:
    result = check(model, _tampered(artifact, layer, tmp_path), VerifyOptions(), lambda _: None)
    failed = {each["output"] for each in result["checks"] if not each["passed"]}
    assert failed == {"first", "second"} - ({"second"} if layer == "first" else set()) - (
        {"first"} if layer in ("last", "second") else set()
    )
    assert result["divergence"].startswith(f"the first layer that differs is '{layer}' (")


def _damaged(model: ir.Model, layer: str) -> ir.Model:
    """The model with the largest constant that a layer reads negated."""
    constants = {
        value.const_value.size: value
        for node in model.graph
        if node.metadata_props.get(LAYER_KEY) == layer
        for value in node.inputs
        if value is not None and value.const_value is not None and value.dtype != ir.DataType.INT64
    }
    weight = constants[max(constants)]
    assert weight.const_value is not None
    values = np.negative(weight.const_value.numpy())
    weight.const_value = ir.tensor(values, name=weight.name, dtype=weight.dtype)
    return model


class _Block(layers.Layer):
    """A layer with a weight and a layer of its own, which comes last."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.weight = self.add_weight(shape=(shape[-1], shape[-1]), name="weight")
        self.norm = layers.LayerNormalization(name="norm")
        self.norm.build(shape)

    def call(self, x: Any) -> Any:
        return self.norm(keras.ops.matmul(x, self.weight))


_KINDS: dict[str, Callable[[], list[layers.Layer]]] = {
    "flattened": lambda: [
        layers.Input((8, 8, 3), name="x"),
        layers.Conv2D(8, 1, name="conv"),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(5, "relu", name="hidden"),
        layers.Dense(3, name="last"),
    ],
    "recurrent": lambda: [
        layers.Input((5, 4), name="x"),
        layers.LSTM(4, return_sequences=True, name="lstm"),
        layers.GRU(4, name="gru"),
        layers.Dense(3, name="last"),
    ],
    "custom": lambda: [
        layers.Input((6,), name="x"),
        layers.Dense(6, "tanh", name="first"),
        _Block(name="block"),
        layers.Dense(3, name="last"),
    ],
}
_DAMAGED = [
    *(("flattened", layer) for layer in ("conv", "hidden", "last")),
    *(("recurrent", layer) for layer in ("lstm", "gru", "last")),
    *(("custom", layer) for layer in ("first", "block", "last")),
]


@pytest.fixture(scope="module")
def kinds() -> dict[str, keras.Model]:
    keras.utils.set_random_seed(5)
    return {name: keras.Sequential(make(), name=name) for name, make in _KINDS.items()}


@pytest.mark.parametrize(
    ("kind", "layer", "precision"),
    [
        *((*each, "float32") for each in _DAMAGED),
        *(("flattened", "hidden", precision) for precision in PRECISIONS),
        *(("recurrent", "gru", precision) for precision in PRECISIONS),
    ],
)
def test_a_damaged_artifact_is_found_in_its_layer(
    kind: str, layer: str, precision: Precision, kinds: dict[str, keras.Model], tmp_path: Path
) -> None:
    options = CompileOptions(precision=precision, max_drop=9.0)
    artifact = compile_model(kinds[kind], repository=tmp_path, name="m", options=options)
    file = artifact.path / "model.onnx"
    ir.save(_damaged(ir.load(file), layer), file)
    result = check(kinds[kind], artifact.path, VerifyOptions(), lambda _: None)
    assert result["divergence"].startswith(f"the first layer that differs is '{layer}' (")


@pytest.mark.parametrize("stage", ["lowering", "passes"])
@pytest.mark.parametrize(("kind", "layer"), _DAMAGED)
def test_a_defect_of_the_compiler_is_found_in_its_layer(
    kind: str,
    layer: str,
    stage: str,
    kinds: dict[str, keras.Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lower = KerasSource.lower

    def damaged_lower(source: KerasSource, opset: int) -> Any:
        lowered = lower(source, opset)
        _damaged(lowered.model, layer)
        return lowered

    if stage == "lowering":
        monkeypatch.setattr(KerasSource, "lower", damaged_lower)
    else:
        monkeypatch.setattr(
            "kerve.compiler.pipeline.optimize", lambda *given: _damaged(optimize(*given), layer)
        )
    with pytest.raises(VerificationError, match=rf"the first layer that differs is '{layer}' \("):
        compile_model(kinds[kind], repository=tmp_path, name="m")


def test_a_difference_that_only_other_inputs_show_is_found_too(tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    relu = layers.ReLU(name="relu")
    x = layers.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(2, name="last")(relu(layers.Dense(64, name="first")(x))))
    artifact = compile_model(model, repository=tmp_path, name="m")
    graph = ir.load(artifact.path / "model.onnx")
    with np.load(artifact.path / "golden.npz") as golden:
        hidden = np.maximum(golden["input/x"] @ model.get_layer("first").kernel.numpy(), 0)
    dead = int(np.flatnonzero(hidden.max(0) == 0)[0])
    weight = next(node for node in graph.graph if node.metadata_props.get(LAYER_KEY) == "last").inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    values = weight.const_value.numpy().copy()
    values[dead] += 100.0
    weight.const_value = ir.tensor(values, name=weight.name)
    ir.save(graph, tmp_path / "model.onnx")
    result = check(model, tmp_path, VerifyOptions(), lambda _: None)
    assert any(each["passed"] for each in result["checks"])
    assert result["divergence"].startswith("the first layer that differs is 'last' (")


def test_sequences_that_became_images_are_known_again(tmp_path: Path) -> None:
    """Their convolutions have an axis more than Keras's, and no value between them has as many."""
    keras.utils.set_random_seed(4)
    convs = [layers.Conv1D(16, 3, activation="relu", name=name) for name in ("first", "middle", "last")]
    model = keras.Sequential([layers.Input((512, 16), name="x"), *convs])
    artifact = compile_model(model, repository=tmp_path / "models", name="m")
    graph = ir.load(artifact.path / "model.onnx").graph
    assert all(len(node.outputs[0].shape or ()) == 4 for node in graph if node.op_type == "Conv")
    result = check(model, _tampered(artifact, "last", tmp_path), VerifyOptions(), lambda _: None)
    assert result["divergence"].startswith("the first layer that differs is 'last' (")


def test_an_artifact_that_is_equal_has_no_divergence(model: keras.Model, artifact: Artifact) -> None:
    result = check(model, artifact.path, VerifyOptions(), lambda _: None)
    assert result["divergence"] == ""
    assert all(each["passed"] for each in result["checks"])
    assert len(result["checks"]) == 6  # two outputs at three sizes


def test_nan_is_counted(model: keras.Model, artifact: Artifact, tmp_path: Path) -> None:
    data: dict[str, Any] = {"image": np.ones((2, 8, 8, 3), np.float32), "extra": np.ones((2, 5), np.float32)}
    np.savez(tmp_path / "data.npz", **data)
    folder = _tampered(artifact, "first", tmp_path)
    graph = ir.load(folder / "model.onnx")
    weight = next(node.inputs[1] for node in graph.graph if node.metadata_props.get(LAYER_KEY) == "first")
    assert weight is not None
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.full_like(weight.const_value.numpy(), np.nan), name=weight.name)
    ir.save(graph, folder / "model.onnx")
    result = check(model, folder, VerifyOptions(data=tmp_path / "data.npz"), lambda _: None)
    (user,) = (each for each in result["checks"] if each["data"] == "user" and each["output"] == "first")
    assert user["nan_mismatches"] == 4


def test_an_artifact_of_another_model_is_told_by_its_names(model: keras.Model, tmp_path: Path) -> None:
    other = keras.Sequential([layers.Input((5,), name="numbers"), layers.Dense(2, name="first")])
    artifact = compile_model(other, repository=tmp_path, name="m")
    with pytest.raises(VerificationError, match=r"inputs are numbers, the source's are image, extra; it was"):
        check(model, artifact.path, VerifyOptions(), lambda _: None)
