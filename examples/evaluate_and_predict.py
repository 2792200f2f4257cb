"""evaluate() and predict() with arrays and tf.data: the server's results beside Keras's."""

from pathlib import Path

import data
import keras
import tensorflow as tf
from workflow import compare, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = data.breast_cancer()
    y_train, y_test = y_train[:, None], y_test[:, None]
    model = keras.Sequential(
        [
            keras.Input((30,), name="measures"),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1, activation="sigmoid", name="benign"),
        ]
    )
    metrics = [
        keras.metrics.BinaryAccuracy(name="accuracy"),
        keras.metrics.Precision(name="precision"),
        keras.metrics.Recall(name="recall"),
        keras.metrics.AUC(name="auc"),
    ]
    model.compile("adam", "binary_crossentropy", metrics=metrics)
    model.fit(x_train, y_train, epochs=10, batch_size=32, verbose=0)

    batches = tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(32)
    compile_model(model, repository=folder, name="tumours")
    with serving(folder) as address, Client(address) as client:
        served = client.predict("tumours", x_test)
        numbers = client.evaluate("tumours", x_test, y_test).results
        of_batches = client.evaluate("tumours", batches).results
    compare("tumours predict of arrays", keras=model.predict(x_test, verbose=0), served=served)
    compare("tumours predict of tf.data", keras=model.predict(batches, verbose=0), served=served)
    compare("evaluate", keras=model.evaluate(x_test, y_test, verbose=0, return_dict=True), served=numbers)
    expected = model.evaluate(batches, verbose=0, return_dict=True)
    compare("evaluate of tf.data", keras=expected, served=of_batches)


if __name__ == "__main__":
    start(main)
