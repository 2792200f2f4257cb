"""Train a small CNN on scikit-learn's digits (1,797 real images of 8 x 8) and save it twice.

    python examples/train_digits.py FOLDER

writes digits.keras, digits.h5, test.npz (the held-out images and their labels) and keras.npz (Keras's
predictions, loss and accuracy on them).
"""

import logging
import os
import sys
from pathlib import Path

# Set before importing Keras, to suppress TensorFlow's informational messages.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype("float32")
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.2, random_state=0)

    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(32, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=12, batch_size=64, validation_data=(x_test, y_test), verbose=2)

    logging.getLogger("absl").setLevel(logging.ERROR)  # suppress the warning that .h5 is a legacy format
    model.save(folder / "digits.keras")
    model.save(folder / "digits.h5")
    np.savez(folder / "test.npz", image=x_test, y=y_test)
    numbers = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    np.savez(folder / "keras.npz", probabilities=model.predict(x_test, verbose=0), **numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
