"""Writes the artifacts beside it: `python tests/runtime/evaluation/make.py`, where the compiler is.

They are committed, with what Keras reports for the same rows, because the runtime's tests run in an
environment that has neither Keras nor onnx.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np

from kerve.compiler import compile_model

HERE = Path(__file__).parent
ROWS = 300


def model(units: int, activation: str | None) -> keras.Model:
    return keras.Sequential(
        [keras.layers.Input((4,), name="x"), keras.layers.Dense(units, activation=activation, name="y")]
    )


def main() -> None:
    random = np.random.default_rng(2)
    x = random.standard_normal((ROWS, 4)).astype(np.float32)
    classes, numbers = random.integers(0, 3, ROWS), random.standard_normal((ROWS, 2)).astype(np.float32)
    weights = random.random(ROWS).astype(np.float32)
    np.savez(HERE / "rows.npz", x=x, classes=classes, numbers=numbers, weights=weights)
    told = {}
    for name, units, activation, y, compiled in (
        (
            "classifier",
            3,
            "softmax",
            classes,
            {
                "loss": "sparse_categorical_crossentropy",
                "metrics": ["accuracy"],
                "weighted_metrics": ["accuracy"],
            },
        ),
        (
            "summed",
            2,
            None,
            numbers,
            {"loss": keras.losses.MeanSquaredError(reduction="sum"), "metrics": ["mae"]},
        ),
    ):
        shutil.rmtree(HERE / "models" / name, ignore_errors=True)
        for seed in (1, 2):
            keras.utils.set_random_seed(seed)
            built = model(units, activation)
            built.compile(**compiled)
            artifact = compile_model(built, repository=HERE / "models", name=name)
            for kind, given in (("plain", None), ("weighted", weights)):
                told[f"{name}/{artifact.version}/{kind}"] = built.evaluate(
                    x, y, sample_weight=given, batch_size=32, verbose=0, return_dict=True
                )
    (HERE / "keras.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
