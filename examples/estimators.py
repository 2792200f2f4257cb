"""Estimators, removed in TensorFlow 2.16: their exports compile, with raw and with tf.Example receivers.

The present equivalent is a Keras model with one named input per feature.
"""

import shutil
from pathlib import Path

import data
import keras
from workflow import compare, kerve, recorded, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client

# Written by write_estimators.py with model_to_estimator and export_saved_model of TensorFlow 2.15.
EXPORTS = Path(__file__).parent / "fixtures" / "estimators.zip"


def main(folder: Path) -> None:
    shutil.unpack_archive(EXPORTS, folder / "exports")
    asked, answered = recorded(folder / "exports" / "answers.npz")
    models = folder / "models"
    for receiver in ("raw", "parsing"):
        kerve(
            "compile",
            folder / "exports" / receiver,
            "--repository",
            models,
            "--name",
            f"estimator-{receiver}",
        )

    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.iris()
    train, test = ({"sepal": x[:, :2], "petal": x[:, 2:]} for x in (x_train, x_test))
    features = {name: keras.Input((2,), name=name) for name in train}
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.concatenate(list(features.values())))
    model = keras.Model(features, keras.layers.Dense(3, activation="softmax", name="species")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(train, y_train, epochs=5, verbose=0)
    compile_model(model, repository=models, name="keras")

    with serving(models) as address, Client(address) as client:
        for name in ("estimator-raw", "estimator-parsing"):
            compare(name, keras=answered, served=client.predict(name, asked))
        compare(
            "keras", keras={"species": model.predict(test, verbose=0)}, served=client.predict("keras", test)
        )


if __name__ == "__main__":
    start(main)
