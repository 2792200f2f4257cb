"""What only training needs is not asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from kerve.compiler import sources
from kerve.compiler.sources.cleaning import cleaned


def _layer(**fields: Any) -> dict[str, Any]:
    return {"class_name": "Dense", "config": {"name": "d", **fields}}


@pytest.mark.parametrize(
    "value",
    [
        "he_normal",
        "HeNormal",
        {"class_name": "GlorotUniformV2", "config": {"seed": None}},
        {"module": "keras.initializers", "class_name": "Ones", "config": {}, "registered_name": None},
        {"class_name": "research>Mine", "config": {}},
        {"class_name": "function", "config": "Mine"},
        None,
    ],
)
def test_what_is_known_stays(value: Any) -> None:
    config = _layer(kernel_initializer=value)
    assert cleaned(config, ["Mine"]) == (config, [])


@pytest.mark.parametrize(
    "value",
    [
        "my_own",
        {"class_name": "MyOwn", "config": {}},
        {"class_name": "function", "config": "my_own"},
        {"module": "research", "class_name": "Ones", "config": {}, "registered_name": "research>Ones"},
    ],
)
def test_the_authors_own_are_left_out_and_a_regularizer_is_missed(value: Any) -> None:
    config = _layer(kernel_initializer=value, bias_constraint=value, kernel_regularizer=value)
    kept, (missed,) = cleaned(config, [])
    assert kept == _layer(kernel_initializer=None, bias_constraint=None, kernel_regularizer=None)
    assert "its part of the loss is left out; name the module" in missed


def test_the_configuration_of_an_own_class_is_its_own() -> None:
    config = {"class_name": "Mine", "config": {"kernel_initializer": "my scheme"}, "compile_config": {}}
    kept, _ = cleaned(config, ["Mine"])
    assert kept == {"class_name": "Mine", "config": {"kernel_initializer": "my scheme"}}


def _trained(kit: Any) -> Any:
    """A model that nobody can compile again without its author's module; an inner model was compiled too."""

    class OwnLoss(kit.losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return (y_true - y_pred) ** 2

    class OwnStart(kit.initializers.Initializer):
        def __call__(self, shape: Any, dtype: Any = None, **_: Any) -> Any:
            return kit.initializers.Ones()(shape, dtype)

    def own_metric(y_true: Any, y_pred: Any) -> Any:
        return y_true - y_pred

    x = inputs = kit.layers.Input((4,), name="inner_input")
    inner = kit.Model(inputs, kit.layers.Dense(3, kernel_initializer=OwnStart())(x), name="inner")
    inner.compile("adam", OwnLoss())
    inputs = kit.layers.Input((4,), name="x")
    model = kit.Model(inputs, kit.layers.Dense(2, name="y")(inner(inputs)))
    model.compile(kit.optimizers.SGD(0.1), OwnLoss(), metrics=[own_metric])
    model.fit(np.ones((2, 4)), np.ones((2, 2)), verbose=0)
    return model


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("kit", [keras, tf_keras])
def test_a_model_compiled_with_its_authors_objects_is_read_without_them(
    kit: Any, suffix: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    model = _trained(kit)
    model.save(tmp_path / f"model.{suffix}")
    source: Any = sources.load(tmp_path / f"model.{suffix}")
    assert all("could not be restored" in warning for warning in source.warnings)
    x = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)
    equal_to_original(source, {"x": x})
