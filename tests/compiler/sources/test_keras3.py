"""What Keras 3 writes, and its models in memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerve.compiler import sources
from kerve.compiler.errors import ConversionError, LoadError
from kerve.compiler.sources import LoadOptions

_X = {"x": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)}


def _model() -> keras.Model:
    model = keras.Sequential(
        [keras.Input((5,), name="x"), keras.layers.Dense(4, "relu"), keras.layers.Dense(2, name="y")]
    )
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((4, 5)), np.ones((4, 2)), verbose=0)
    return model


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_whole_model_is_read_with_its_loss_and_metrics(
    suffix: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    model, path = _model(), tmp_path / f"model.{suffix}"
    model.save(path)
    source: Any = sources.load(str(path))
    equal_to_original(source, _X)
    assert source.record.kind == suffix
    assert source.record.keras_version == keras.__version__
    expected = model.evaluate(_X["x"], np.zeros((3, 2)), verbose=0, return_dict=True)
    assert source.model.evaluate(_X["x"], np.zeros((3, 2)), verbose=0, return_dict=True) == expected


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("writer", [keras, tf_keras])
def test_a_loss_and_a_metric_that_are_functions_of_the_authors_are_found_by_name(
    writer: Any, suffix: str, tmp_path: Path
) -> None:
    model = writer.Sequential([writer.Input((5,), name="x"), writer.layers.Dense(2, name="y")])
    model.compile("adam", loss=_own_loss, metrics=[_own_metric, "mae"])
    labels = np.ones((3, 2), np.float32)
    model.fit(_X["x"], labels, verbose=0)
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    known: Any = sources.load(path, custom_objects={each.__name__: each for each in (_own_loss, _own_metric)})
    expected = model.evaluate(_X["x"], labels, verbose=0, return_dict=True)
    evaluated = known.model.evaluate(_X["x"], labels, verbose=0, return_dict=True)
    assert evaluated == pytest.approx(expected, rel=1e-5)
    (warning,) = sources.load(path).warnings
    assert "the loss and metrics could not be restored" in warning
    assert "_own_loss is not known; name the module that defines it with --import" in warning


def _own_loss(y_true: Any, y_pred: Any) -> Any:
    return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)


def _own_metric(y_true: Any, y_pred: Any) -> Any:
    return tf.reduce_max(tf.abs(y_true - y_pred), axis=-1)


def test_an_authors_layer_may_have_the_name_of_one_of_keras(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    model = keras.Sequential([keras.Input((5,), name="x"), LayerNormalization(0.5)])
    model.save(tmp_path / "model.h5")
    own = {"LayerNormalization": LayerNormalization}
    source: Any = sources.load(tmp_path / "model.h5", custom_objects=own)
    equal_to_original(source, _X)
    assert isinstance(source.model.layers[0], LayerNormalization)


class LayerNormalization(keras.layers.Layer):
    """A layer of the author's, of which Keras has one, too."""

    def __init__(self, eps: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.eps = eps

    def call(self, inputs: Any) -> Any:
        return inputs / (self.eps + keras.ops.mean(keras.ops.square(inputs), -1, keepdims=True))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "eps": self.eps}


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_the_authors_layers_come_from_the_module_that_is_named(
    suffix: str, tmp_path: Path, own_layers: str, equal_to_original: Callable[..., Any]
) -> None:
    namespace: dict[str, Any] = {}
    exec(Path(own_layers).read_text(), namespace)
    model = keras.Sequential(
        [keras.Input((5,), name="x"), namespace["Scale"](3.0), keras.layers.Dense(2, namespace["bent"])]
    )
    path = tmp_path / f"model.{suffix}"
    model.save(path)
    with pytest.raises(LoadError, match="--import MODULE"):
        sources.load(path)
    equal_to_original(sources.load(path, LoadOptions(import_=(own_layers,))), _X)


def test_functions_that_tensorflow_wrapped_are_found_by_name(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    module = tmp_path / "wrapped.py"
    module.write_text(
        "import tensorflow as tf\n"
        "@tf.function\ndef bent(x): return tf.tanh(x) * 2.0\n"
        "@tf.custom_gradient\ndef soft(x): return tf.math.log(1.0 + tf.exp(x)), lambda grads: grads\n"
    )
    namespace: dict[str, Any] = {}
    exec(compile(module.read_text(), str(module), "exec"), namespace)
    activations = [keras.layers.Activation(namespace[name]) for name in ("bent", "soft")]
    keras.Sequential([keras.Input((5,), name="x"), *activations]).save(tmp_path / "model.keras")
    equal_to_original(sources.load(tmp_path / "model.keras", LoadOptions(import_=(str(module),))), _X)


def test_what_a_layer_of_the_authors_did_not_save_is_named(tmp_path: Path) -> None:
    layer = Learning()
    layer.mean = 2.0
    keras.Sequential([keras.Input((5,), name="x"), layer]).save(tmp_path / "model.keras")
    with pytest.raises(
        LoadError, match=r"'Learning' object has no attribute 'mean'; .*what a layer keeps in its weights"
    ):
        sources.load(tmp_path / "model.keras", custom_objects={"Learning": Learning})


def test_a_model_that_takes_no_options_of_keras_is_told_what_its_init_must_take(tmp_path: Path) -> None:
    model = Bare()
    model(_X["x"])
    model.save(tmp_path / "model.keras")
    with pytest.raises(
        LoadError, match=r"unexpected keyword argument '\w+'; its __init__ must take \*\*kwargs"
    ):
        sources.load(tmp_path / "model.keras", custom_objects={"Bare": Bare})


class Bare(keras.Model):
    """A model as tutorials write them."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


class Learning(keras.layers.Layer):
    """A layer that keeps what it learned where Keras does not look for it."""

    mean: float

    def call(self, inputs: Any) -> Any:
        return inputs - self.mean


def test_a_module_that_does_not_exist_is_said_to_be_missing(tmp_path: Path) -> None:
    _model().save(tmp_path / "model.keras")
    with pytest.raises(LoadError, match=r"cannot import 'no\.such\.module' \(ModuleNotFoundError"):
        sources.load(tmp_path / "model.keras", LoadOptions(import_=("no.such.module",)))


def test_a_model_in_memory_is_taken_as_it_is(equal_to_original: Callable[..., Any]) -> None:
    model = _model()
    source: Any = sources.load(model)
    assert source.model is model
    assert source.record.kind == "object"
    equal_to_original(source, _X)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(LoadError, match=r"a builtins\.dict is not a model; give a keras\.Model"):
        sources.load({})


def test_weights_and_json_make_a_model(tmp_path: Path, equal_to_original: Callable[..., Any]) -> None:
    model = _model()
    (tmp_path / "model.json").write_text(model.to_json())
    model.save_weights(tmp_path / "model.weights.h5")
    source: Any = sources.load(
        tmp_path / "model.weights.h5", LoadOptions(architecture=str(tmp_path / "model.json"))
    )
    np.testing.assert_allclose(source.model(_X["x"]), model(_X["x"]))
    equal_to_original(source, _X)


def test_a_checkpoint_of_a_training_loop_and_json_make_a_model(tmp_path: Path) -> None:
    model = _model()
    (tmp_path / "model.json").write_text(model.to_json())
    prefix = tf.train.Checkpoint(network=model, step=tf.Variable(3)).save(str(tmp_path / "loop/at"))
    for checkpoint in (tmp_path / "loop", Path(prefix)):
        source: Any = sources.load(checkpoint, LoadOptions(architecture=str(tmp_path / "model.json")))
        np.testing.assert_allclose(source.model(_X["x"]), model(_X["x"]))


def test_a_checkpoint_that_lacks_weights_is_refused_by_their_names(tmp_path: Path) -> None:
    """TensorFlow does not come by the cells, and says that everything has its value."""
    cells = [keras.layers.LSTMCell(2, name="lower"), keras.layers.LSTMCell(2, name="upper")]
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.RNN(cells), keras.layers.Dense(1)])
    (tmp_path / "model.json").write_text(model.to_json())
    prefix = tf.train.Checkpoint(model=model).save(str(tmp_path / "at"))
    with pytest.raises(LoadError, match=r"has no values for lower/kernel, .*save_weights"):
        sources.load(prefix, LoadOptions(architecture=str(tmp_path / "model.json")))


def test_weights_without_an_architecture_say_what_is_missing(tmp_path: Path) -> None:
    _model().save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(LoadError, match=r"holds weights only; give the architecture.*--architecture FILE"):
        sources.load(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("kind", ["hdf5", "checkpoint"])
def test_weights_of_another_model_are_refused(kind: str, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7), keras.layers.Dense(7)])
    (tmp_path / "model.json").write_text(other.to_json())
    model, path = _model(), tmp_path / "model.weights.h5"
    if kind == "hdf5":
        model.save_weights(path)
    else:
        path = Path(tf.train.Checkpoint(model=model).save(str(tmp_path / "at")))
    with pytest.raises(LoadError, match=r"cannot load|does not hold the weights"):
        sources.load(path, LoadOptions(architecture=str(tmp_path / "model.json")))


@pytest.mark.parametrize(
    ("member", "content", "says"),
    [
        pytest.param("model.weights.h5", None, "has no model.weights.h5 in it", id="no weights"),
        pytest.param("config.json", b"[]", "has no class_name", id="a list for a configuration"),
        pytest.param("config.json", b"{}", "has no class_name", id="an empty configuration"),
    ],
)
def test_an_archive_that_lacks_something_says_what(
    member: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    _model().save(tmp_path / "whole.keras")
    with (
        zipfile.ZipFile(tmp_path / "whole.keras") as whole,
        zipfile.ZipFile(tmp_path / "part.keras", "w") as part,
    ):
        for name in whole.namelist():
            if name != member:
                part.writestr(name, whole.read(name))
        if content is not None:
            part.writestr(member, content)
    with pytest.raises(LoadError, match=says):
        sources.load(tmp_path / "part.keras")


@pytest.mark.parametrize("option", ["architecture", "signature", "tag"])
def test_what_a_file_has_no_use_for_is_refused(option: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {option: "other"}
    _model().save(tmp_path / "model.keras")
    with pytest.raises(LoadError, match=f"leave --{option} out"):
        sources.load(tmp_path / "model.keras", LoadOptions(**given))


def test_an_architecture_alone_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(_model().to_json())
    with pytest.raises(LoadError, match="is an architecture without weights"):
        sources.load(tmp_path / "model.json")


def test_an_exported_model_keeps_the_names_of_its_inputs(
    tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    _model().export(str(tmp_path / "exported"), verbose=False)
    source: Any = sources.load(tmp_path / "exported")
    graph = equal_to_original(source, _X)
    assert [value.name for value in graph.graph.inputs] == ["x"]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_operations_between_layers_are_read(
    suffix: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    x = inputs = keras.Input((5,), name="x")
    y = keras.layers.Dense(5)(x)
    z = keras.layers.Add()([x + y, keras.ops.maximum(x, y)[:, ::-1] * 2.0])[..., 1:]
    z = keras.layers.Reshape((4, 1))(keras.ops.cast(z, "float32"))
    model = keras.Model(inputs, keras.layers.Attention(use_scale=True)([z, z]))
    model.save(tmp_path / f"model.{suffix}")
    equal_to_original(sources.load(tmp_path / f"model.{suffix}"), _X)


def test_a_ragged_input_is_refused() -> None:
    inputs = keras.Input((None,), dtype="int32", ragged=True, name="rows")
    with pytest.raises(
        ConversionError, match="the input 'rows' is a ragged tensor, which ONNX does not have"
    ):
        sources.load(keras.Model(inputs, inputs + 1))
