"""The whole workflow on real data: train, compile, serve, predict, evaluate, compare.

    python examples/demo.py [FOLDER]

Every step uses the command line. Prints one table at the end, and fails if a served answer differs from
Keras's by more than 1e-4 relative.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from workflow import compare, evaluate, kerve, serving, start

from kerve.runtime import Client

TRAIN = Path(__file__).with_name("train_digits.py")
TOLERANCE = 1e-4

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]


def by_kerve(client: Client, model: str) -> Predict:
    return lambda images: client.predict(model, images)


def by_triton(client: Any, model: str) -> Predict:
    def predict(images: Floats) -> Floats:
        tensor = triton.InferInput("image", images.shape, "FP32")
        tensor.set_data_from_numpy(images)
        answer: Floats = client.infer(model, [tensor]).as_numpy("probabilities")
        return answer

    return predict


def latency(predict: Predict, image: Floats) -> float:
    """Return the median latency of a request with one image, in milliseconds."""
    times = []
    for _ in range(300):
        begin = time.perf_counter()
        predict(image)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[50:]) * 1e3


def main(folder: Path) -> None:
    models = folder / "models"
    print("$ python", TRAIN, folder, flush=True)
    subprocess.run([sys.executable, TRAIN, folder], check=True)
    for name, file in (("digits", "digits.keras"), ("digits-h5", "digits.h5")):
        kerve("compile", folder / file, "--repository", models, "--name", name)

    test, keras = np.load(folder / "test.npz"), dict(np.load(folder / "keras.npz"))
    images, labels, wanted = test["image"], test["y"], keras.pop("probabilities")
    title = f"digits: {len(images)} images held back from training"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)  # fits into 80 columns
    for column in ("answers by", "accuracy", "max diff", "relative", "artifact", "latency"):
        table.add_column(column, justify="left" if column == "answers by" else "right", no_wrap=True)
    table.add_row("Keras predict", f"{accuracy(wanted, labels):.2%}", "", "", "", "")

    relatives = []
    with serving(models) as address, Client(address) as ours, triton.InferenceServerClient(address) as theirs:
        for model in ("digits", "digits-h5"):
            size = sum(file.stat().st_size for file in (models / model / "1").iterdir())
            for who, predict in (
                ("kerve", by_kerve(ours, model)),
                ("tritonclient", by_triton(theirs, model)),
            ):
                served = predict(images)
                difference = float(np.abs(served - wanted).max())
                relative = float((np.abs(served - wanted) / np.maximum(np.abs(wanted), 1e-3)).max())
                relatives.append(relative)
                table.add_row(
                    f"{model}, {who}",
                    f"{accuracy(served, labels):.2%}",
                    f"{difference:.1e}",
                    f"{relative:.1e}",
                    f"{size / 1e3:.0f} kB",
                    f"{latency(predict, images[:1]):.2f} ms",
                )
            compare(f"{model} evaluate", keras=keras, served=evaluate(model, folder / "test.npz", address))
    Console().print(table)
    worst = max(relatives, key=lambda each: (each != each, each))  # NaN counts as the largest
    if not worst <= TOLERANCE:
        raise SystemExit(f"served outputs differ from Keras by {worst:.1e} relative, allowed {TOLERANCE:.0e}")


def accuracy(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    return float((probabilities.argmax(-1) == labels).mean())


if __name__ == "__main__":
    start(main)
