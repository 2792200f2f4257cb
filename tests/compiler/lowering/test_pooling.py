"""Pools equal Keras for every size, stride, padding and layout, open sizes included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import keras
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from keras import layers
from numpy.typing import NDArray

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(12)


def batch(shape: tuple[int | None, ...], open_sizes: int = 9, rows: int = 2) -> NDArray[Any]:
    sizes = [open_sizes if size is None else size for size in shape]
    return RNG.normal(size=(rows, *sizes)).astype("float32")


def image(rank: int, data_format: str, size: int | None = None) -> tuple[int | None, ...]:
    return (3, *(size,) * rank) if data_format == "channels_first" else (*(size,) * rank, 3)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_any_pool_equals_keras(
    equal_to_keras: Check, single: Single, kind: str, rank: int, data_format: str
) -> None:
    @settings(max_examples=8, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        draw = data.draw
        size = draw(st.integers(5, 9))
        layer = getattr(layers, f"{kind}Pooling{rank}D")(
            draw(st.integers(1, 4)),
            strides=draw(st.sampled_from([None, 1, 2, 3])),
            padding=draw(st.sampled_from(["valid", "same"])),
            data_format=data_format,
        )
        shape = image(rank, data_format, draw(st.sampled_from([None, size])))
        equal_to_keras(single(layer, shape), batch(shape, size))

    check()


def test_the_average_leaves_out_what_was_padded(equal_to_keras: Check, single: Single) -> None:
    layer = layers.AveragePooling2D(3, strides=1, padding="same")
    equal_to_keras(single(layer, (4, 4, 1)), np.ones((2, 4, 4, 1), np.float32), predict=True)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_global_pools_equal_keras(
    equal_to_keras: Check, single: Single, kind: str, rank: int, data_format: str, keepdims: bool
) -> None:
    layer = getattr(layers, f"Global{kind}Pooling{rank}D")(data_format=data_format, keepdims=keepdims)
    shape = image(rank, data_format)
    equal_to_keras(single(layer, shape), batch(shape, 5), batch(shape, 6), predict=True)


def test_a_global_average_of_images_is_one_pool(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    graph = equal_to_keras(single(layers.GlobalAveragePooling2D(), (5, 5, 3)), batch((5, 5, 3)))
    assert operators(graph) == {"Transpose": 1, "GlobalAveragePool": 1, "Squeeze": 1}


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("output_size", [2, 4, 5, 6, 9])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Max", "Average"])
def test_adaptive_pools_equal_keras(
    equal_to_keras: Check, single: Single, kind: str, rank: int, output_size: int, data_format: str
) -> None:
    layer = getattr(layers, f"Adaptive{kind}Pooling{rank}D")(output_size, data_format=data_format)
    shape = image(rank, data_format, 6)
    equal_to_keras(single(layer, shape), batch(shape))


def test_adaptive_pools_of_unequal_sizes_equal_keras(equal_to_keras: Check, single: Single) -> None:
    layer = layers.AdaptiveAveragePooling2D((3, 5))
    equal_to_keras(single(layer, (7, 10, 2)), batch((7, 10, 2)), predict=True)


def test_an_adaptive_pool_that_divides_its_input_is_one_pool(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    graph = equal_to_keras(single(layers.AdaptiveMaxPooling2D(3), (6, 9, 2)), batch((6, 9, 2)))
    assert operators(graph) == {"Transpose": 2, "MaxPool": 1}


@pytest.mark.parametrize("sizes", [(6, 9), (7, 10), (2, 5)])
@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("open_shape", [(None, None, 2), (None, 10, 2)], ids=["both open", "one open"])
def test_an_adaptive_pool_of_open_sizes_equals_keras(
    equal_to_keras: Check,
    single: Single,
    kind: str,
    sizes: tuple[int, int],
    open_shape: tuple[int | None, ...],
) -> None:
    layer = getattr(layers, f"Adaptive{kind}Pooling2D")((3, 4))
    width = open_shape[1] or sizes[1]
    equal_to_keras(single(layer, open_shape), batch((sizes[0], width, 2)), traced=False)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "float64", "float16"])
def test_pools_of_other_types_equal_keras(equal_to_keras: Check, dtype: str) -> None:
    x = keras.Input((6, 6, 2), dtype=dtype)
    pooled = [
        layers.MaxPooling2D(2, padding="same", dtype="float32" if "int" in dtype else dtype)(x),
        layers.GlobalMaxPooling2D(dtype=None if "int" in dtype else dtype)(x),
    ]
    equal_to_keras(keras.Model(x, pooled), RNG.integers(0, 90, (3, 6, 6, 2)).astype(dtype))
