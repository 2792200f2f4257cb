"""Layers that prepare numbers, images and sound equal Keras; those that augment do nothing."""

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

from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]
Single = Callable[..., keras.Model]

RNG = np.random.default_rng(17)


def numbers(*shape: int) -> NDArray[Any]:
    return RNG.normal(2.0, 3.0, size=(3, *shape)).astype("float32")


def image(*shape: int) -> NDArray[Any]:
    return RNG.integers(0, 256, (3, *shape))


def adapted(**options: Any) -> layers.Normalization:
    layer = layers.Normalization(**options)
    layer.adapt(numbers(4, 3))
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda: layers.Rescaling(1 / 127.5, -1), id="rescaling"),
        pytest.param(lambda: layers.Rescaling([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]), id="rescaling-channels"),
        pytest.param(lambda: adapted(axis=-1), id="normalization"),
        pytest.param(lambda: adapted(axis=None), id="normalization-all"),
        pytest.param(lambda: adapted(axis=(1, 2)), id="normalization-two"),
        pytest.param(lambda: adapted(axis=-1, invert=True), id="normalization-inverted"),
        pytest.param(
            lambda: layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 0, 3]), id="normalization-given"
        ),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8"])
def test_numbers_are_rescaled(
    equal_to_keras: Check, single: Single, layer: Callable[[], keras.Layer], dtype: str
) -> None:
    equal_to_keras(single(layer(), (4, 3), dtype=dtype), np.abs(numbers(4, 3)).astype(dtype))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_numbers_are_rescaled_in_every_type(equal_to_keras: Check, policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    x = keras.Input((4, 3))
    model = keras.Model(x, [layers.Rescaling(0.5, -1)(x), layers.Normalization(mean=1.0, variance=2.0)(x)])
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 5e-2, "float64": 1e-9}[policy]
    equal_to_keras(model, numbers(4, 3).astype(x.dtype), rtol=tolerance, atol=tolerance)


def test_normalization_computes_its_constants_when_it_is_compiled(
    equal_to_keras: Check, single: Single, operators: Count
) -> None:
    graph = equal_to_keras(single(adapted(axis=-1), (4, 3)), numbers(4, 3), predict=True)
    assert operators(graph) == {"Sub": 1, "Div": 1}


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_the_size_of_resized_images_is_known(single: Single, interpolation: str) -> None:
    model = single(layers.Resizing(5, 7, interpolation=interpolation), (None, None, 3))
    (images,) = lower(model).model.graph.outputs
    assert images.shape is not None
    assert images.shape.dims[1:] == (5, 7, 3)


@pytest.mark.parametrize("antialias", [False, True], ids=["plain", "antialias"])
@pytest.mark.parametrize("size", [(8, 6), (3, 11), (None, None)], ids=str)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5", "area"])
def test_images_are_resized_by_every_filter(
    equal_to_keras: Check, single: Single, interpolation: str, size: tuple[Any, Any], antialias: bool
) -> None:
    layer = layers.Resizing(5, 7, interpolation=interpolation, antialias=antialias)
    data = image(*(9 if n is None else n for n in size), 2).astype("float32")
    equal_to_keras(single(layer, (*size, 2)), data, atol=1e-3)


@pytest.mark.parametrize("known", [True, False])
def test_of_two_pixels_as_near_tensorflows_is_taken(
    equal_to_keras: Check, single: Single, known: bool
) -> None:
    size = (16, 52)
    model = single(layers.Resizing(7, 7, interpolation="nearest"), (*(size if known else (None, None)), 2))
    equal_to_keras(model, image(*size, 2).astype("float32"))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [(8, 6), (4, 9), (None, None)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"crop_to_aspect_ratio": True}, {"pad_to_aspect_ratio": True, "fill_value": 7.0}],
    ids=["stretch", "crop", "pad"],
)
def test_images_keep_their_aspect_as_asked(
    equal_to_keras: Check, single: Single, options: dict[str, Any], size: tuple[Any, Any], data_format: str
) -> None:
    sizes = tuple(9 if n is None else n for n in size)
    shape, given = ((*size, 2), (*sizes, 2)) if data_format == "channels_last" else ((2, *size), (2, *sizes))
    model = single(layers.Resizing(5, 7, data_format=data_format, **options), shape)
    equal_to_keras(model, image(*given).astype("float32"), atol=1e-3)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("dtype", [None, "uint8"])
def test_images_of_bytes_are_resized(
    equal_to_keras: Check, single: Single, interpolation: str, dtype: str | None
) -> None:
    model = single(layers.Resizing(5, 7, interpolation=interpolation, dtype=dtype), (8, 6, 2), dtype="uint8")
    equal_to_keras(model, image(8, 6, 2).astype("uint8"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        pytest.param({}, (9, 8, 2), id="larger"),
        pytest.param({}, (None, None, 2), id="open"),
        pytest.param({}, (3, 8, 2), id="smaller"),
        pytest.param({"data_format": "channels_first"}, (2, 9, 8), id="channels-first"),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_the_center_is_cropped(
    equal_to_keras: Check, single: Single, options: dict[str, Any], shape: tuple[Any, ...], dtype: str
) -> None:
    model = single(layers.CenterCrop(4, 5, **options), shape, dtype=dtype)
    equal_to_keras(model, image(*(9 if n is None else n for n in shape)).astype(dtype), atol=1e-3)


@pytest.mark.parametrize("shape", [(None, None, 3), (None, 11, 3), (9, None, 3)], ids=str)
@pytest.mark.parametrize("wanted", [(4, 5), (7, 20), (12, 12)], ids=str)
def test_an_image_of_any_size_is_cropped_or_enlarged(
    equal_to_keras: Check, wanted: tuple[int, int], shape: tuple[Any, ...]
) -> None:
    inputs = keras.Input(shape)
    cropped = layers.CenterCrop(*wanted)(inputs)
    model = keras.Model(inputs, [cropped, layers.Conv2D(2, 3)(cropped)])
    equal_to_keras(model, image(9, 11, 3).astype("float32"), atol=1e-3)


@pytest.mark.parametrize("samples", [512, None], ids=["fixed", "open"])
def test_sound_becomes_a_mel_spectrogram(equal_to_keras: Check, single: Single, samples: int | None) -> None:
    layer = layers.MelSpectrogram(num_mel_bins=8, sampling_rate=8000, sequence_stride=64, fft_length=128)
    equal_to_keras(single(layer, (samples,)), numbers(512), atol=1e-3)


@pytest.mark.parametrize("mode", ["log", "magnitude", "psd", "real", "imag", "angle", "stft"])
def test_sound_becomes_a_spectrogram_of_every_kind(equal_to_keras: Check, single: Single, mode: str) -> None:
    layer = layers.STFTSpectrogram(mode=mode, frame_length=64, frame_step=32, fft_length=64)
    equal_to_keras(single(layer, (256, 1)), numbers(256, 1), rtol=1e-3, atol=1e-3)


def test_sound_of_any_length_becomes_a_spectrogram(equal_to_keras: Check, single: Single) -> None:
    layer = layers.STFTSpectrogram(
        frame_length=64, frame_step=32, fft_length=128, expand_dims=True, padding="same"
    )
    equal_to_keras(single(layer, (None, 2)), numbers(256, 2), numbers(200, 2), rtol=1e-3, atol=1e-3)


AUGMENTATIONS = [
    lambda: layers.AugMix(),
    lambda: layers.CutMix(),
    lambda: layers.MixUp(),
    lambda: layers.RandAugment(),
    lambda: layers.RandomBrightness(0.2),
    lambda: layers.RandomColorDegeneration(0.5),
    lambda: layers.RandomColorJitter(),
    lambda: layers.RandomContrast(0.2),
    lambda: layers.RandomCrop(5, 6),
    lambda: layers.RandomElasticTransform(),
    lambda: layers.RandomErasing(),
    lambda: layers.RandomFlip(),
    lambda: layers.RandomGaussianBlur(),
    lambda: layers.RandomGrayscale(),
    lambda: layers.RandomHue(0.2),
    lambda: layers.RandomInvert(),
    lambda: layers.RandomPerspective(),
    lambda: layers.RandomPosterization(4),
    lambda: layers.RandomRotation(0.2),
    lambda: layers.RandomSaturation(0.5),
    lambda: layers.RandomSharpness(0.5),
    lambda: layers.RandomShear(0.2),
    lambda: layers.RandomTranslation(0.1, 0.1),
    lambda: layers.RandomZoom(0.2),
    lambda: layers.Solarization(),
]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("make", AUGMENTATIONS, ids=lambda make: type(make()).__name__)
def test_augmentation_leaves_images_as_they_are(
    equal_to_keras: Check, single: Single, operators: Count, make: Callable[[], keras.Layer], dtype: str
) -> None:
    model = single(make(), (8, 9, 3), dtype=dtype)
    graph = equal_to_keras(model, image(8, 9, 3).astype(dtype))
    assert set(operators(graph)) <= {"Cast", "Identity"}
    assert lower(model).warnings == ()


def test_images_with_labels_pass_through_augmentation(equal_to_keras: Check) -> None:
    inputs = {"images": keras.Input((8, 9, 3)), "labels": keras.Input((4,))}
    model = keras.Model(inputs, Flipped()(inputs))
    equal_to_keras(model, {"images": image(8, 9, 3).astype("float32"), "labels": numbers(4)})


class Flipped(keras.Layer):
    """Augments images together with their labels."""

    def __init__(self) -> None:
        super().__init__()
        self.flip = layers.RandomFlip()

    def call(self, inputs: Any) -> Any:
        return self.flip(dict(inputs))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: layers.AutoContrast(), id="AutoContrast"),
        pytest.param(lambda: layers.ContrastLimitedAdaptiveHistogramEqualization(), id="CLAHE"),
    ],
)
def test_corrections_that_are_not_random_stay(
    equal_to_keras: Check, single: Single, make: Callable[[], keras.Layer]
) -> None:
    equal_to_keras(single(make(), (8, 9, 3)), image(8, 9, 3).astype("float32"), atol=1e-3)


def test_a_pipeline_of_layers_is_one_after_the_other(equal_to_keras: Check, single: Single) -> None:
    layer = layers.Pipeline([layers.Resizing(5, 7), layers.Rescaling(1 / 255), layers.RandomFlip()])
    equal_to_keras(single(layer, (8, 6, 2)), image(8, 6, 2).astype("float32"))
