"""MirroredStrategy: training on two devices (logical CPUs, or your GPUs), saving, compiling."""

from pathlib import Path

import data
import keras
import tensorflow as tf
from workflow import compare, compare_evaluation, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def two_cpus() -> list[str]:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return ["CPU:0", "CPU:1"]


def main(folder: Path) -> None:
    strategy = tf.distribute.MirroredStrategy(two_cpus())
    print(f"training on {strategy.num_replicas_in_sync} devices")
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = data.digits()
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Conv2D(8, 3, activation="relu"),
                # Without synchronization each device has its own moving averages; only the first's are saved.
                keras.layers.BatchNormalization(synchronized=True),
                keras.layers.Flatten(),
                keras.layers.Dense(10, activation="softmax", name="digit"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=2, batch_size=64, verbose=0)
    model.save(folder / "digits.keras")

    models = folder / "models"
    compile_model(model, repository=models, name="from-object")
    alone = keras.models.load_model(folder / "digits.keras")  # on one device, like the server
    compile_model(alone, repository=models, name="from-file")
    with serving(models) as address, Client(address) as client:
        for name in ("from-object", "from-file"):
            compare(name, keras=model.predict(x_test, verbose=0), served=client.predict(name, x_test))
            compare_evaluation(name, alone, x_test, y_test, folder=folder, address=address)


if __name__ == "__main__":
    start(main)
