"""compile(): optimizers, losses and metrics by name and as objects, for regression and classification."""

from pathlib import Path

import data
import keras
from workflow import compare, compare_evaluation, serving, start

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
    models = folder / "models"
    for name, (model, _) in trained.items():
        compile_model(model, repository=models, name=name)

    with serving(models) as address, Client(address) as client:
        for name, (model, (_, x, _, y)) in trained.items():
            compare(name, keras=model.predict(x, verbose=0), served=client.predict(name, x))
            compare_evaluation(name, model, x, y, folder=folder, address=address)


if __name__ == "__main__":
    start(main)
