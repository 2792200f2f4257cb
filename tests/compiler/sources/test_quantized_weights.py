"""Files of quantized layers with weights in the orders and shapes that versions of Keras 3 saved."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from kerve.compiler import sources
from kerve.compiler.sources.options import LoadOptions

_X = np.random.default_rng(1).standard_normal((2, 3, 8)).astype(np.float32)


@pytest.fixture
def quantized() -> Callable[[str], keras.Model]:
    def build(mode: str) -> keras.Model:
        keras.utils.set_random_seed(3)
        layers = [
            keras.layers.Dense(6, name="first", bias_initializer="uniform"),
            keras.layers.EinsumDense("abc,cd->abd", (None, 5), name="second", bias_axes="d"),
            keras.layers.Dense(4, name="third", use_bias=False),
        ]
        inputs = keras.Input((3, 8), name="x")
        model = keras.Model(inputs, keras.Sequential(layers[1:], name="inner")(layers[0](inputs)))
        model.quantize(mode)
        return model

    return build


def _check(path: Path, model: keras.Model, equal_to_original: Callable[..., Any], **options: Any) -> None:
    source = sources.load(path, **options)
    np.testing.assert_allclose(source.model(_X), model(_X), rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]
    equal_to_original(source, {"x": _X})


def _as_keras_31(group: h5py.Group) -> None:
    """Reorder the variables of an int8 layer, and give the scales of a Dense layer another axis."""
    kernel, *bias, scale = [group[str(index)][()] for index in range(len(group))]
    values = [*bias, kernel, scale if scale.ndim > 1 else scale[None]]
    group.clear()
    for index, value in enumerate(values):
        group[str(index)] = value


def _archive_of_keras_31(model: keras.Model, path: Path) -> None:
    today = path.with_name("today.keras")
    model.save(today)
    with zipfile.ZipFile(today) as read, zipfile.ZipFile(path, "w") as earlier:
        weights = io.BytesIO(read.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            groups: list[h5py.Group] = []
            file.visititems(
                lambda name, item: groups.append(item) if name.endswith("/vars") and len(item) else None
            )
            for group in groups:
                _as_keras_31(group)
        earlier.writestr("config.json", read.read("config.json"))
        earlier.writestr("metadata.json", json.dumps({"keras_version": "3.1.1", "date_saved": ""}))
        earlier.writestr("model.weights.h5", weights.getvalue())


def test_an_archive_of_keras_3_1_with_the_bias_of_int8_layers_first(
    tmp_path: Path, quantized: Callable[[str], keras.Model], equal_to_original: Callable[..., Any]
) -> None:
    model = quantized("int8")
    _archive_of_keras_31(model, tmp_path / "earlier.keras")
    _check(tmp_path / "earlier.keras", model, equal_to_original)


def test_scales_of_keras_3_1_in_hdf5(
    tmp_path: Path, quantized: Callable[[str], keras.Model], equal_to_original: Callable[..., Any]
) -> None:
    model = quantized("int8")
    path = tmp_path / "earlier.h5"
    model.save(path)
    scales: list[str] = []
    with h5py.File(path, "r+") as file:
        file.visit(lambda name: scales.append(name) if name.endswith("kernel_scale") else None)
        for name in scales:
            value = file[name][()]
            del file[name]
            file[name] = value if value.ndim > 1 else value[None]
    _check(path, model, equal_to_original)


def test_float8_in_hdf5_after_quantization_and_after_loading(
    tmp_path: Path, quantized: Callable[[str], keras.Model], equal_to_original: Callable[..., Any]
) -> None:
    model = quantized("float8")
    model.save(tmp_path / "quantized.h5")
    _check(tmp_path / "quantized.h5", model, equal_to_original)
    loaded = keras.Model.from_config(model.get_config())
    loaded.save(tmp_path / "loaded.h5")
    _check(tmp_path / "loaded.h5", loaded, equal_to_original)


def test_float8_weights_in_hdf5_with_an_architecture(
    tmp_path: Path, quantized: Callable[[str], keras.Model], equal_to_original: Callable[..., Any]
) -> None:
    model = quantized("float8")
    model.save(tmp_path / "model.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    with h5py.File(tmp_path / "model.h5", "r") as file, h5py.File(tmp_path / "weights.h5", "w") as weights:
        for name, value in file["model_weights"].attrs.items():
            weights.attrs[name] = value
        for name in file["model_weights"]:
            file.copy(file["model_weights"][name], weights)
    _check(
        tmp_path / "weights.h5",
        model,
        equal_to_original,
        options=LoadOptions(architecture=str(tmp_path / "model.json")),
    )
