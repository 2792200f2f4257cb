"""What layers derive from their weights is theirs after every way of loading them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerve.compiler import sources
from kerve.compiler.sources import LoadOptions

_ROWS = np.random.default_rng(1).normal(3.0, 2.0, (20, 2)).astype(np.float32)


def _whole(model: Any, folder: Path) -> tuple[Path, LoadOptions]:
    model.save(folder / "m.h5")
    return folder / "m.h5", LoadOptions()


def _archive(model: Any, folder: Path) -> tuple[Path, LoadOptions]:
    model.save(folder / "m.keras")
    return folder / "m.keras", LoadOptions()


def _weights(model: Any, folder: Path) -> tuple[Path, LoadOptions]:
    model.save_weights(folder / "m.weights.h5")
    return folder / "m.weights.h5", _architecture(model, folder)


def _checkpoint(model: Any, folder: Path) -> tuple[Path, LoadOptions]:
    tf.train.Checkpoint(model).write(str(folder / "m"))
    return folder / "m", _architecture(model, folder)


def _architecture(model: Any, folder: Path) -> LoadOptions:
    (folder / "m.json").write_text(model.to_json())
    return LoadOptions(architecture=str(folder / "m.json"))


@pytest.mark.parametrize("saved", [_whole, _weights, _checkpoint])
@pytest.mark.parametrize("library", [keras, tf_keras])
def test_a_normalization_has_the_mean_it_learned_in_nested_models_too(
    library: Any, saved: Callable[..., tuple[Path, LoadOptions]], tmp_path: Path
) -> None:
    normalization = library.layers.Normalization()
    normalization.adapt(_ROWS)
    x = library.Input((2,), name="x")
    inner = library.Model(x, normalization(x), name="inner")
    outer = library.Input((2,), name="rows")
    model = library.Model(outer, library.layers.Dense(3, name="y")(inner(outer)))
    source: Any = sources.load(*saved(model, tmp_path))
    np.testing.assert_allclose(source.model(_ROWS), model(_ROWS), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        source.reference(source.lower(21))({"rows": _ROWS})["y"], model(_ROWS), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("saved", [_whole, _archive, _weights, _checkpoint])
@pytest.mark.parametrize("library", [keras, tf_keras])
def test_a_discretization_has_the_boundaries_it_learned(
    library: Any, saved: Callable[..., tuple[Path, LoadOptions]], tmp_path: Path
) -> None:
    discretization = library.layers.Discretization(num_bins=5)
    discretization.adapt(_ROWS)
    x = library.Input((2,), name="x")
    model = library.Model(x, library.layers.Rescaling(1.0, name="y")(discretization(x)))
    source: Any = sources.load(*saved(model, tmp_path))
    np.testing.assert_array_equal(
        source.reference(source.lower(21))({"x": _ROWS})["y"], np.asarray(model(_ROWS))
    )
