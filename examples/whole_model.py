"""The entire model in HDF5, optimizer included: training goes on where it stopped; it compiles."""

from pathlib import Path

import data
import keras
from workflow import compare, kerve, serving, start

from kerve.runtime import Client


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, epochs=2, shuffle=False, verbose=0)
    model.save(folder / "interrupted.h5")

    resumed = keras.models.load_model(folder / "interrupted.h5")
    for each in (model, resumed):  # the one that never stopped, and the one from the file
        each.fit(x_train, y_train, epochs=2, shuffle=False, verbose=0)
    uninterrupted = model.predict(x_test, verbose=0)
    compare("resumed training", keras=uninterrupted, served=resumed.predict(x_test, verbose=0))

    resumed.save(folder / "digits.h5")
    models = folder / "models"
    kerve("compile", folder / "digits.h5", "--repository", models, "--name", "digits")
    with serving(models) as address, Client(address) as client:
        compare("digits", keras=uninterrupted, served=client.predict("digits", x_test))


if __name__ == "__main__":
    start(main)
