"""Sequential models are built when their last layer is there, and are then what Keras makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kerve.compiler import sources
from kerve.compiler.sources import LoadOptions

_X = {"x": np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)}


class _Own(keras.Sequential):
    pass


def _model() -> keras.Model:
    inner = _Own([keras.Input((4,)), layers.Dense(4, "relu"), layers.Dropout(0.5)], name="inner")
    opened = keras.Sequential([layers.Dense(6), layers.BatchNormalization()], name="opened")
    first = [keras.Input((5,), name="x"), layers.Dense(4, "tanh")]
    return keras.Sequential([*first, inner, opened], name="outer")


@pytest.mark.parametrize("suffix", ["keras", "h5", "weights.h5"])
def test_a_sequential_model_is_built_once(
    suffix: str,
    tmp_path: Path,
    equal_to_original: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, path, options = _model(), tmp_path / f"model.{suffix}", LoadOptions()
    if suffix == "weights.h5":
        (tmp_path / "model.json").write_text(model.to_json())
        options = LoadOptions(architecture=str(tmp_path / "model.json"))
        model.save_weights(path)
    else:
        model.save(path)
    built: list[str] = []
    build = keras.Sequential.build

    def counted(self: keras.Sequential, *args: Any, **kwargs: Any) -> None:
        built.append(self.name)
        build(self, *args, **kwargs)

    monkeypatch.setattr(keras.Sequential, "build", counted)
    source: Any = sources.load(path, options, custom_objects={"_Own": _Own})
    assert built.count("outer") == 1
    monkeypatch.undo()
    assert type(source.model) is keras.Sequential
    assert type(source.model.get_layer("inner")) is _Own
    np.testing.assert_allclose(source.model(_X["x"]), model(_X["x"]), rtol=1e-6)
    equal_to_original(source, _X)
