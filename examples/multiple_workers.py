"""MultiWorkerMirroredStrategy: training in two processes with synchronized weights, saving, compiling.

Each worker is this script with TF_CONFIG in its environment, as on a cluster; here both run on one machine.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import data
import keras
import tensorflow as tf
from workflow import compare, serving, start

from kerve.compiler import compile_model
from kerve.runtime import Client

BATCH = 64  # in total, over all workers


def train(file: Path) -> None:
    """Run one of the workers, with a custom loop, since Keras 3's fit() does not support this strategy."""
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
        optimizer = keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)

    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True))
            loss = tf.reduce_sum(losses) / BATCH
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))  # sums over workers
        return loss

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def distributed_step(images: Any, labels: Any) -> Any:
        return strategy.reduce("SUM", strategy.run(step, args=(images, labels)), axis=None)

    batches = tf.data.Dataset.from_tensor_slices((x_train, y_train)).batch(BATCH, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    distributed = strategy.experimental_distribute_dataset(batches.with_options(options))
    for epoch in range(2):
        losses = [float(distributed_step(images, labels)) for images, labels in distributed]
        print(f"worker {worker}, epoch {epoch + 1}: loss {sum(losses) / len(losses):.3f}", flush=True)
    model.save(file if worker == 0 else file.with_stem("copy"))


def cluster(size: int) -> list[str]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(size)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def wait_for(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Wait until all have ended. If one fails, end the others, which would wait for it."""
    try:
        while None in (codes := [worker.poll() for worker in workers]) and not any(codes):
            time.sleep(0.1)
        if any(codes):
            raise SystemExit(f"the workers ended with exit codes {codes}")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def main(folder: Path) -> None:
    file = folder / "digits.keras"
    workers = cluster(2)
    processes: list[subprocess.Popen[bytes]] = []
    for index in range(len(workers)):
        place = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(place)}
        processes.append(subprocess.Popen([sys.executable, __file__, str(file)], env=environment))
    wait_for(processes)

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
