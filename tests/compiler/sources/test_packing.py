"""Int4 layers as Keras 3.11 to 3.13 wrote them: int8 layers of today, with kernels packed as at that time."""

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
from keras.src import quantizers

from kerve.compiler import sources

pytestmark = pytest.mark.skipif(
    not hasattr(keras.src.dtype_policies.dtype_policy, "Int4DTypePolicy"),
    reason="the installed Keras packs as Keras 3.11 did",
)

#: Equations by the axis along which Keras 3.11 packed their kernel.
_EQUATIONS = {"abc,cd->abd": 0, "abc,dc->abd": 1, "abc,cde->abde": 0, "abcd,cde->abe": 0}


@pytest.fixture
def narrow() -> Callable[[keras.layers.Layer, tuple[int, ...]], keras.Model]:
    """Return `narrow(layer, shape)`: a model of the layer in int8, whose weights have four bits."""

    def build(layer: keras.layers.Layer, shape: tuple[int, ...]) -> keras.Model:
        inputs = keras.Input(shape, name="x")
        model = keras.Model(inputs, layer(inputs))
        model.quantize("int8")
        numbers = np.random.default_rng(0).integers(-8, 8, layer._kernel.shape)
        layer._kernel.assign(numbers.astype(np.int8))
        return model

    return build


def _written(model: keras.Model, path: Path, axis: int, version: str) -> Path:
    """Write the model as an earlier Keras would have, which took an int4 layer for it."""
    model.save(path.with_name("today.keras"))
    with zipfile.ZipFile(path.with_name("today.keras")) as today, zipfile.ZipFile(path, "w") as earlier:
        config = json.loads(today.read("config.json"))
        layer = config["config"]["layers"][1]["config"]
        layer["dtype"] = {
            "module": "keras.dtype_policies",
            "class_name": "QuantizedDTypePolicy",
            "config": {"mode": "int4", "source_name": "float32"},
        }
        if version < "3.13":
            del layer["quantization_config"]
        else:
            layer["quantization_config"] = _int4_config()
        weights = io.BytesIO(today.read("model.weights.h5"))
        with h5py.File(weights, "r+") as file:
            (name,) = file["layers"].keys() - {"input_layer"}
            variables = file["layers"][name]["vars"]
            packed = np.asarray(quantizers.pack_int4(variables["0"][()], axis=axis)[0])
            del variables["0"]
            variables["0"] = packed
        earlier.writestr("config.json", json.dumps(config))
        earlier.writestr("metadata.json", json.dumps({"keras_version": version, "date_saved": ""}))
        earlier.writestr("model.weights.h5", weights.getvalue())
    return path


def _int4_config() -> dict[str, Any]:
    """What Keras 3.13 writes of a layer: no size of blocks, and how inputs are quantized."""
    quantizer = {"value_range": [-127, 127], "epsilon": 1e-07, "output_dtype": "int8"}
    activation = {"module": "keras.quantizers", "class_name": "AbsMaxQuantizer", "config": quantizer}
    return {
        "module": "keras.quantizers",
        "class_name": "Int4QuantizationConfig",
        "config": {"weight_quantizer": None, "activation_quantizer": activation},
    }


@pytest.mark.parametrize("version", ["3.11.3", "3.13.2"])
@pytest.mark.parametrize("equation", [None, *_EQUATIONS])
def test_a_layer_packed_along_an_axis_that_is_summed_over_computes_as_before(
    tmp_path: Path,
    narrow: Callable[..., keras.Model],
    equal_to_original: Callable[..., Any],
    equation: str | None,
    version: str,
) -> None:
    layer = keras.layers.Dense(4, name="layer", activation="tanh")
    shape: tuple[int, ...] = (3, 5)
    if equation is not None:
        output = (None, 4, 6) if equation.endswith("de") else (None, 6)
        layer = keras.layers.EinsumDense(equation, output, name="layer")
        shape = (3, 5, 7)[: equation.index(",") - 1]
    model = narrow(layer, shape)
    source = sources.load(
        _written(model, tmp_path / "earlier.keras", _EQUATIONS.get(str(equation), 0), version)
    )
    x = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    equal_to_original(source, {"x": x})
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]


def test_a_layer_packed_as_today_is_left_alone(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5,), name="x"), keras.layers.Dense(8)])
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=None))
    model.save(tmp_path / "today.keras")
    source = sources.load(tmp_path / "today.keras")
    x = np.random.default_rng(1).standard_normal((2, 5)).astype(np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]
