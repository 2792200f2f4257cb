"""The models evaluated by `evaluation.py`, and their rows.

    python evaluation_models.py compile NAME FOLDER
    python evaluation_models.py evaluate NAME

The second evaluates once for each line of standard input, and prints one line of JSON.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 32
#: Shape of an image, classes, rows.
MODELS: dict[str, tuple[tuple[int, int, int], int, int]] = {
    "digits": ((8, 8, 1), 10, 50_000),
    "mobilenet": ((224, 224, 3), 1000, 128),
    "resnet50": ((224, 224, 3), 1000, 64),
}


@dataclass(frozen=True)
class Rows:
    """Images and their classes."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def rows(name: str) -> Rows:
    """Return random rows, the same every time."""
    shape, classes, count = MODELS[name]
    random = np.random.default_rng(1)
    return Rows(random.random((count, *shape), np.float32), random.integers(0, classes, count))


def model(name: str) -> Any:
    """Return the Keras model, the same every time."""
    import keras

    keras.utils.set_random_seed(0)
    shape, classes, _ = MODELS[name]
    image = keras.Input(shape, name="x")
    if name == "digits":
        x = image
        for filters in (16, 32):
            x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
        x = keras.layers.Dense(64, activation="relu")(keras.layers.Flatten()(x))
        built = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(x))
    else:
        applications = {"mobilenet": keras.applications.MobileNetV2, "resnet50": keras.applications.ResNet50}
        built = applications[name](weights=None, input_tensor=image)
    built.compile(
        loss="sparse_categorical_crossentropy", metrics=["accuracy", "sparse_top_k_categorical_accuracy"]
    )
    return built


def main() -> None:
    task, name, *rest = sys.argv[1:]
    built = model(name)
    if task == "compile":
        from kerve.compiler import compile_model

        compile_model(built, repository=Path(rest[0]), name=name)
        return
    data = rows(name)
    for _ in sys.stdin:
        begin, cpu = time.perf_counter(), time.process_time()
        loss = built.evaluate(data.x, data.y, batch_size=BATCH, verbose=0)[0]
        took = {"seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu, "loss": loss}
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
