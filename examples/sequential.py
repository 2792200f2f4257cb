"""Sequential model; layers with activations, initializers and regularizers, whose loss is included."""

from pathlib import Path

import data
import keras
from workflow import compare, compare_evaluation, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = data.iris()
    model = keras.Sequential(
        [
            keras.Input((4,), name="measures"),
            keras.layers.Dense(16, activation="relu", kernel_regularizer=keras.regularizers.l1(0.001)),
            keras.layers.Dense(16, activation=keras.activations.gelu, kernel_initializer="orthogonal"),
            keras.layers.Dense(16, "tanh", bias_initializer=keras.initializers.Constant(0.5)),
            keras.layers.Dense(3, activation="softmax", bias_regularizer="l2", name="species"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=20, batch_size=32, validation_data=(x_test, y_test), verbose=0)
    print(f"trained; accuracy {model.evaluate(x_test, y_test, verbose=0)[1]:.1%}")

    models = folder / "models"
    compile_model(model, repository=models, name="iris")
    with serving(models) as address, Client(address) as client:
        compare(
            "iris", keras={"species": model.predict(x_test, verbose=0)}, served=client.infer("iris", x_test)
        )
        compare_evaluation("iris", model, x_test, y_test, folder=folder, address=address)
    penalty = float(sum(model.losses))
    print(f"  {penalty:.4f} of the loss is regularisation")
    if not penalty:
        raise SystemExit("the regularizers add nothing to the loss; expected a penalty above 0")


if __name__ == "__main__":
    start(main)
