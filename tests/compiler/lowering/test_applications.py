"""Every architecture of `keras.applications` equals Keras: one of each family here, all with
`make test-applications`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import applications

Check = Callable[..., Any]

#: One cheap architecture of each family, which are compared in every run of the tests.
_USUAL = {
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50V2",
    "Xception",
}

#: The sides of the smallest image that Keras lets an architecture see.
_SIDES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
_SIDE = 32

_ARCHITECTURES = [
    pytest.param(name, marks=() if name in _USUAL else pytest.mark.applications)
    for name, item in sorted(vars(applications).items())
    if inspect.isfunction(item)
]


def _randomised(model: keras.Model) -> keras.Model:
    """Give statistics, scales and shifts values at which an error of theirs cannot hide."""
    generator = np.random.default_rng(3)
    for weight in model.weights:
        kind = weight.path.rpartition("/")[2]
        if kind in ("moving_variance", "gamma"):
            weight.assign(generator.uniform(0.7, 1.3, weight.shape))
        elif kind in ("moving_mean", "beta", "bias"):
            weight.assign(generator.normal(0.0, 0.1, weight.shape))
    return model


@pytest.mark.parametrize("name", _ARCHITECTURES)
def test_an_architecture_equals_keras(equal_to_keras: Check, name: str) -> None:
    size = _SIDES.get(name, _SIDE)
    build = getattr(applications, name)
    model = _randomised(
        build(weights=None, input_shape=(size, size, 3), classes=7, classifier_activation=None)
    )
    images = np.random.default_rng(4).uniform(0, 255, (2, size, size, 3)).astype(np.float32)
    expected = np.asarray(model(images, training=False))
    assert expected.std(axis=0).min() > 0  # the answers tell the images apart
    equal_to_keras(model, images, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(expected).max()), traced=False)
    keras.backend.clear_session()
