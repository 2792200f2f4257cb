"""Weights that lie in groups, as layers do, reach every layer: files keep those of a shared one once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from kerve.compiler import LoadError, sources
from kerve.compiler.sources import LoadOptions

_X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
_BOTH = pytest.mark.parametrize(
    "its", [pytest.param(keras, id="keras3"), pytest.param(tf_keras, id="keras2")]
)


def _shared(its: Any) -> Any:
    """Return a model that has a layer, and a model within it, in common with a model within it."""
    shared = its.layers.Dense(4, activation="tanh", name="shared")
    several = its.Sequential([its.layers.Dense(4), its.layers.Dense(4)], name="several")
    inner = its.Input((4,))
    within = its.Model(inner, several(shared(inner)), name="within")
    x = its.Input((4,), name="x")
    return its.Model(x, within(x) + shared(several(x)))


def _alike(its: Any) -> Any:
    """Return a model of two within it whose layers have the same names, and weights of their own."""
    x = its.Input((4,), name="x")
    parts = [its.Sequential([its.layers.Dense(4, name="dense")], name=name) for name in ("first", "second")]
    return its.Model(x, parts[0](x) * 2.0 + parts[1](x))


@_BOTH
@pytest.mark.parametrize("made", [_shared, _alike])
def test_every_layer_has_its_weights(its: Any, made: Callable[[Any], Any], tmp_path: Path) -> None:
    model = made(its)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    options = LoadOptions(architecture=str(tmp_path / "model.json"))
    for source in (
        sources.load(tmp_path / "model.keras"),
        sources.load(tmp_path / "model.weights.h5", options),
    ):
        (answer,) = source.reference(source.lower(21))({"x": _X}).values()
        np.testing.assert_allclose(answer, np.asarray(model(_X)), rtol=1e-5, atol=1e-6)


def _keeping(its: Any, kept: Callable[[Any], Any]) -> Any:
    """Return the class of a layer that keeps another one in some way."""

    class Keeping(its.layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.layer = its.layers.Dense(4, name="inside")
            self.kept = kept(self.layer)
            del self.layer

        def build(self, shape: Any) -> None:
            for layer in self._flatten_layers(recursive=False, include_self=False):
                layer.build(shape)
            self.built = True

        def call(self, inputs: Any) -> Any:
            for layer in self._flatten_layers(recursive=False, include_self=False):
                inputs = layer(inputs)
            return inputs

    return Keeping


@pytest.mark.parametrize(
    ("its", "kept"),
    [
        pytest.param(keras, lambda layer: {layer}, id="keras3-set"),
        pytest.param(tf_keras, lambda layer: [[layer]], id="keras2-lists"),
    ],
)
def test_a_layer_that_keras_left_out_of_the_file_is_told(its: Any, kept: Any, tmp_path: Path) -> None:
    own = _keeping(its, kept)
    x = its.Input((4,), name="x")
    its.Model(x, own()(x)).save(tmp_path / "model.keras")
    with pytest.raises(
        LoadError, match="no weights for 'inside': Keras does not save layers that another one"
    ):
        sources.load(tmp_path / "model.keras", custom_objects={"Keeping": own})
