"""How well models compute on a GPU: bare ONNX Runtime, kerve's executor, kerve's server, PyTorch; one table.

On a machine with TensorFlow, once:

    python benchmarks/gpu_artifacts.py build/gpu --add dist/*.whl

On the machine with the GPU (Python 3.12, CUDA 13, cuDNN 9; onnxruntime-gpu and kerve's wheels from what was
carried there), under eight minutes:

    python benchmarks/gpu.py build/gpu

What no longer fits into `--budget` seconds is left out and said to be. `--device cpu` rehearses.
"""

import argparse
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpu_artifacts import MODELS, unpack
from gpu_ways import Measured, bare, executor, request, serve, served, shared_row, torch_resnet50

from kerve.runtime.devices.choice import Devices, choose_devices
from kerve.runtime.devices.device import parse_device

PRECISIONS = ("float32", "tf32", "float16")
# (model, precision) in the order of what is most wanted, where time runs out.
FIRST = (("resnet50", "float16"), ("mlp", "float32"), ("mobilenetv2", "float16"))


# Its name, the figure (None: not measured), the bar, and how they are compared.
Bar = tuple[str, float | None, float, Callable[[float, float], bool]]


@dataclass
class Table:
    """What was measured, by model, precision, way and load."""

    end: float
    cells: dict[tuple[str, str, str, int], Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # Seconds from a server's start to its first answer.
    starts: dict[str, float] = field(default_factory=dict)

    def add(self, model: str, precision: str, way: str, loads: list[int], found: Iterator[Measured]) -> None:
        """Measure one way at each load, while there is time; what fails is noted, and the rest goes on."""
        if time.monotonic() > self.end:
            self.notes.append(f"{model} {precision} {way}: left out, the time was over")
            return
        try:
            for load, measured in zip(loads, found, strict=False):
                self.cells[model, precision, way, load] = measured
        except Exception as error:  # noqa: BLE001  whatever it is, the table is worth having
            self.notes.append(f"{model} {precision} {way}: {str(error).strip()[:300]}")

    def show(self) -> None:
        """Print everything, each beside what it is held against."""
        columns = (
            "model",
            "precision",
            "way",
            "load",
            "rows/s",
            "p50 ms",
            "p99 ms",
            "of bare",
            "of executor",
        )
        print("".join(f"{column:>15}" for column in columns))
        for (model, precision, way, load), found in self.cells.items():
            row = [model, precision, way, str(load), f"{found.rows:,.0f}"]
            row += [f"{found.p50 * 1e3:.3f}", f"{found.p99 * 1e3:.3f}"]
            for against in ("bare", "executor"):
                base = self.cells.get((model, precision, against, load))
                row.append(f"{found.rows / base.rows:.2f}" if base and way != against else "")
            print("".join(f"{cell:>15}" for cell in row))
        print()
        for name, seconds in self.starts.items():
            print(f"start to first answer, {name}: {seconds:.1f} s")
        for note in self.notes:
            print(note)

    def ratio(self, one: tuple[str, str, str, int], other: tuple[str, str, str, int]) -> float | None:
        """Return how many rows the one computes for each of the other's; None where one was not measured."""
        if one not in self.cells or other not in self.cells:
            return None
        return self.cells[one].rows / self.cells[other].rows

    def best(self, model: str, precision: str, way: str) -> float | None:
        """Return the most rows per second at any load."""
        return max(
            (each.rows for key, each in self.cells.items() if key[:3] == (model, precision, way)),
            default=None,
        )


def bars(table: Table, batches: list[int]) -> Iterator[Bar]:
    """Yield what is to hold."""
    at_least, below = (lambda found, bar: found >= bar), (lambda found, bar: found < bar)
    for model in MODELS:
        for precision in PRECISIONS:
            for load in batches:
                keys = [(model, precision, way, load) for way in ("executor", "bare")]
                if (found := table.ratio(keys[0], keys[1])) is not None:
                    yield (
                        f"executor of bare, {model} {precision} batch {load}",
                        found,
                        1.5 if load == 1 else 1,
                        at_least,
                    )
    key = ("resnet50", "float16")
    ours, wire = table.best(*key, "executor"), table.best(*key, "served")
    yield (
        "served of executor, resnet50 float16, the best of each",
        wire / ours if wire and ours else None,
        0.85,
        at_least,
    )
    for load in batches:
        against = table.ratio((*key, "executor", load), (*key, "torch", load))
        yield f"executor of PyTorch, resnet50 float16 batch {load}", against, 0.9, at_least
    for model in MODELS:
        one, alone = (table.cells.get((model, "float16", way, 1)) for way in ("served", "bare"))
        yield (
            f"p99 served of p50 bare, {model} float16",
            one.p99 / alone.p50 if one and alone else None,
            1.3,
            below,
        )
    for name, seconds in table.starts.items():
        yield f"seconds to the first answer, {name}", seconds, 10, below


def repository_of(folder: Path, batches: list[int]) -> Path:
    """Return the repository with each model once for each precision; TF32 is float32's, with the option."""
    models = folder / "unpacked" / "models"
    for source in models.glob("*_float32"):
        target = models / source.name.replace("_float32", "_tf32")
        if not target.exists():
            shutil.copytree(source, target)
    for model in models.iterdir():
        # What is not measured need not be captured.
        text = f"max_batch_size = {max(batches)}\nbatch_buckets = {batches}\n"
        tf32 = "[cuda]\nuse_tf32 = true\n" if model.name.endswith("_tf32") else ""
        (model / "config.toml").write_text(text + tf32)
    return models


def measure(arguments: argparse.Namespace, devices: Devices, table: Table) -> None:
    """Fill the table, what is most wanted first."""
    folder: Path = arguments.folder
    unpack(folder / "parts", folder / "unpacked")
    models, program = repository_of(folder, arguments.batches), folder / "unpacked" / "files" / "load"
    found = sorted(path.name.rpartition("_")[::2] for path in models.iterdir())
    pairs = sorted(found, key=lambda pair: (FIRST.index(pair) if pair in FIRST else len(FIRST), pair))
    batches, seconds = arguments.batches, arguments.seconds
    for model, precision in pairs:
        artifact = models / f"{model}_{precision}" / "1"
        tf32 = precision == "tf32"
        table.add(
            model,
            precision,
            "bare",
            batches,
            bare(artifact, str(devices.devices[0].kind), batches, seconds, tf32=tf32),
        )
        table.add(model, precision, "executor", batches, executor(artifact, devices, batches, seconds))
    table.add("resnet50", "float16", "torch", batches, torch_resnet50(batches, seconds))
    for model, precision in pairs:
        artifact, name = models / f"{model}_{precision}" / "1", f"{model}_{precision}"
        if time.monotonic() > table.end:
            table.notes.append(f"{name} served: left out, the time was over")
            continue
        through_server(arguments, table, (model, precision), artifact, program)


def through_server(
    arguments: argparse.Namespace, table: Table, pair: tuple[str, str], artifact: Path, program: Path
) -> None:
    """Measure a model behind `kerve serve`, with rows in the requests and in shared memory."""
    name, body = "_".join(pair), request("_".join(pair), artifact)
    loads, seconds = arguments.in_flight, max(arguments.seconds, 0.5)

    def each(address: str, body: bytes) -> Iterator[Measured]:
        return (served(program, address, body, load, seconds) for load in loads)

    try:
        with serve(artifact.parents[1], name, body, arguments.device) as running:
            table.starts[name] = running.first_answer
            table.add(*pair, "served", loads, each(running.address, body))
            with shared_row(running.address, artifact) as region:
                shared = request(name, artifact, region)
                table.add(*pair, "shared memory", loads, each(running.address, shared))
    except Exception as error:  # noqa: BLE001  a server that does not start is a finding, too
        table.notes.append(f"{name} served: {str(error).strip()[:500]}")


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the parts that gpu_artifacts.py wrote")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32, 128])
    parser.add_argument("--in-flight", type=numbers, default=[1, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=0.4, help="of each figure")
    parser.add_argument("--budget", type=float, default=440, help="seconds after which nothing new is begun")
    arguments = parser.parse_args()
    devices = choose_devices(parse_device(arguments.device))
    print(f"{devices.show()}, {platform.machine()}, Python {platform.python_version()}\n")
    table = Table(time.monotonic() + arguments.budget)
    measure(arguments, devices, table)
    table.show()
    print()
    for name, found, bar, holds in bars(table, arguments.batches):
        verdict = "not measured" if found is None else "holds" if holds(found, bar) else "MISSED"
        print(f"{verdict:14}{name}: {'-' if found is None else f'{found:.2f}'} (bar: {bar:g})")


if __name__ == "__main__":
    main()
