"""The data sets that ship with scikit-learn, split and scaled: x_train, x_test, y_train, y_test.

Features are float32 with mean 0 and standard deviation 1, images float32 of 8 x 8 x 1 in [0, 1].

The examples import this module before Keras, to suppress TensorFlow's informational messages: level 1 keeps
warnings and errors, and the message on oneDNN is printed at any level unless oneDNN is off.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


class Split(NamedTuple):
    """A data set with a fifth held out for testing."""

    x_train: NDArray[np.float32]
    x_test: NDArray[np.float32]
    y_train: NDArray[Any]
    y_test: NDArray[Any]


def digits() -> Split:
    """1,797 images of handwritten digits; the label is the digit."""
    images, labels = datasets.load_digits(return_X_y=True)
    return Split(*train_test_split(_images(images), labels, test_size=0.2, random_state=0))


def iris() -> Split:
    """150 flowers with four measurements; the label is one of three species."""
    return _table(datasets.load_iris)


def breast_cancer() -> Split:
    """569 tumours with thirty measurements; the label is 1 for benign."""
    return _table(datasets.load_breast_cancer)


def diabetes() -> Split:
    """442 patients with ten measurements; the label is the progression of the disease after a year."""
    return _table(datasets.load_diabetes)


def _images(pixels: NDArray[Any]) -> NDArray[np.float32]:
    return (pixels.reshape(-1, 8, 8, 1) / 16).astype(np.float32)


def _table(load: Callable[..., Any]) -> Split:
    features, labels = load(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(features, labels, test_size=0.2, random_state=0)
    mean, deviation = x_train.mean(0), x_train.std(0)
    x_train, x_test = (((x - mean) / deviation).astype(np.float32) for x in (x_train, x_test))
    return Split(x_train, x_test, y_train, y_test)
