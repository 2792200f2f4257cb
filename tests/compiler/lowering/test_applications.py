"""Every architecture of `keras.applications` equals Keras: one of each family here, or where the passes are
tested (EfficientNet, MobileNetV3), all with `make test-applications`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import applications
from numpy.typing import NDArray

Check = Callable[..., Any]

#: One cheap architecture of each family, which are compared in every run of the tests.
_USUAL = {
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetV2B0",
    "MobileNet",
    "MobileNetV2",
    "NASNetMobile",
    "ResNet50V2",
    "Xception",
}

#: The sides of the smallest image that Keras lets an architecture see.
_SIDES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
_SIDE = 32

#: What rounding may change, in parts of the largest answer. Keras's ResNet152 is 2e-4 from itself in float64.
_ROUNDING = {"ResNet152": 1e-3}

#: The largest take minutes, and more on a machine that is shared.
_UNUSUAL = (pytest.mark.applications, pytest.mark.timeout(1800))

_ARCHITECTURES = [
    pytest.param(name, marks=() if name in _USUAL else _UNUSUAL)
    for name, item in sorted(vars(applications).items())
    if inspect.isfunction(item)
]


def _with_statistics(model: keras.Model, images: NDArray[np.float32]) -> keras.Model:
    """Give scales, shifts and statistics values at which signals neither vanish nor hide an error."""
    generator = np.random.default_rng(3)
    for weight in model.weights:
        kind = weight.path.rpartition("/")[2]
        if kind == "gamma":
            weight.assign(generator.uniform(0.7, 1.3, weight.shape))
        elif kind in ("beta", "bias"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    normalizations = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    for layer in normalizations:
        layer.momentum = 0.0  # statistics become those of the images
    model(images, training=True)
    for layer in normalizations:  # a channel that hardly varies would only amplify rounding
        variance = np.asarray(layer.moving_variance)
        layer.moving_variance.assign(np.maximum(variance, variance.mean()))
    return model


@pytest.mark.parametrize("name", _ARCHITECTURES)
def test_an_architecture_equals_keras(equal_to_keras: Check, name: str) -> None:
    side = _SIDES.get(name, _SIDE)
    images = np.random.default_rng(4).uniform(0, 255, (4, side, side, 3)).astype(np.float32)
    keras.utils.set_random_seed(3)
    build = getattr(applications, name)
    model = _with_statistics(
        build(weights=None, input_shape=(side, side, 3), classes=7, classifier_activation=None), images
    )
    expected = np.asarray(model(images[:2], training=False))
    rounding = _ROUNDING.get(name, 1e-4)
    scale = np.abs(expected).max()
    assert expected.std(axis=0).max() > 10 * rounding * scale  # the answers tell the images apart
    equal_to_keras(model, images[:2], rtol=1e-4, atol=rounding * scale, traced=False)
    keras.backend.clear_session()
