"""Reshaping layers equal Keras with sizes fixed and open, in both layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import layers
from numpy.typing import NDArray

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(15)


def batch(shape: tuple[int | None, ...], open_sizes: int = 6, dtype: str = "float32") -> NDArray[Any]:
    sizes = [open_sizes if size is None else size for size in shape]
    return (RNG.normal(size=(3, *sizes)) * 9).astype(dtype)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        pytest.param(lambda: layers.Flatten(), (4, 3), id="flatten"),
        pytest.param(lambda: layers.Flatten(), (None, 3), id="flatten-open"),
        pytest.param(lambda: layers.Flatten(), (), id="flatten-scalars"),
        pytest.param(lambda: layers.Flatten(data_format="channels_first"), (2, 3, 4), id="flatten-first"),
        pytest.param(lambda: layers.Reshape((3, 4)), (12,), id="reshape"),
        pytest.param(lambda: layers.Reshape((-1, 2)), (None, 4), id="reshape-open"),
        pytest.param(lambda: layers.Reshape((2, -1, 2)), (None, 4), id="reshape-middle"),
        pytest.param(lambda: layers.Permute((2, 1)), (None, 4), id="permute"),
        pytest.param(lambda: layers.RepeatVector(3), (4,), id="repeat"),
        pytest.param(lambda: layers.ZeroPadding1D((1, 2)), (None, 3), id="pad1d"),
        pytest.param(lambda: layers.ZeroPadding2D(((1, 2), (0, 3))), (None, 4, 3), id="pad2d"),
        pytest.param(
            lambda: layers.ZeroPadding2D(1, data_format="channels_first"), (3, None, 4), id="pad2d-first"
        ),
        pytest.param(lambda: layers.ZeroPadding3D(2), (3, None, 3, 2), id="pad3d"),
        pytest.param(lambda: layers.Cropping1D((1, 2)), (None, 3), id="crop1d"),
        pytest.param(lambda: layers.Cropping2D(((1, 2), (0, 3))), (None, 6, 3), id="crop2d"),
        pytest.param(lambda: layers.Cropping2D(((0, 2), (1, 0))), (5, 6, 3), id="crop2d-one-side"),
        pytest.param(
            lambda: layers.Cropping2D(1, data_format="channels_first"), (3, None, 6), id="crop2d-first"
        ),
        pytest.param(lambda: layers.Cropping3D(1), (4, None, 5, 2), id="crop3d"),
        pytest.param(lambda: layers.UpSampling1D(3), (None, 4), id="up1d"),
        pytest.param(lambda: layers.UpSampling3D((1, 2, 3)), (None, 2, 2, 3), id="up3d"),
        pytest.param(
            lambda: layers.UpSampling3D(2, data_format="channels_first"), (3, None, 2, 2), id="up3d-first"
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_reshaping_layer_equals_keras(
    equal_to_keras: Check,
    single: Single,
    layer: Callable[[], keras.Layer],
    shape: tuple[int | None, ...],
    dtype: str,
) -> None:
    model = single(layer(), shape, dtype=dtype)
    equal_to_keras(model, batch(shape, 6, dtype), batch(shape, 7, dtype))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [4, None], ids=["fixed", "open"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"])
def test_images_are_enlarged_by_every_filter(
    equal_to_keras: Check, single: Single, interpolation: str, size: int | None, data_format: str
) -> None:
    layer = layers.UpSampling2D((2, 3), interpolation=interpolation, data_format=data_format)
    shape = (2, size, 5) if data_format == "channels_first" else (size, 5, 2)
    equal_to_keras(single(layer, shape), batch(shape, 4))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16"])
def test_images_of_other_types_are_enlarged(equal_to_keras: Check, single: Single, dtype: str) -> None:
    model = single(
        layers.UpSampling2D(2, dtype=dtype if dtype == "float16" else None), (3, 4, 2), dtype=dtype
    )
    equal_to_keras(model, np.abs(batch((3, 4, 2))).astype(dtype))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        pytest.param(lambda: layers.UpSampling1D(3), (None, 4), id="up1d"),
        pytest.param(lambda: layers.UpSampling2D(2), (None, None, 4), id="up2d"),
        pytest.param(lambda: layers.UpSampling2D(2, interpolation="bilinear"), (4, 4, 2), id="bilinear"),
        pytest.param(lambda: layers.UpSampling3D(2), (None, 2, 2, 3), id="up3d"),
    ],
)
def test_enlarging_is_one_resize(
    equal_to_keras: Check,
    single: Single,
    operators: Count,
    layer: Callable[[], keras.Layer],
    shape: tuple[int | None, ...],
) -> None:
    graph = equal_to_keras(single(layer(), shape), batch(shape))
    assert operators(graph) == {"Transpose": 2, "Resize": 1}
