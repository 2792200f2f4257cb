"""The entire model in HDF5 with its optimizer: training resumes where it stopped, and the file compiles."""

import json
import logging
from pathlib import Path

import data
import h5py
import keras
from workflow import compare, kerve, serving, start

from kerve.runtime import Client


def resume(file: Path) -> keras.Model:
    """Load the model with its optimizer's state, which Keras 3's load_model does not restore."""
    model = keras.models.load_model(file, compile=False)
    with h5py.File(file) as opened:
        training = json.loads(opened.attrs["training_config"])
        weights = opened["optimizer_weights"]
        state = [weights[name][()] for name in weights.attrs["weight_names"]]
    model.compile(keras.optimizers.deserialize(training["optimizer_config"]), training["loss"])
    model.optimizer.build(model.trainable_variables)
    for variable, value in zip(model.optimizer.variables, state, strict=True):
        variable.assign(value)
    return model


def main(folder: Path) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)  # suppress the warning that .h5 is a legacy format
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

    resumed = resume(folder / "interrupted.h5")
    for each in (model, resumed):  # the original model and the one from the file
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
