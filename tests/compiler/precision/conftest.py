"""Models in float32 as the compiler has them when their precision is reduced, and a trained one."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from sklearn.datasets import load_digits

from kerve.compiler.lowering import lower
from kerve.compiler.passes import optimize
from kerve.compiler.precision.reduction import reduce
from kerve.compiler.verification import Dataset, Runner


class Digits(NamedTuple):
    """Images [n, 8, 8, 1] in 0..1 and their digits."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Model:
    """A Keras model, lowered and optimized, in a file."""

    def __init__(self, keras_model: keras.Model, folder: Path) -> None:
        self.folder = folder
        self.model = optimize(lower(keras_model).model)
        self.path = folder / "float32.onnx"
        ir.save(self.model, self.path)
        self.answer = Runner(self.path)

    def reduced(self, precision: str, **inputs: np.ndarray) -> Reduced:
        """Return the model in a precision, its ranges measured on the inputs."""
        dataset = Dataset("user", inputs, {"batch": len(next(iter(inputs.values())))})
        return Reduced(reduce(self.model, self.path, precision, dataset), self.folder / f"{precision}.onnx")


class Reduced:
    """A model in a reduced precision, checked and loaded."""

    def __init__(self, model: ir.Model, path: Path) -> None:
        self.model, self.path = model, path
        ir.save(model, path)
        onnx.checker.check_model(path, full_check=True)
        self.answer = Runner(path)

    @property
    def operators(self) -> Counter[str]:
        """The operators in the file."""
        return Counter(node.op_type for node in self.model.graph)

    @property
    def run_operators(self) -> Counter[str]:
        """The operators that ONNX Runtime makes of them on this machine."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(self.path.with_suffix(".run.onnx"))
        ort.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(7)


@pytest.fixture(scope="session")
def float32(tmp_path_factory: pytest.TempPathFactory) -> Callable[[keras.Model], Model]:
    """Return a function that lowers, optimizes and writes a Keras model."""
    return lambda keras_model: Model(keras_model, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Scikit-learn's handwritten digits, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels[order]
    return Digits(images[:1400], labels[:1400], images[1400:], labels[1400:])


@pytest.fixture(scope="session")
def mobile(digits: Digits) -> keras.Model:
    """A small net of depthwise convolutions, trained for some seconds to more than 90 % accuracy."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.layers.Input((8, 8, 1), name="image")
    x = _normalized(keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(x))
    for block in range(2):
        x = _normalized(keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x))
        x = _normalized(keras.layers.Conv2D(32, 1, use_bias=False, name=f"pointwise_{block}")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax", name="probabilities")(x))
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(digits.train_x, digits.train_y, epochs=6, batch_size=32, verbose=0)
    assert (model.predict(digits.test_x, verbose=0).argmax(-1) == digits.test_y).mean() > 0.9
    return model


@pytest.fixture(scope="session")
def unbalanced(mobile: keras.Model) -> keras.Model:
    """The same function, with channels that differ in range as those of MobileNets do, and more.

    What a ReLU lets through is multiplied by a factor per channel, which the next kernel takes back.
    """
    model = keras.models.clone_model(mobile)
    model.set_weights(mobile.get_weights())
    factors = np.random.default_rng(0)
    normalizations = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    pointwise = [each for each in model.layers if getattr(each, "kernel_size", None) == (1, 1)]
    for normalization, convolution in zip(normalizations[1::2], pointwise, strict=True):
        channels = normalization.gamma.shape[0]
        factor = np.exp(factors.uniform(-5.0, 5.0, channels)).astype(np.float32)
        normalization.gamma.assign(normalization.gamma * factor)
        normalization.beta.assign(normalization.beta * factor)
        convolution.kernel.assign(convolution.kernel / factor[:, None])
    return model


def _normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
