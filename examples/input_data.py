"""NumPy arrays and tf.data pipelines for training, validation, calibration, evaluation and comparison."""

from pathlib import Path

import data
import keras
import numpy as np
import tensorflow as tf
from workflow import compare, compare_evaluation, serving, start

from kerve.compiler import CompileOptions, compile_model
from kerve.runtime import Client


def network() -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = data.digits()

    from_arrays = network()
    from_arrays.fit(x_train, y_train, epochs=5, batch_size=32, validation_data=(x_test, y_test), verbose=0)

    train = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(1000, seed=0).batch(32).repeat()
    test = tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(32)
    from_pipeline = network()
    from_pipeline.fit(
        train,
        epochs=5,
        steps_per_epoch=44,
        validation_data=test,
        validation_steps=3,
        shuffle=False,
        verbose=0,
    )

    # int8: activation ranges are measured on training data, the loss of accuracy on the test data.
    int8 = CompileOptions(precision="int8", max_drop=0.01)
    models = folder / "models"
    compile_model(from_arrays, repository=models, name="from-arrays")
    compile_model(from_pipeline, repository=models, name="from-pipeline")
    compile_model(
        from_arrays,
        repository=models,
        name="from-arrays-int8",
        options=int8,
        calibration=x_train[:256],
        data=(x_test, y_test),
    )
    compile_model(
        from_pipeline,
        repository=models,
        name="from-pipeline-int8",
        options=int8,
        calibration=train.take(8),
        data=test,
    )

    with serving(models) as address, Client(address) as client:
        served = client.predict("from-arrays", x_test)
        compare("from-arrays", keras=from_arrays.predict(x_test, verbose=0), served=served)
        compare_evaluation("from-arrays", from_arrays, x_test, y_test, folder=folder, address=address)

        by_batch = np.concatenate([client.predict("from-pipeline", images.numpy()) for images, _ in test])
        compare("from-pipeline", keras=from_pipeline.predict(test, verbose=0), served=by_batch)
        expected = from_pipeline.evaluate(test, verbose=0, return_dict=True)
        compare(
            "from-pipeline evaluate", keras=expected, served=client.evaluate("from-pipeline", test).results
        )

        reduced = {
            "from-arrays-int8": (from_arrays.evaluate(x_test, y_test, verbose=0), (x_test, y_test)),
            "from-pipeline-int8": (from_pipeline.evaluate(test, verbose=0), (test,)),
        }
        for name, ((_, accuracy), rows) in reduced.items():
            in_int8 = float(client.evaluate(name, *rows).results["accuracy"])
            print(f"  {name}: accuracy {in_int8:.1%}, Keras {accuracy:.1%}, a drop of 1 % is allowed")
            if in_int8 < accuracy - 0.01:
                raise SystemExit("int8 loses more accuracy than allowed")


if __name__ == "__main__":
    start(main)
