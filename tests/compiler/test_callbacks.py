"""Publishing from inside a training."""

from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerve.compiler.callbacks import CompileAndPublish

X = np.random.default_rng(0).random((32, 4), np.float32)
Y = X.sum(axis=1, keepdims=True)


def model_of(*extra: keras.Layer) -> keras.Model:
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1), *extra])
    model.compile("sgd", "mse")
    return model


class Spectrum(keras.layers.Layer):
    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.linalg.svd(x[:, None, :], full_matrices=False)[1][:, :1]


def test_the_end_of_training_publishes_one_version(tmp_path: Path) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m")
    model_of().fit(X, Y, epochs=3, verbose=0, callbacks=[callback])
    assert [artifact.version for artifact in callback.published] == [1]
    assert (tmp_path / "m" / "1" / "model.onnx").is_file()


def test_each_improvement_publishes_a_version(tmp_path: Path) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="loss", mode="min")
    history = model_of().fit(X, Y, epochs=4, verbose=0, callbacks=[callback])
    losses = history.history["loss"]
    best = [loss for index, loss in enumerate(losses) if loss < min(losses[:index], default=np.inf)]
    assert len(callback.published) == len(best)


def test_a_compile_that_fails_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="loss")
    history = model_of(Spectrum(name="spectrum")).fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    assert len(history.history["loss"]) == 2
    assert callback.published == []
    failure: BaseException | None = callback.failures[0]
    assert "layer 'spectrum'" in str(failure)
    while failure is not None:  # a frame holds the weights of its compile, and the data of the training
        assert failure.__traceback__ is None
        failure = failure.__cause__ or failure.__context__
    assert "did not publish" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_an_artifact_warns_of_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = model_of()
    model.compile("sgd", "mse", metrics=[keras.metrics.MeanMetricWrapper(lambda y, _: np.asarray(y), "mine")])
    model.run_eagerly = True
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="loss", mode="min")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    assert len(callback.published) == 2
    assert len([each for each in caplog.messages if "metric 'mine'" in each]) == 1


def test_of_several_workers_the_chief_publishes(tmp_path: Path) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m")
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        callback.set_model(model_of())
    with mock.patch.object(type(strategy.extended), "should_checkpoint", new=False):
        callback.on_train_end()
    assert (callback.published, callback.failures, list(tmp_path.iterdir())) == ([], [], [])


def test_an_unknown_value_to_monitor_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="val_los", mode="min")
    model_of().fit(X, Y, epochs=1, verbose=0, callbacks=[callback])
    assert "no value 'val_los' to monitor; it has: loss" in caplog.text


def test_what_is_no_number_is_no_improvement_and_hinders_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="loss", mode="min")
    callback.set_model(model_of())
    for epoch, loss in enumerate((np.nan, np.array([0.5, 0.4]), 0.3)):
        callback.on_epoch_end(epoch, {"loss": loss})
    assert [artifact.version for artifact in callback.published] == [1]
    assert "epoch 1: 'loss' is nan" in caplog.text
    assert "epoch 2: 'loss' is [0.5 0.4]" in caplog.text


def test_a_name_that_cannot_be_served_is_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected letters, digits"):
        CompileAndPublish(repository=tmp_path, name="a/b")


@pytest.mark.parametrize("place", ["file", "/proc/none"])
def test_a_repository_that_cannot_be_written_does_not_end_the_training(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    callback = CompileAndPublish(repository=tmp_path / place, name="m", monitor="loss")
    history = model_of().fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    assert len(history.history["loss"]) == 2
    assert "cannot write to the repository" in str(callback.failures[0])


def test_a_model_that_is_trained_on_several_devices_is_published(tmp_path: Path) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="loss", mode="min")
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = model_of(keras.layers.BatchNormalization())
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[callback])
    assert [artifact.version for artifact in callback.published] == [1]
    assert callback.failures == []


def test_a_value_of_which_nobody_knows_the_better_way_does_not_end_the_training(tmp_path: Path) -> None:
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="score")
    logged = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: logs.update(score=1.0))
    model_of().fit(X, Y, epochs=2, verbose=0, callbacks=[logged, callback])
    assert len(callback.failures) == 2
    assert "Pass `mode='max'`" in str(callback.failures[0])


def test_a_model_of_tf_keras_is_published_from_its_training(tmp_path: Path) -> None:
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=X.shape[1:])])
    model.compile("sgd", "mse", metrics=["mae"])
    callback = CompileAndPublish(repository=tmp_path, name="m", monitor="mae", mode="min")
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[callback])
    assert [artifact.version for artifact in callback.published] == [1]
