"""Model objects become artifacts, by each of the lowering's roads."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest
import tensorflow as tf
import tf_keras
from keras import layers, ops

from kerve.compiler import Artifact, CompileOptions, ConversionError, VerificationError, compile_model
from kerve.compiler.progress import Event


class Scale(layers.Layer):
    """Written with keras.ops: replayed."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="scale")

    def call(self, x: Any) -> Any:
        return ops.relu(self.scale * x + 1.0)


class Softened(layers.Layer):
    """Written with TensorFlow: traced."""

    def call(self, x: Any) -> Any:
        return tf.math.softplus(x) / tf.cast(tf.shape(x)[1], x.dtype)


class Apart(layers.Layer):
    """Makes more rows of those of a batch, and asks how many."""

    def call(self, x: Any) -> Any:
        parts = ops.reshape(x, (-1, 2, 2))
        return ops.reshape(parts, (ops.shape(parts)[0], 1, 4))


class Counter(layers.Layer):
    def build(self, _: tuple[int | None, ...]) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x * self.calls


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(5, activation="gelu", name="hidden")
        self.scale = Scale(name="scale")

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"sum": self.hidden(inputs["left"]) + self.scale(inputs["right"]), "left": inputs["left"]}


def run(artifact: Artifact, **inputs: Any) -> dict[str, Any]:
    session = ort.InferenceSession(artifact.path / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def rows(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@pytest.mark.parametrize("layer", [Scale, Softened])
def test_custom_layers_are_compiled_with_what_surrounds_them(
    layer: type[keras.Layer], tmp_path: Path
) -> None:
    model = keras.Sequential(
        [layers.Input((4,), name="x"), layers.Dense(3), layer(), layers.Dense(2, name="y")]
    )
    artifact = compile_model(model, repository=tmp_path, name="m")
    x = rows(6, 4)
    np.testing.assert_allclose(run(artifact, x=x)["y"], model(x), rtol=1e-4, atol=1e-5)


def test_a_subclassed_model_keeps_the_names_of_its_dictionaries(tmp_path: Path) -> None:
    model = Subclassed()
    inputs = {"left": rows(3, 4), "right": rows(3, 5)}
    wanted = model(inputs)
    artifact = compile_model(model, repository=tmp_path, name="m")
    answers = run(artifact, **inputs)
    assert answers.keys() == {"sum", "left_1"}  # ONNX has one name for one tensor, and `left` is an input
    np.testing.assert_allclose(answers["sum"], wanted["sum"], rtol=1e-4, atol=1e-5)


def test_an_output_in_bfloat16_is_given_as_float32(tmp_path: Path) -> None:
    dense = layers.Dense(2, activation="softmax", name="y", dtype="mixed_bfloat16")
    model = keras.Sequential([layers.Input((4,), name="x"), dense])
    model.compile(loss="categorical_crossentropy")
    artifact = compile_model(model, repository=tmp_path, name="m")
    assert artifact.manifest.signature.outputs[0].datatype == "FP32"
    assert [metric.name for metric in artifact.manifest.evaluation.metrics] == ["loss"]
    np.testing.assert_allclose(run(artifact, x=rows(3, 4))["y"], ops.cast(model(rows(3, 4)), "float32"), 1e-2)


def test_what_lies_deep_in_a_structure_keeps_the_names_of_its_author(tmp_path: Path) -> None:
    age, anonymous = keras.Input((2,), name="age"), keras.Input((2,))
    model = keras.Model(
        {"image": keras.Input((2,), name="pixels"), "meta": [age, {"more": anonymous}]},
        [layers.Identity(name="older")(age), {"sum": age + anonymous, "both": [age * 2, anonymous * 2]}],
    )
    signature = compile_model(model, repository=tmp_path, name="m").manifest.signature
    assert {tensor.name for tensor in signature.inputs} == {"image", "age", "meta_1_more"}
    assert {tensor.name for tensor in signature.outputs} == {"older", "both_0", "both_1", "sum"}


@pytest.mark.parametrize(
    ("function", "symbol"),
    [
        pytest.param(Apart(), "parts_0", id="three each"),
        pytest.param(lambda x: ops.reshape(x, (-1, 2, 6)), "batch", id="one each"),
    ],
)
def test_rows_of_an_output_are_the_batch_only_if_they_are(tmp_path: Path, function: Any, symbol: str) -> None:
    x = keras.Input((3, 4), name="x")
    model = keras.Model(x, layers.Identity(name="parts")(function(x)))
    artifact = compile_model(model, repository=tmp_path, name="m")
    signature = artifact.manifest.signature
    assert signature.outputs[0].shape[0].symbol == symbol
    assert signature.batched == (symbol == "batch")
    np.testing.assert_array_equal(run(artifact, x=rows(2, 3, 4))["parts"], model(rows(2, 3, 4)))


def test_state_becomes_an_input_and_an_output(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((2,), name="x"), Counter(name="counter")])
    artifact = compile_model(model, repository=tmp_path, name="m")
    (state,) = artifact.manifest.state
    assert (state.input, state.output) == ("counter/calls", "counter/calls/next")
    answers = run(artifact, **{"x": rows(1, 2), state.input: np.array(4, np.float32)})
    np.testing.assert_allclose(answers[state.output], 5)
    np.testing.assert_allclose(answers["counter"], 5 * rows(1, 2), rtol=1e-6)
    assert float(model.layers[0].calls.numpy()) == 0


def test_the_source_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((4,)), Scale(), layers.Dropout(0.5), layers.Dense(2)])
    before = [(layer, len(layer._inbound_nodes)) for layer in model.layers]
    weights = [array.copy() for array in model.get_weights()]
    compile_model(model, repository=tmp_path, name="m")
    assert before == [(layer, len(layer._inbound_nodes)) for layer in model.layers]
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_goes_on_after_a_scope_that_could_not_be_opened(tmp_path: Path) -> None:
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(3, name="a<b>")(x))  # which TensorFlow takes for no name in a graph
    model.compile(loss="mse")
    compile_model(model, repository=tmp_path, name="m")
    head = layers.Dense(1, name="head")
    head.build((None, 2))
    assert head.kernel.path == "head/kernel"


def test_the_users_data_is_part_of_the_proof(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((4,), name="x"), layers.Dense(2)])
    np.savez(tmp_path / "data.npz", x=rows(9, 4))
    options = CompileOptions(data=tmp_path / "data.npz")
    artifact = compile_model(model, repository=tmp_path, name="m", options=options)
    checks = {(check.data, check.batch_size) for check in artifact.manifest.verification.checks}
    seeded = {("seeded", 3), ("seeded", 5), ("seeded", 1)}  # 2 and 4 are sizes of the model's own
    assert checks == {*seeded, ("user", 9)}


def test_a_model_that_answers_differently_is_not_published(tmp_path: Path) -> None:
    class Moody(layers.Layer):
        def call(self, x: Any) -> Any:
            return x + (1.0 if isinstance(x, keras.KerasTensor) else 0.0)

    model = keras.Sequential(
        [layers.Input((4,)), layers.Dense(3, name="before"), Moody(name="moody"), layers.Dense(2)]
    )
    with pytest.raises(VerificationError, match=r"the first layer that differs is 'moody' \(Moody"):
        compile_model(model, repository=tmp_path / "models", name="m")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_refuses_random_inputs_is_proven_on_the_users(tmp_path: Path) -> None:
    class Fives(layers.Layer):  # as an author's batch size within the model
        def call(self, x: Any) -> Any:
            return keras.ops.reshape(x, (5, 2, 2))

    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(Fives()(inputs))))
    with pytest.raises(VerificationError, match=r"fails on random inputs.*give inputs that it accepts"):
        compile_model(model, repository=tmp_path, name="m")
    artifact = compile_model(model, repository=tmp_path, name="m", data=rows(5, 4))
    assert "verified on your data only" in " ".join(artifact.manifest.warnings)


def test_a_lookup_that_knows_all_its_words_is_given_no_others(tmp_path: Path) -> None:
    words, codes = keras.Input((1,), dtype="string", name="words"), keras.Input((1,), dtype="int64")
    known = layers.StringLookup(vocabulary=["cat", "dog"], num_oov_indices=0, output_mode="one_hot")(words)
    code = layers.IntegerLookup(vocabulary=[10, 31], num_oov_indices=0, output_mode="one_hot")(codes)
    model = keras.Model([words, codes], layers.Dense(2)(layers.Concatenate()([known, code])))
    assert compile_model(model, repository=tmp_path, name="m").manifest.verification.checks


@pytest.mark.parametrize("mode", ["multi_hot", "count"])
def test_a_source_that_takes_fractions_for_ids_is_given_whole_ones(mode: str, tmp_path: Path) -> None:
    model = keras.Sequential([layers.Input((4,), name="x"), layers.CategoryEncoding(6, output_mode=mode)])
    answers = run(compile_model(model, repository=tmp_path, name="m"), x=rows(3, 4) * 0 + 5)
    np.testing.assert_array_equal(next(iter(answers.values())), model(rows(3, 4) * 0 + 5))


def test_a_source_that_divides_by_its_inputs_is_given_no_zeros(tmp_path: Path) -> None:
    left, right = (keras.Input((4,), dtype="int32", name=name) for name in ("left", "right"))
    model = keras.Model([left, right], ops.mod(left, right))
    assert compile_model(model, repository=tmp_path, name="m").manifest.verification.checks


def test_a_model_that_was_never_called_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"was never called.*input_signature"):
        compile_model(Subclassed(), repository=tmp_path, name="m")


def test_a_model_that_only_trains_others_names_them(tmp_path: Path) -> None:
    class Autoencoder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = keras.Sequential([layers.Input((4,)), layers.Dense(2)])
            self.decoder = keras.Sequential([layers.Input((2,)), layers.Dense(4)])

    with pytest.raises(
        ConversionError, match=r"has no call\(\).*compile the models in it instead: encoder, decoder"
    ):
        compile_model(Autoencoder(), repository=tmp_path, name="m")


def test_a_model_that_was_never_called_takes_a_signature(tmp_path: Path) -> None:
    spec = keras.InputSpec(shape=(None, 5), dtype="float32")
    signature = {"left": spec, "right": spec}
    artifact = compile_model(Subclassed(), repository=tmp_path, name="m", input_signature=signature)
    assert '"symbol": "batch"' in (artifact.path / "manifest.json").read_text()


def test_a_listener_hears_every_stage(tmp_path: Path) -> None:
    events: list[Event] = []
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2)])
    compile_model(model, repository=tmp_path, name="m", listener=events.append)
    assert [event.stage for event in events if event.state == "end"] == [
        "load",
        "lower",
        "optimize",
        "verify",
        "package",
    ]


def test_passes_explain_themselves_and_keep_their_graphs(tmp_path: Path) -> None:
    events: list[Event] = []
    model = keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)]
    )
    options = CompileOptions(explain=True, dump=tmp_path / "graphs")
    compile_model(model, repository=tmp_path, name="m", options=options, listener=events.append)
    notes = {event.stage: event.detail for event in events if event.state == "note"}
    assert "Layout" in notes
    dumped = sorted(file.name for file in (tmp_path / "graphs").glob("*.onnx"))
    assert len(dumped) > 10
    assert dumped[-1].endswith("NameCanonically.onnx")
    ort.InferenceSession(tmp_path / "graphs" / dumped[-1])


def test_a_source_that_refuses_large_ids_is_asked_small_ones(tmp_path: Path) -> None:
    inputs = tf_keras.Input((2,), dtype="int64", name="ids")
    encoded = tf_keras.layers.CategoryEncoding(num_tokens=3, output_mode="multi_hot")(inputs)
    artifact = compile_model(tf_keras.Model(inputs, encoded), repository=tmp_path, name="m")
    (got,) = run(artifact, ids=np.array([[0, 2], [1, 1]])).values()
    np.testing.assert_array_equal(got, [[1, 0, 1], [0, 1, 0]])


class Positions(layers.Layer):
    """A learned vector for each of a few positions, as in transformers."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(shape=(5, shape[-1]), initializer="random_normal", name="table")

    def call(self, x: Any) -> Any:
        length = ops.shape(x)[1]
        return x + ops.slice(self.table, (0, 0), (length, self.table.shape[-1]))


def test_a_sequence_may_have_fewer_positions_than_are_tried_first(tmp_path: Path) -> None:
    x = keras.Input((None,), dtype="int32", name="ids")
    model = keras.Model(x, Positions()(layers.Embedding(9, 4)(x)))
    artifact = compile_model(model, repository=tmp_path, name="m")
    ids = np.arange(10, dtype=np.int32).reshape(2, 5) % 9
    (found,) = run(artifact, ids=ids).values()
    np.testing.assert_allclose(found, model(ids), rtol=1e-4, atol=1e-5)
