"""Configuration only: JSON, and YAML of Keras 2, compile with weights; YAML that contains code is refused."""

from pathlib import Path

import data
import keras
from workflow import compare, kerve, recorded, serving, start, written_by

from kerve.compiler import compile_model
from kerve.runtime import Client


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.iris()
    designed = keras.Sequential(
        [
            keras.Input((4,), name="measures"),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax", name="species"),
        ]
    )
    model = keras.models.model_from_json(designed.to_json())  # the same layers, with new weights
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x_train, y_train, epochs=5, verbose=0)
    models = folder / "models"
    compile_model(model, repository=models, name="from-json")

    # Written by to_yaml() and save_weights() of Keras 2.3; Keras 3 no longer has this format or to_yaml().
    old = written_by("keras2.3", folder)
    asked, answered = recorded(old / "mlp_weights.h5.npz")
    target = ("--repository", models, "--name", "from-yaml")
    kerve("compile", old / "mlp_weights.h5", "--architecture", old / "mlp.yaml", *target)

    marker = folder / "executed"
    hostile = folder / "hostile.yaml"
    hostile.write_text(f"class_name: Sequential\nconfig: !!python/object/apply:os.mkdir [{marker}]\n")
    kerve("compile", old / "mlp_weights.h5", "--architecture", hostile, *target, exit_code=3)
    if marker.exists():
        raise SystemExit("a YAML file was executed")

    with serving(models) as address, Client(address) as client:
        compare(
            "from-json", keras=model.predict(x_test, verbose=0), served=client.predict("from-json", x_test)
        )
        (question,) = asked.values()
        compare("from-yaml", keras=answered["0"], served=client.predict("from-yaml", question))


if __name__ == "__main__":
    start(main)
