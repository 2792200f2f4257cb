"""Weights with a JSON architecture: HDF5 of Keras 3, and a TensorFlow checkpoint of Keras 2."""

from pathlib import Path

import data
import keras
from workflow import compare, kerve, recorded, serving, start, written_by

from kerve.runtime import Client


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.iris()
    model = keras.Sequential(
        [
            keras.Input((4,), name="measures"),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax", name="species"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, epochs=5, verbose=0)
    (folder / "iris.json").write_text(model.to_json())
    model.save_weights(folder / "iris.weights.h5")

    # Written by save_weights("mlp_checkpoint/my_model") of TensorFlow 2.4; Keras 3 cannot load it.
    old = written_by("tf2.4", folder)
    asked, answered = recorded(old / "mlp_checkpoint.npz")

    models = folder / "models"
    for name, weights, architecture in (
        ("from-hdf5", folder / "iris.weights.h5", folder / "iris.json"),
        ("from-checkpoint", old / "mlp_checkpoint", old / "mlp.json"),
    ):
        kerve("compile", weights, "--architecture", architecture, "--repository", models, "--name", name)

    with serving(models) as address, Client(address) as client:
        compare(
            "from-hdf5", keras=model.predict(x_test, verbose=0), served=client.predict("from-hdf5", x_test)
        )
        (question,) = asked.values()
        compare("from-checkpoint", keras=answered["0"], served=client.predict("from-checkpoint", question))


if __name__ == "__main__":
    start(main)
