"""Callbacks: Keras's, and CompileAndPublish, with which a running server loads each best epoch."""

import time
from pathlib import Path
from typing import Any

import data
import keras
from workflow import compare, serving, start

from kerve.compiler.callbacks import CompileAndPublish
from kerve.runtime import Client

POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "0.2")


def served_version(client: Client, at_least: int) -> int:
    """Wait up to half a minute until the server serves a version; return it."""
    for _ in range(300):
        if client.ready("digits", version=str(at_least)):
            return int(client.metadata("digits").versions[-1])
        time.sleep(0.1)
    raise SystemExit(f"the server did not pick up version {at_least} of digits in 30 s")


class AskServer(keras.callbacks.Callback):
    """After each published epoch, prints which version is served."""

    def __init__(self, client: Client, publish: CompileAndPublish) -> None:
        super().__init__()
        self.client, self.publish = client, publish

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        newest = self.publish.published[-1].version
        version = served_version(self.client, newest)
        accuracy = (logs or {})["val_accuracy"]
        print(f"  epoch {epoch + 1}: val_accuracy {accuracy:.3f}, served: version {version}")


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, y_test = data.digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    models = folder / "models"
    models.mkdir()
    publish = CompileAndPublish(repository=models, name="digits", monitor="val_accuracy")

    with serving(models, *POLL) as address, Client(address) as client:
        model.fit(
            x_train,
            y_train,
            validation_data=(x_test, y_test),
            epochs=6,
            verbose=0,
            callbacks=[
                keras.callbacks.ModelCheckpoint(
                    folder / "best.keras", monitor="val_accuracy", save_best_only=True
                ),
                keras.callbacks.LearningRateScheduler(lambda epoch: 0.02 * 0.7**epoch),
                keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=2),
                keras.callbacks.TensorBoard(folder / "logs"),
                publish,
                AskServer(client, publish),
            ],
        )
        served = client.predict("digits", x_test)
    if publish.failures:
        raise SystemExit(f"an epoch was not published: {publish.failures[0]}")
    best = keras.models.load_model(folder / "best.keras")
    compare("digits, best epoch", keras=best.predict(x_test, verbose=0), served=served)


if __name__ == "__main__":
    start(main)
