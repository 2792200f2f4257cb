"""Custom layers: compiled from the object, from a .keras and from an .h5 file with --import."""

import logging
from pathlib import Path

import data
import keras
from own_layers import Projection, Standardize
from workflow import compare, kerve, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client

OWN_LAYERS = Path(__file__).with_name("own_layers.py")


def main(folder: Path) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)  # suppress the warning that .h5 is a legacy format
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.breast_cancer()
    model = keras.Sequential(
        [
            keras.Input((30,), name="measures"),
            Projection(16),
            Standardize(),
            keras.layers.Dense(1, activation="sigmoid", name="benign"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    model.fit(x_train, y_train, epochs=5, batch_size=32, verbose=0)

    models = folder / "models"
    compile_model(model, repository=models, name="from-object")
    for kind in ("keras", "h5"):
        file = folder / f"tumours.{kind}"
        model.save(file)
        kerve("compile", file, "--import", OWN_LAYERS, "--repository", models, "--name", f"from-{kind}")

    expected = model.predict(x_test, verbose=0)
    with serving(models) as address, Client(address) as client:
        for name in ("from-object", "from-keras", "from-h5"):
            compare(name, keras=expected, served=client.predict(name, x_test))


if __name__ == "__main__":
    start(main)
