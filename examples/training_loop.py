"""Eager execution and a custom training loop with GradientTape; the trained model compiles like any other."""

from pathlib import Path
from typing import Any

import data
import keras
import tensorflow as tf
from workflow import compare, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    x_train, x_test, y_train, _ = data.digits()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function  # type: ignore[untyped-decorator]  # tensorflow has no type information
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    batches = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(2000, seed=0).batch(64)
    for epoch in range(3):
        losses = [float(step(images, labels)) for images, labels in batches]
        print(f"epoch {epoch + 1}, loss {sum(losses) / len(losses):.3f}")

    compile_model(model, repository=folder, name="digits")
    with serving(folder) as address, Client(address) as client:
        # Keras computes the expected outputs eagerly.
        compare("digits", keras=model(x_test, training=False), served=client.predict("digits", x_test))


if __name__ == "__main__":
    start(main)
