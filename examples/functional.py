"""Functional API: two inputs, two outputs, a shared encoder with a residual connection."""

from pathlib import Path
from typing import Any

import data
import keras
import numpy as np
from keras import layers
from workflow import compare, compare_evaluation, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def encoder() -> keras.Model:
    image = keras.Input((8, 8, 1))
    x = layers.Dense(32, activation="relu")(layers.Flatten()(image))
    residual = layers.Dense(32, activation="relu")(x)
    return keras.Model(image, layers.add([x, residual]), name="encoder")


def network() -> keras.Model:
    left, right = keras.Input((8, 8, 1), name="left"), keras.Input((8, 8, 1), name="right")
    shared = encoder()
    both = layers.concatenate([shared(left), shared(right)])
    hidden = layers.Dense(32, activation="relu")(both)
    outputs = {
        "greater": layers.Dense(1, activation="sigmoid", name="greater")(hidden),
        "total": layers.Dense(1, name="total")(hidden),
    }
    return keras.Model([left, right], outputs, name="pairs")


def pairs(images: Any, labels: Any, count: int, rng: np.random.Generator) -> tuple[dict[str, Any], ...]:
    left, right = rng.integers(0, len(images), (2, count))
    asked = {"left": images[left], "right": images[right]}
    return asked, {"greater": labels[left] > labels[right], "total": labels[left] + labels[right]}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x_train, x_test, y_train, y_test = data.digits()
    x, y = pairs(x_train, y_train, 2000, rng)
    x_held, y_held = pairs(x_test, y_test, 100, rng)

    model = network()
    losses = {"greater": "binary_crossentropy", "total": "mse"}
    model.compile("adam", losses, loss_weights={"greater": 1.0, "total": 0.1})
    model.fit(x, y, epochs=5, batch_size=32, verbose=0)

    models = folder / "models"
    compile_model(model, repository=models, name="pairs")
    with serving(models) as address, Client(address) as client:
        signature = client.metadata("pairs").signature
        print("  inputs:", *(spec.name for spec in signature.inputs))
        print("  outputs:", *(spec.name for spec in signature.outputs))
        answers = client.predict("pairs", x_held)
        compare_evaluation("pairs", model, x_held, y_held, folder=folder, address=address)
    compare("pairs", keras=model.predict(x_held, verbose=0), served=answers)


if __name__ == "__main__":
    start(main)
