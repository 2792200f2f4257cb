"""MultiWorkerMirroredStrategy: trained by two processes with the same weights, saved, compiled.

Each worker is this script with TF_CONFIG in its environment, as on a cluster; here both run on this machine.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import data
import keras
import tensorflow as tf
from workflow import compare, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client


def train(file: Path) -> None:
    """Be one of the workers."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    worker = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    keras.utils.set_random_seed(0)
    x_train, _, y_train, _ = data.digits()
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Flatten(),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.Dense(10, activation="softmax", name="digit"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
    batches = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(64).repeat()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    history = model.fit(batches.with_options(options), epochs=2, steps_per_epoch=20, verbose=0)
    replicas = strategy.num_replicas_in_sync
    print(f"worker {worker} of {replicas}: loss {history.history['loss'][-1]:.3f}", flush=True)
    model.save(file if worker == 0 else file.with_stem("copy"))


def cluster(size: int) -> list[str]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(size)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def main(folder: Path) -> None:
    file = folder / "digits.keras"
    workers = cluster(2)
    processes = []
    for index in range(len(workers)):
        place = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(place)}
        processes.append(subprocess.Popen([sys.executable, __file__, str(file)], env=environment))
    codes = [process.wait(timeout=300) for process in processes]
    if any(codes):
        raise SystemExit(f"the workers ended with exit codes {codes}")

    _, x_test, _, _ = data.digits()
    model = keras.models.load_model(file)
    copy = keras.models.load_model(folder / "copy.keras")
    compare("the workers", keras=model.predict(x_test, verbose=0), served=copy.predict(x_test, verbose=0))

    models = folder / "models"
    compile_model(model, repository=models, name="digits")
    with serving(models) as address, Client(address) as client:
        compare("digits", keras=model.predict(x_test, verbose=0), served=client.predict("digits", x_test))


if __name__ == "__main__":
    if "TF_CONFIG" in os.environ:
        train(Path(sys.argv[1]))
    else:
        start(main)
