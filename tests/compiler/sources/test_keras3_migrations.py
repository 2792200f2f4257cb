"""Archives as earlier versions of Keras 3 wrote them: archives of today, with those words put in."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerve.compiler import LoadError, sources
from kerve.compiler.sources import LoadOptions

_Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def rewritten(tmp_path: Path) -> Callable[[keras.Model, _Edit], Path]:
    """Return `rewritten(model, edit)`: an archive in which each serialized object was edited."""

    def rewrite(model: keras.Model, edit: _Edit) -> Path:
        today, path = tmp_path / "today.keras", tmp_path / "earlier.keras"
        model.save(today)
        with zipfile.ZipFile(today) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    _visit(config, edit)
                    content = json.dumps(config).encode()
                new.writestr(name, content)
        return path

    return rewrite


def _visit(node: Any, edit: _Edit) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("config"), dict):
            edit(node)
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            _visit(item, edit)


def _functional(name: str) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(4, activation="tanh", name="dense")(inputs), name=name)


def test_a_model_within_returns_a_tensor_where_keras_wrote_a_list_of_one(
    rewritten: Callable[..., Path], equal_to_original: Callable[..., Any]
) -> None:
    def list_of_one(node: dict[str, Any]) -> None:
        if node["class_name"] == "Functional":
            for key in ("input_layers", "output_layers"):
                node["config"][key] = [node["config"][key]]

    within = keras.layers.TimeDistributed(_functional("third"))
    layers = [
        keras.Input((4,), name="x"),
        _functional("first"),
        _functional("second"),
        keras.layers.Reshape((1, 4)),
    ]
    model = keras.Sequential([*layers, within])
    source = sources.load(rewritten(model, list_of_one))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    equal_to_original(source, {"x": x})
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)  # type: ignore[attr-defined]


def test_a_rotation_may_say_what_range_its_images_have(rewritten: Callable[..., Path]) -> None:
    def with_range(node: dict[str, Any]) -> None:
        if node["class_name"] == "RandomRotation":
            node["config"]["value_range"] = [0, 255]

    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.RandomRotation(0.1)])
    assert sources.load(rewritten(model, with_range)).lower(21)


def test_a_file_that_does_not_say_what_becomes_of_a_second_call_is_refused(
    rewritten: Callable[..., Path],
) -> None:
    def first_call(node: dict[str, Any]) -> None:
        history = node["config"].get("keras_history")
        if history and history[0] == "shared":
            history[1] = 0

    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    shared = keras.layers.Dense(2, name="shared")
    model = keras.Model([first, second], keras.layers.Subtract()([shared(first), shared(second)]))
    with pytest.raises(
        LoadError, match=r"'shared' is called 2 times, and the file, .* does not state where each result"
    ):
        sources.load(rewritten(model, first_call))


@pytest.mark.parametrize("returned", [False, True], ids=["used", "used and returned"])
@pytest.mark.parametrize("inner", [False, True], ids=["a layer", "a model"])
def test_calls_are_those_that_the_model_holds(
    rewritten: Callable[..., Path], equal_to_original: Callable[..., Any], inner: bool, returned: bool
) -> None:
    """Keras 3.0 and 3.1 number the calls of a layer that is also called elsewhere."""

    def later(node: dict[str, Any]) -> None:
        history = node["config"].get("keras_history")
        if history and history[0] == "shared":
            history[1] += 3

    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    shared = _functional("shared") if inner else keras.layers.Dense(4, name="shared")
    once = shared(first)
    twice = shared(once if returned else second)
    model = keras.Model([first, second], twice if returned else keras.layers.Subtract()([once, twice]))
    source: Any = sources.load(rewritten(model, later))
    rng = np.random.default_rng(0)
    x = {name: rng.standard_normal((3, 4)).astype(np.float32) for name in ("first", "second")}
    np.testing.assert_allclose(source.model(list(x.values())), model(list(x.values())), rtol=1e-5)
    equal_to_original(source, x)


def test_calls_of_which_two_may_be_meant_are_refused(rewritten: Callable[..., Path]) -> None:
    def later(node: dict[str, Any]) -> None:
        history = node["config"].get("keras_history")
        if history and history[0] == "shared":
            history[1] = 3

    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    once, twice = shared(inputs), shared(keras.layers.ReLU()(inputs))
    model = keras.Model(inputs, keras.layers.Subtract()([once, twice]))
    with pytest.raises(LoadError, match=r"'shared' is called 2 times, .* as Keras 3\.0 and 3\.1 wrote it"):
        sources.load(rewritten(model, later))


def test_an_alpha_that_was_not_written_down_is_told(rewritten: Callable[..., Path]) -> None:
    def without_alpha(node: dict[str, Any]) -> None:
        if node["class_name"] == "ELU":
            del node["config"]["alpha"]

    model = keras.Sequential([keras.Input((4,)), keras.layers.ELU(1.0, name="elu")])
    says = "the alpha of an ELU, so that of 'elu' is taken to be 1.0"
    assert [says in warning for warning in sources.load(rewritten(model, without_alpha)).warnings] == [True]
    assert not sources.load(rewritten(model, lambda _: None)).warnings


def _without_rms_scaling(node: dict[str, Any]) -> None:
    if node["class_name"] == "LayerNormalization":
        del node["config"]["rms_scaling"]


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("rms_scaling", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_a_scaling_that_nothing_shows_is_told(
    rewritten: Callable[..., Path], center: bool, rms_scaling: bool
) -> None:
    layer = keras.layers.LayerNormalization(
        center=center, scale=not center, rms_scaling=rms_scaling, name="norm"
    )
    model = keras.Sequential([keras.Input((4,)), layer])
    (warning,) = sources.load(rewritten(model, _without_rms_scaling)).warnings
    assert "rms_scaling" in warning
    assert "the LayerNormalization 'norm', so it is taken to be False" in warning
    assert not sources.load(rewritten(model, lambda _: None)).warnings


def test_a_normalization_with_two_weights_is_not_scaled_by_rms(rewritten: Callable[..., Path]) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization()])
    assert not sources.load(rewritten(model, _without_rms_scaling)).warnings


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_a_scaling_that_the_weights_show_is_refused_by_name(rewritten: Callable[..., Path]) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization(rms_scaling=True)])
    with pytest.raises(LoadError, match=r"do not save the rms_scaling of a LayerNormalization"):
        sources.load(rewritten(model, _without_rms_scaling))


def _without_padding(node: dict[str, Any]) -> None:
    if node["class_name"].endswith("Transpose"):
        del node["config"]["output_padding"]


@pytest.mark.parametrize("padding", [None, 0, (1, 2)])
@pytest.mark.parametrize("style", ["functional", "sequential", "channels_first"])
def test_an_output_padding_shows_in_what_the_next_layer_takes(
    rewritten: Callable[..., Path], style: str, padding: Any
) -> None:
    options: dict[str, Any] = {"data_format": "channels_first"} if style == "channels_first" else {}
    deconv = keras.layers.Conv2DTranspose(2, 3, strides=(2, 3), output_padding=padding, **options)
    inputs = keras.Input((4, 4, 4))
    if style == "sequential":
        model: keras.Model = keras.Sequential([inputs, deconv, keras.layers.ReLU(), keras.layers.Flatten()])
    else:
        model = keras.Model(inputs, keras.layers.ReLU()(deconv(inputs)))
    source = sources.load(rewritten(model, _without_padding))
    assert source.model.output_shape == model.output_shape  # type: ignore[attr-defined]
    assert not source.warnings


def test_an_output_padding_that_nothing_shows_is_told(rewritten: Callable[..., Path]) -> None:
    last = keras.layers.Conv2DTranspose(2, 3, strides=2, name="last")
    even = keras.layers.Conv2DTranspose(2, 3, name="even")
    model = keras.Sequential([keras.Input((None, None, 3)), even, last])
    (warning,) = sources.load(rewritten(model, _without_padding)).warnings
    assert "nothing else in the file determines that of 'last', so it is taken to be none" in warning


def test_a_checkpoint_may_know_a_kernel_by_its_former_name(tmp_path: Path) -> None:
    layer = keras.layers.Conv1D(2, 3, name="convolution")
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layer(inputs))
    (tmp_path / "model.json").write_text(model.to_json())
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(weight.shape).astype(np.float32) for weight in layer.weights]
    kernel, bias = map(tf.Variable, values)
    operations = tf.train.Checkpoint(**{"1": tf.train.Checkpoint(kernel=kernel, bias=bias)})
    tf.train.Checkpoint(model=tf.train.Checkpoint(_operations=operations)).write(str(tmp_path / "former"))
    source: Any = sources.load(tmp_path / "former", LoadOptions(architecture=str(tmp_path / "model.json")))
    for weight, value in zip(source.model.get_weights(), values, strict=True):
        np.testing.assert_array_equal(weight, value)
