"""What a model brings to its evaluation: outputs, masks, losses of its own; options and old files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kerve.compiler import LoadError
from kerve.compiler.evaluation.identifiers import parse

RNG = np.random.default_rng(4)
ROWS = 40
GROUPS = [16, 16, 8]


def equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_several_outputs_have_losses_weights_and_metrics_of_their_own(compiled: Any, evaluated: Any) -> None:
    x = layers.Input((6,), name="x")
    hidden = layers.Dense(8, activation="tanh")(x)
    outputs = [
        layers.Dense(3, activation="softmax", name="kind")(hidden),
        layers.Dense(1, name="price")(hidden),
        layers.Dense(2, name="unused")(hidden),
    ]
    model = keras.Model(x, outputs)
    model.compile(
        loss=["sparse_categorical_crossentropy", "mse", None],
        loss_weights=[1.0, 0.3, None],
        metrics=[["accuracy"], ["mae"], None],
        weighted_metrics=[["accuracy"], None, None],
    )
    artifact = compiled(model)
    assert [each.output for each in artifact.manifest.evaluation.targets] == ["kind", "price"]
    rows = RNG.standard_normal((ROWS, 6)).astype(np.float32)
    kind, price = RNG.integers(0, 3, ROWS), RNG.standard_normal((ROWS, 1)).astype(np.float32)
    weights = RNG.random(ROWS).astype(np.float32)
    unused = np.zeros((ROWS, 2), np.float32)
    for given in (None, weights):
        wanted = model.evaluate(
            rows,
            [kind, price, unused],
            sample_weight=None if given is None else [given, given, given],
            batch_size=16,
            verbose=0,
            return_dict=True,
        )
        weighed = None if given is None else {"kind": given, "price": given}
        equal(evaluated(artifact, {"x": rows}, {"kind": kind, "price": price}, GROUPS, weighed), wanted)


def test_in_the_scope_of_several_devices_it_is_proven_on_one(
    compiled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    # By how many there are Keras scales losses in the scope.
    monkeypatch.setattr(type(strategy), "num_replicas_in_sync", 2)
    with strategy.scope():
        model = keras.Sequential([layers.Input((4,)), layers.Dense(2, activation="softmax")])
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        artifact = compiled(model)
        assert tf.distribute.get_strategy() is strategy
    assert [each.name for each in artifact.manifest.evaluation.metrics] == ["loss", "accuracy"]


def test_masked_steps_do_not_count(compiled: Any, evaluated: Any) -> None:
    ids = layers.Input((None,), name="ids", dtype="int32")
    hidden = layers.LSTM(6, return_sequences=True)(layers.Embedding(20, 8, mask_zero=True)(ids))
    model = keras.Model(ids, layers.Dense(4, activation="softmax", name="tags")(hidden))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    artifact = compiled(model)
    assert list(artifact.manifest.evaluation.inputs.values()) == ["ids"]
    sentences = RNG.integers(1, 20, (ROWS, 9)).astype(np.int32)
    sentences[np.arange(9) >= RNG.integers(2, 9, (ROWS, 1))] = 0
    tags = RNG.integers(0, 4, (ROWS, 9))
    wanted = model.evaluate(sentences, tags, batch_size=16, verbose=0, return_dict=True)
    equal(evaluated(artifact, {"ids": sentences}, {"tags": tags}, GROUPS), wanted)


@pytest.mark.parametrize("masked", ["rare id", "value", "ignored class"])
def test_what_is_left_out_makes_the_loss_depend_on_the_batches(compiled: Any, masked: str) -> None:
    """Though none of the rows that the compile tries has any of it."""
    if masked == "rare id":
        inputs = layers.Input((None,), name="x", dtype="int32")
        hidden = layers.Embedding(30_000, 2, mask_zero=True)(inputs)
    else:
        inputs = layers.Input((5, 2), name="x")
        hidden = layers.Masking()(inputs) if masked == "value" else inputs
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="tags")(hidden))
    ignored = -1 if masked == "ignored class" else None
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=ignored))
    assert compiled(model).manifest.evaluation.batch_dependent


class Scaled(keras.metrics.Metric):
    """Says nothing of its factor in a configuration, as many metrics that nobody saves."""

    def __init__(self, factor: float = 1.0, name: str = "scaled") -> None:
        super().__init__(name=name)
        self.factor = factor
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(self.factor * ops.sum(ops.abs(y_true - y_pred)))

    def result(self) -> Any:
        return self.total


def halves(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.abs(y_true - y_pred), -1) / 2


def test_metrics_of_a_model_object_need_no_configuration(compiled: Any, evaluated: Any) -> None:
    model = keras.Sequential([layers.Input((6,), name="x"), layers.Dense(2, name="y")])
    metrics = [Scaled(3.0), keras.metrics.MeanMetricWrapper(halves, name="halves")]
    model.compile(loss="mse", metrics=metrics)
    x = RNG.standard_normal((ROWS, 6)).astype(np.float32)
    y = RNG.standard_normal((ROWS, 2)).astype(np.float32)
    wanted = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    artifact = compiled(model)
    assert [float(each.result()) for each in metrics] == [wanted["scaled"], wanted["halves"]]
    equal(evaluated(artifact, {"x": x}, {"y": y}, GROUPS), wanted)


class Regularized(layers.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(ops.mean(ops.square(x)))
        self.add_loss(0.01 * ops.sum(ops.abs(x)))
        return x


def test_losses_of_weights_activations_and_layers_are_part_of_the_loss(compiled: Any, evaluated: Any) -> None:
    model = keras.Sequential(
        [
            layers.Input((6,), name="x"),
            layers.Dense(8, activation="tanh", kernel_regularizer="l2", activity_regularizer="l1"),
            Regularized(),
            layers.Dense(2, name="y", bias_regularizer="l1"),
        ]
    )
    model.compile(loss="mse", metrics=["mae"])
    artifact = compiled(model)
    assert artifact.manifest.evaluation.batch_dependent
    rows, y = (RNG.standard_normal((ROWS, size)).astype(np.float32) for size in (6, 2))
    wanted = model.evaluate(rows, y, batch_size=16, verbose=0, return_dict=True)
    equal(evaluated(artifact, {"x": rows}, {"y": y}, GROUPS), wanted)


def test_options_name_what_a_model_without_a_loss_is_evaluated_by(compiled: Any, evaluated: Any) -> None:
    model = keras.Sequential([layers.Input((6,), name="x"), layers.Dense(3, name="y")])
    artifact = compiled(
        model,
        loss=("SparseCategoricalCrossentropy(from_logits=True)",),
        metric=("accuracy", "y=SparseTopKCategoricalAccuracy(k=2)"),  # the only output may be named
    )
    rows, y = RNG.standard_normal((ROWS, 6)).astype(np.float32), RNG.integers(0, 3, ROWS)
    found = evaluated(artifact, {"x": rows}, {"y": y}, [ROWS])
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(k=2)],
    )
    equal(found, model.evaluate(rows, y, verbose=0, return_dict=True))


def test_the_same_model_gives_the_same_evaluation(tmp_path: Path) -> None:
    from kerve.compiler import compile_model

    x = layers.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="y")(x))
    model.compile(
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.MeanIoU(3, sparse_y_pred=False)],
    )
    first, second = (compile_model(model, repository=tmp_path, name="m").path for _ in range(2))
    for name in ("evaluate.onnx", "results.onnx", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_loss_that_is_not_known_is_an_error(compiled: Any) -> None:
    model = keras.Sequential([layers.Input((6,), name="x"), layers.Dense(3, name="y")])
    with pytest.raises(LoadError, match=r"'nonsense' is not in keras\.losses"):
        compiled(model, loss=("nonsense",))
    with pytest.raises(LoadError, match=r"'z=mse': expected one of the outputs y"):
        compiled(model, loss=("z=mse",))


def test_identifiers_are_read_and_never_evaluated() -> None:
    found = parse("price=Huber(delta=2.0)")
    assert (found.output, found.name, found.kwargs) == ("price", "Huber", {"delta": 2.0})
    assert parse("AUC(curve='PR')").output == ""
    for text in ("__import__('os').system('true')", "AUC(print(1))", "a b", ""):
        with pytest.raises(ValueError, match="expected NAME"):
            parse(text)


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"])
def test_what_keras_2_compiled_is_carried_over(tmp_path: Path, evaluated: Any, loss: str) -> None:
    import tf_keras

    from kerve.compiler import compile_model

    old = tf_keras.Sequential(
        [
            tf_keras.layers.Input((6,), name="x"),
            tf_keras.layers.Dense(3, activation="softmax", name="y", kernel_regularizer="l2"),
        ]
    )
    given = getattr(tf_keras.losses, loss)  # a function or a class; by name Keras 2 writes them differently
    old.compile(loss=given() if isinstance(given, type) else loss, metrics=["accuracy"])
    rows, y = RNG.standard_normal((ROWS, 6)).astype(np.float32), RNG.integers(0, 3, ROWS)
    wanted = old.evaluate(rows, y, verbose=0, return_dict=True)
    old.save(tmp_path / "old.h5")
    artifact = compile_model(tmp_path / "old.h5", repository=tmp_path, name="m")
    equal(evaluated(artifact, {"x": rows}, {"y": y}, [ROWS]), wanted)


def test_what_keras_2_measured_of_several_outputs_keeps_its_names(tmp_path: Path, evaluated: Any) -> None:
    import tf_keras

    from kerve.compiler import compile_model

    x = tf_keras.layers.Input((6,), name="x")
    heads = {name: tf_keras.layers.Dense(2, name=name)(x) for name in ("a", "b")}
    old = tf_keras.Model(x, list(heads.values()))
    lost = tf_keras.metrics.MeanRelativeError([1.0, 2.0])  # which Keras 3 has not
    metrics = {"a": ["mae", "cosine_similarity"], "b": [lost]}
    old.compile(loss={"a": "mse", "b": "mae"}, metrics=metrics, weighted_metrics={"b": ["mse"]})
    rows = RNG.standard_normal((ROWS, 6)).astype(np.float32)
    labels = {name: RNG.standard_normal((ROWS, 2)).astype(np.float32) for name in heads}
    wanted = old.evaluate(rows, labels, verbose=0, return_dict=True)
    old.save(tmp_path / "old.h5")
    artifact = compile_model(tmp_path / "old.h5", repository=tmp_path, name="m")
    assert any("MeanRelativeError" in each for each in artifact.manifest.warnings)
    wanted.pop("b_mean_relative_error")
    equal(evaluated(artifact, {"x": rows}, labels, [ROWS]), wanted)


def test_why_keras_cannot_evaluate_is_told_and_not_only_that(compiled: Any) -> None:
    x = layers.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(3, name="a<b>")(x))  # which TensorFlow takes for no name in a graph
    model.compile(loss="mse")
    (warning,) = compiled(model, warns=True).manifest.warnings
    assert "'a<b>' is not a valid" in warning


def test_a_model_whose_answers_are_drawn_is_not_judged(compiled: Any) -> None:
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Lambda(lambda t: t + tf.random.normal(tf.shape(t)))(x))
    model.compile(loss="mse")
    (warning,) = (each for each in compiled(model, warns=True).manifest.warnings if "evaluated" in each)
    assert "its outputs are random" in warning


def test_what_is_told_of_the_model_is_not_told_of_its_evaluation_again(compiled: Any) -> None:
    texts = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4)
    x = keras.Input((), dtype="string", name="x")
    steps = layers.LSTM(3, return_sequences=True)(layers.Embedding(4, 3, mask_zero=True)(texts(x)))
    model = keras.Model(x, layers.Dense(5, activation="softmax")(steps))
    model.compile(loss="sparse_categorical_crossentropy")  # masked, so that it depends on the texts
    (warning,) = compiled(model).manifest.warnings
    assert "Tokenizer" in warning


class RootMeanSquare(keras.metrics.Metric):
    """A metric as textbooks write it: TensorFlow's functions on what it counts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.squares = self.add_weight(name="squares", initializer="zeros")
        self.rows = self.add_weight(name="rows", initializer="zeros", dtype="int32")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        wanted = tf.one_hot(tf.cast(y_true, "int32"), depth=tf.shape(y_pred)[1])
        self.squares.assign_add(tf.reduce_sum(tf.square(tf.reshape(wanted, tf.shape(y_pred)) - y_pred)))
        self.rows.assign_add(tf.shape(y_pred)[0])

    def result(self) -> Any:
        return tf.sqrt(self.squares / tf.cast(self.rows, tf.float32))


def test_functions_of_tensorflow_take_what_a_metric_counts(compiled: Any, evaluated: Any) -> None:
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(5, activation="softmax", name="y")(x))
    model.compile(loss="sparse_categorical_crossentropy", metrics=[RootMeanSquare(name="rms")])
    rows = RNG.standard_normal((ROWS, 6)).astype(np.float32)
    labels = RNG.integers(0, 5, ROWS)
    wanted = model.evaluate(rows, labels, verbose=0, return_dict=True)
    artifact = compiled(model)
    equal(evaluated(artifact, {"x": rows}, {"y": labels}, [ROWS]), wanted)
