"""compile(): optimizers, losses and metrics by name and as objects, for regression and classification."""

from pathlib import Path

import data
import keras
import numpy as np
from workflow import compare, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def regression() -> tuple[keras.Model, data.Split]:
    split = data.diabetes()
    model = keras.Sequential([keras.Input((10,), name="measures"), keras.layers.Dense(1, name="progression")])
    model.compile(optimizer=keras.optimizers.Adam(5.0), loss="mse", metrics=["mae"])
    model.fit(split.x_train, split.y_train, epochs=30, verbose=0)
    return model, split


def classification() -> tuple[keras.Model, data.Split]:
    split = data.digits()
    split = split._replace(
        y_train=keras.utils.to_categorical(split.y_train), y_test=keras.utils.to_categorical(split.y_test)
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.RMSprop(0.01),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=[keras.metrics.CategoricalAccuracy()],
    )
    model.fit(split.x_train, split.y_train, epochs=5, verbose=0)
    return model, split


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    trained = {"diabetes": regression(), "digits": classification()}
    for name, (model, _) in trained.items():
        compile_model(model, repository=folder, name=name)

    with serving(folder) as address, Client(address) as client:
        answers = {name: client.predict(name, split.x_test) for name, (_, split) in trained.items()}

    for name, (model, split) in trained.items():
        compare(name, keras=model.predict(split.x_test, verbose=0), served=answers[name])

    (diabetes, patients), (digits, images) = trained["diabetes"], trained["digits"]
    errors = answers["diabetes"][:, 0] - patients.y_test
    compare(
        "diabetes",
        keras=diabetes.evaluate(patients.x_test, patients.y_test, verbose=0, return_dict=True),
        served={"loss": np.mean(errors**2), "mae": np.mean(np.abs(errors))},
    )
    likelihood = (answers["digits"] * images.y_test).sum(-1)
    right = answers["digits"].argmax(-1) == images.y_test.argmax(-1)
    compare(
        "digits",
        keras=digits.evaluate(images.x_test, images.y_test, verbose=0, return_dict=True),
        served={"loss": -np.log(likelihood).mean(), "categorical_accuracy": right.mean()},
    )


if __name__ == "__main__":
    start(main)
