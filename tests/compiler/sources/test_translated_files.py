"""Old files, read with code written for Keras 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from kerve.compiler import sources
from kerve.compiler.errors import LoadError
from kerve.compiler.sources import LoadOptions
from kerve.compiler.sources.keras2 import legacy

ModelOf = Callable[[tuple[int, ...], Any], tf_keras.Model]
_VECTOR, _SEQUENCE = (6,), (6, 4)


def test_an_old_file_is_read_with_layers_written_for_keras_3(
    tmp_path: Any, equal_to_original: Callable[..., Any], model_of: ModelOf
) -> None:
    class Scale(layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight("scale", (shape[-1],), initializer="ones")

        def call(self, inputs: Any) -> Any:
            return inputs * self.scale

    model = model_of(_VECTOR, Scale())
    model.save(tmp_path / "model.h5")
    source: Any = sources.load(tmp_path / "model.h5", custom_objects={"Scale": _Scale})
    assert isinstance(source.model.layers[-1], _Scale)
    x = np.random.default_rng(0).random((3, 6), np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-6)
    equal_to_original(source, {"x": x})


class _Leaking(keras.layers.Layer):
    """A cell, as one wrote it for Keras 2, which takes a constant."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(**config)
        self.units = self.state_size = self.output_size = units

    def build(self, shape: Any) -> None:
        shape = shape[0] if isinstance(shape, list) else shape
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs: Any, states: Any, constants: Any = None) -> Any:
        state = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + states[0] * constants[0])
        return state, [state]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def test_a_cell_written_for_keras_3_takes_the_constants_of_an_old_file(
    tmp_path: Any, equal_to_original: Callable[..., Any]
) -> None:
    class Leaking(layers.Layer):
        def __init__(self, units: int, **config: Any) -> None:
            super().__init__(**config)
            self.units = self.state_size = self.output_size = units

        def build(self, shape: Any) -> None:
            shape = shape[0] if isinstance(shape, list) else shape
            self.kernel = self.add_weight("kernel", (shape[-1], self.units))

        def call(self, inputs: Any, states: Any, constants: Any = None) -> Any:
            state = tf.tanh(tf.linalg.matmul(inputs, self.kernel) + states[0] * constants[0])
            return state, [state]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    steps, constant = tf_keras.Input(_SEQUENCE, name="steps"), tf_keras.Input((1,), name="constant")
    model = tf_keras.Model([steps, constant], layers.RNN(Leaking(3))(steps, constants=constant))
    model.save(tmp_path / "model.h5")
    source: Any = sources.load(tmp_path / "model.h5", custom_objects={"Leaking": _Leaking})
    rng = np.random.default_rng(0)
    x = {
        name: rng.random((2, *shape), np.float32)
        for name, shape in (("steps", _SEQUENCE), ("constant", (1,)))
    }
    np.testing.assert_allclose(
        source.original([x["steps"], x["constant"]]), model([x["steps"], x["constant"]])
    )
    equal_to_original(source, x)


@pytest.mark.parametrize(
    "layer",
    [
        layers.experimental.RandomFourierFeatures(5, scale=2.0),
        legacy.SpectralNormalization(layers.Dense(5)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_tf_keras_does_not_find_by_its_name_is_read(
    layer: Any, tmp_path: Any, model_of: ModelOf
) -> None:
    model = model_of(_VECTOR, layer)
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).standard_normal((3, *_VECTOR)).astype(np.float32)
    source: Any = sources.load(tmp_path / "model.h5")
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)


@pytest.mark.parametrize("implementation", [1, 2])
def test_the_gates_of_a_peephole_cell_see_its_state(
    implementation: int,
    tmp_path: Any,
    model_of: ModelOf,
    equal_to_original: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(legacy.PeepholeLSTMCell, "__module__", "keras.layers")
    model = model_of(_SEQUENCE, layers.RNN(legacy.PeepholeLSTMCell(1, implementation=implementation)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(each.shape) for each in model.get_weights()])
    model.save(tmp_path / "model.h5")
    x = rng.standard_normal((2, *_SEQUENCE)).astype(np.float32)
    source: Any = sources.load(tmp_path / "model.h5")
    kernel, recurrent, bias, *peepholes = model.get_weights()
    h = c = np.zeros((2, 1))
    for step in np.moveaxis(x, 1, 0):
        i, f, new, o = np.split(step @ kernel + h @ recurrent + bias, 4, axis=1)
        c = _sigmoid(f + peepholes[1] * c) * c + _sigmoid(i + peepholes[0] * c) * np.tanh(new)
        h = _sigmoid(o + peepholes[2] * c) * np.tanh(c)
    np.testing.assert_allclose(source.original(x), h, rtol=1e-5)
    equal_to_original(source, {"x": x})


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("place", ["functional", "sequential", "wrapped"])
def test_a_layer_that_is_not_known_is_named(place: str, tmp_path: Any, model_of: ModelOf) -> None:
    class Twice(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2.0 * inputs

    if place == "sequential":
        model = tf_keras.Sequential([tf_keras.Input(_SEQUENCE), Twice()])
    else:
        model = model_of(_SEQUENCE, layers.TimeDistributed(Twice()) if place == "wrapped" else Twice())
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"], object_hook=_without_module)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(LoadError, match=r"Unknown layer: 'Twice'.* --import MODULE"):
        sources.load(tmp_path / "model.h5")


def _without_module(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what is of a layer as Keras wrote it before 2.13."""
    return {key: value for key, value in fields.items() if key not in ("module", "registered_name")}


def test_a_checkpoint_gives_its_weights_to_each_copy_of_a_model_within(tmp_path: Path) -> None:
    inputs = tf_keras.Input(_VECTOR)
    inner = tf_keras.Model(inputs, layers.Dense(4)(inputs), name="inner")
    middle = tf_keras.Model(inputs, layers.Dense(4)(inner(inputs)), name="middle")
    model = tf_keras.Model(inputs, layers.Add()([middle(inputs), inner(inputs)]))
    model.set_weights([np.random.default_rng(0).random(each.shape) for each in model.get_weights()])
    config = json.loads(model.to_json(), object_hook=_without_identity)
    (tmp_path / "model.json").write_text(json.dumps(config))
    model.save_weights(tmp_path / "weights", save_format="tf")
    source: Any = sources.load(tmp_path / "weights", LoadOptions(architecture=str(tmp_path / "model.json")))
    x = np.random.default_rng(1).random((3, *_VECTOR)).astype(np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)


def _without_identity(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what is of a layer as Keras wrote it before 2.9."""
    return {key: value for key, value in fields.items() if key != "shared_object_id"}


def _perceptron(of: Any, builds: bool) -> type:
    """Return a class of either Keras: layers in attributes, in lists, and built by itself or by Keras."""

    class Perceptron(of.Layer):
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            self.first = of.Dense(4, name="first")
            self.blocks = [of.Dense(4, name="block")]
            self._kept = {"norm": of.BatchNormalization(name="norm")}

        def call(self, inputs: Any) -> Any:
            return self._kept["norm"](self.blocks[0](self.first(inputs)))

    def build(self: Any, shape: Any) -> None:
        self.first.build(shape)
        self.blocks[0].build((None, 4))
        self._kept["norm"].build((None, 4))

    if builds:
        Perceptron.build = build
    return Perceptron


@pytest.mark.parametrize(
    ("kind", "builds"),
    [
        pytest.param("saved", True, id="a SavedModel of a layer that builds"),
        pytest.param("saved", False, id="a SavedModel of one that Keras builds"),
        pytest.param("checkpoint", True, id="a checkpoint of a layer that builds"),
        pytest.param("checkpoint", False, id="a checkpoint of one that Keras builds"),
        pytest.param("h5", False, id="an HDF5 file of one that Keras builds"),
    ],
)
def test_layers_written_for_keras_3_have_their_weights_from_every_kind_of_file(
    tmp_path: Path, equal_to_original: Callable[..., Any], kind: str, builds: bool, model_of: ModelOf
) -> None:
    model = model_of(_VECTOR, _perceptron(layers, builds)())
    rng = np.random.default_rng(0)
    model.set_weights([rng.random(each.shape) + 0.5 for each in model.get_weights()])
    (tmp_path / "model.json").write_text(model.to_json())
    path, options = tmp_path / kind, sources.LoadOptions()
    if kind == "checkpoint":
        path.mkdir()
        model.save_weights(path / "weights")
        options = sources.LoadOptions(architecture=str(tmp_path / "model.json"))
    else:
        model.save(path, save_format="h5" if kind == "h5" else "tf")
    source: Any = sources.load(path, options, {"Perceptron": _perceptron(keras.layers, builds)})
    assert type(source.model.layers[-1]).__name__ == "Perceptron"
    x = rng.random((3, 6), np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)
    equal_to_original(source, {"x": x})


def test_an_old_file_is_read_with_functions_registered_with_keras_3(
    tmp_path: Any, equal_to_original: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, model_of: ModelOf
) -> None:
    monkeypatch.setitem(keras.saving.get_custom_objects(), "authors>double", _double)
    model = model_of(_VECTOR, layers.Activation(_double))
    model.layers[-1].activation.__name__ = "authors>double"
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).random((3, 6), np.float32)
    equal_to_original(sources.load(tmp_path / "model.h5"), {"x": x})


def _double(x: Any) -> Any:
    return tf.nn.relu6(x) * 2.0


class _Scale(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return keras.ops.multiply(inputs, self.scale)


def test_an_old_file_with_a_model_class_of_keras_3_says_what_to_set(tmp_path: Path) -> None:
    class Own(tf_keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

        def get_config(self) -> dict[str, Any]:
            return {}

    model = Own(name="own")
    model(np.ones((2, 3), np.float32))
    model.save(tmp_path / "own.keras")
    own = type("Own", (keras.Model,), {"call": lambda self, inputs: inputs * 2.0})
    with pytest.raises(LoadError, match=r"the class Own that was given is of Keras 3; set TF_USE_LEGACY"):
        sources.load(tmp_path / "own.keras", custom_objects={"Own": own})


@pytest.mark.parametrize("is_whole", [True, False], ids=["a model", "weights and an architecture"])
def test_a_model_within_another_has_its_weights_whatever_was_frozen_when_it_was_saved(
    is_whole: bool, tmp_path: Any, model_of: ModelOf
) -> None:
    inner = tf_keras.Sequential([layers.Dense(6, input_shape=_VECTOR, name="a"), layers.Dense(6, name="b")])
    model = model_of(_VECTOR, inner)
    inner.layers[0].trainable = False  # so that it comes last
    file, options = tmp_path / "model.h5", LoadOptions()
    if is_whole:
        model.save(file)
    else:
        model.save_weights(file)
        (tmp_path / "model.json").write_text(model.to_json())
        options = LoadOptions(architecture=str(tmp_path / "model.json"))
    with h5py.File(file, "r+") as saved:  # as Keras wrote it up to TensorFlow 1.15 while all of `inner` was
        group = saved.get("model_weights", saved)[inner.name]
        group.attrs["weight_names"] = np.roll(group.attrs["weight_names"], 2)
    x = np.random.default_rng(0).random((3, *_VECTOR), np.float32)
    source: Any = sources.load(file, options)
    np.testing.assert_allclose(source.original(x), model(x), rtol=1e-5)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)


@pytest.mark.parametrize("name", ["kullback_leibler_divergence", "logcosh"])
def test_losses_and_metrics_are_restored_by_the_names_that_keras_2_has_for_them(
    name: str, tmp_path: Any, model_of: ModelOf
) -> None:
    model = model_of(_VECTOR, layers.Dense(2, activation="softmax"))
    model.compile("adam", loss=name)
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        training = json.loads(file.attrs["training_config"])
        file.attrs["training_config"] = json.dumps({**training, "metrics": [name]})  # as Keras 2.2 writes it
    source: Any = sources.load(tmp_path / "model.h5")
    assert source.warnings == []
    x, y = np.random.default_rng(0).random((2, 3, *_VECTOR), np.float32)
    expected = model.evaluate(x, y[:, :2], verbose=0)
    assert source.model.evaluate(x, y[:, :2], verbose=0) == pytest.approx([expected, expected], rel=1e-4)


def test_a_file_that_does_not_say_what_the_inputs_are_is_told_so(tmp_path: Path, model_of: ModelOf) -> None:
    model_of(_VECTOR, layers.Dense(2)).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:  # as Keras 2.3 writes [InputLayer(6), Dense(2)]
        config = json.loads(file.attrs["model_config"])
        dense = config["config"]["layers"][-1]
        dense["config"].pop("batch_input_shape", None)
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Sequential", "config": {"name": "model", "layers": [dense]}}
        )
    with pytest.raises(LoadError, match="does not describe the inputs"):
        sources.load(tmp_path / "model.h5")
