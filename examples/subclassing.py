"""Model subclassing: with and without compute_output_shape, with one input and with a dict of inputs."""

from pathlib import Path
from typing import Any

import data
import keras
from keras import layers
from workflow import compare, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


class Classifier(keras.Model):
    """Without compute_output_shape: Keras infers the output shape by tracing call()."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.hidden = layers.Dense(16, activation="relu")
        self.dropout = layers.Dropout(0.2)
        self.species = layers.Dense(classes, activation="softmax", name="species")

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.species(self.dropout(self.hidden(inputs), training=training))


class SizedClassifier(Classifier):
    """With compute_output_shape."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.classes = classes

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.classes)


class PetalsAndSepals(keras.Model):
    """Dictionaries as inputs and outputs; clients use their keys as names."""

    def __init__(self) -> None:
        super().__init__()
        self.petals, self.sepals = layers.Dense(8, "relu"), layers.Dense(8, "relu")
        self.species = layers.Dense(3, "softmax")

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"species": self.species(self.petals(inputs["petal"]) + self.sepals(inputs["sepal"]))}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.iris()
    parts_train, parts_test = ({"sepal": x[:, :2], "petal": x[:, 2:]} for x in (x_train, x_test))
    models: dict[str, tuple[keras.Model, Any, Any, Any]] = {
        "plain": (Classifier(3), x_train, y_train, x_test),
        "sized": (SizedClassifier(3), x_train, y_train, x_test),
        "parts": (PetalsAndSepals(), parts_train, {"species": y_train}, parts_test),
    }
    for name, (model, asked, wanted, _) in models.items():
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(asked, wanted, epochs=10, batch_size=32, verbose=0)
        compile_model(model, repository=folder, name=name)

    with serving(folder) as address, Client(address) as client:
        for name, (model, _, _, asked) in models.items():
            compare(name, keras=model.predict(asked, verbose=0), served=client.predict(name, asked))


if __name__ == "__main__":
    start(main)
