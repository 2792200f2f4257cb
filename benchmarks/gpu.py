"""Performance on a GPU: plain ONNX Runtime, kerve's executor, kerve's server and PyTorch, in one table.

On a machine with TensorFlow, once:

    python benchmarks/gpu_artifacts.py build/gpu --add dist/*.whl

On the machine with the GPU (Python 3.12, CUDA 13, cuDNN 9; onnxruntime-gpu and the other dependencies of
`kerve[serve-gpu]` copied there, kerve itself copied or from this source tree), first check that everything
works, then measure (less than eight minutes):

    python benchmarks/gpu.py --check build/gpu
    python benchmarks/gpu.py build/gpu

Measurements beyond `--budget` seconds are skipped and reported. `--device cpu` is a dry run.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import gpu_check  # finds kerve in this source tree
from gpu_artifacts import MODELS, unpack
from gpu_bounds import bound, launches, read_counts
from gpu_torch import peaks, torch_resnet50
from gpu_ways import Measured, bare, executor, request, serve, served, shared_row

from kerve.runtime.devices.choice import Devices, choose_devices
from kerve.runtime.devices.device import parse_device

PRECISIONS = ("float32", "tf32", "float16")
# (model, precision) to measure first, in case time runs out.
FIRST = (("resnet50", "float16"), ("mlp", "float32"), ("mobilenetv2", "float16"))


# Model, precision, way and load.
Key = tuple[str, str, str, int]


class Bar(NamedTuple):
    """A performance target."""

    name: str
    # None: not measured.
    figure: float | None
    bar: float
    holds: Callable[[float, float], bool]
    # The cell whose batch time is compared with its bounds if the target is missed.
    of: Key | None = None


@dataclass
class Table:
    """The measurements, by model, precision, way and load."""

    end: float
    cells: dict[Key, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    # Seconds from a server's start to its first response.
    starts: dict[str, float] = field(default_factory=dict)

    def add(self, model: str, precision: str, way: str, loads: list[int], found: Iterator[Measured]) -> None:
        """Measure one way at each load, if there is time; failures are recorded as notes."""
        if time.monotonic() > self.end:
            self.notes.append(f"{model} {precision} {way}: left out, the time was over")
            return
        try:
            for load, measured in zip(loads, found, strict=False):
                self.cells[model, precision, way, load] = measured
        except Exception as error:  # noqa: BLE001  other measurements continue after any error
            self.notes.append(f"{model} {precision} {way}: {str(error).strip()[:300]}")

    def show(self) -> None:
        """Print all measurements with their ratios to the baselines."""
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

    def ratio(self, one: Key, other: Key) -> float | None:
        """Return the ratio of two throughputs; None if one was not measured."""
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
    """Yield the performance targets with their measured figures."""
    at_least, below = (lambda found, bar: found >= bar), (lambda found, bar: found < bar)
    for model in MODELS:
        for precision in PRECISIONS:
            for load in batches:
                key: Key = (model, precision, "executor", load)
                if (found := table.ratio(key, (model, precision, "bare", load))) is not None:
                    name = f"executor of bare, {model} {precision} batch {load}"
                    yield Bar(name, found, 1.5 if load == 1 else 1, at_least, key)
    pair = ("resnet50", "float16")
    ours, wire = table.best(*pair, "executor"), table.best(*pair, "served")
    name = "served of executor, resnet50 float16, the best of each"
    yield Bar(name, wire / ours if wire and ours else None, 0.85, at_least)
    for load in batches:
        key = (*pair, "executor", load)
        name = f"executor of PyTorch, resnet50 float16 batch {load}"
        yield Bar(name, table.ratio(key, (*pair, "torch", load)), 0.9, at_least, key)
    for model in MODELS:
        one, alone = (table.cells.get((model, "float16", way, 1)) for way in ("served", "bare"))
        found = one.p99 / alone.p99 if one and alone else None
        yield Bar(f"latency p99 at one in flight, served of bare, {model} float16", found, 1.3, below)
    for name, seconds in table.starts.items():
        yield Bar(f"seconds from start to first answer, {name}", seconds, 10, below)


def show_bars(arguments: argparse.Namespace, devices: Devices, table: Table) -> None:
    """Print whether each target is met; for missed ones, also what bounds the time."""
    found = list(bars(table, arguments.batches))
    missed = [each for each in found if each.figure is not None and not each.holds(each.figure, each.bar)]
    most = peaks() if any(each.of for each in missed) and devices.devices[0].kind != "cpu" else {}
    if most:
        print("at most:", ", ".join(f"{name} {rate / 1e12:.2f} T/s" for name, rate in most.items()))
    counts = read_counts(arguments.folder / "unpacked" / "counts.json")
    for each in found:
        verdict = "not measured" if each.figure is None else "MISSED" if each in missed else "holds"
        shown = "-" if each.figure is None else f"{each.figure:.2f}"
        print(f"{verdict:14}{each.name}: {shown} (bar: {each.bar:g})")
        if each in missed and each.of is not None:
            model, precision, _, load = each.of
            # TF32 uses float32's artifact.
            artifact = f"{model}_{precision.replace('tf32', 'float32')}"
            if artifact in counts:
                file = arguments.folder / "unpacked" / "models" / artifact / "1" / "model.onnx"
                nodes = launches(file, devices.devices[0])
                taken = load / table.cells[each.of].rows
                print(" " * 14 + bound(counts[artifact], load, taken, precision, nodes, most))


def repository_of(folder: Path, batches: list[int]) -> Path:
    """Return the repository with each model in each precision; TF32 is float32 with the option set."""
    models = folder / "unpacked" / "models"
    for source in models.glob("*_float32"):
        target = models / source.name.replace("_float32", "_tf32")
        if not target.exists():
            shutil.copytree(source, target)
    for model in models.iterdir():
        # Only measured batch sizes are captured as CUDA graphs.
        text = f"max_batch_size = {max(batches)}\nbatch_buckets = {batches}\n"
        tf32 = "[cuda]\nuse_tf32 = true\n" if model.name.endswith("_tf32") else ""
        (model / "config.toml").write_text(text + tf32)
    return models


def measure(arguments: argparse.Namespace, devices: Devices, table: Table) -> None:
    """Fill the table, the most important measurements first."""
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
    for model, precision in pairs:
        artifact, name = models / f"{model}_{precision}" / "1", f"{model}_{precision}"
        if time.monotonic() > table.end:
            table.notes.append(f"{name} served: left out, the time was over")
            continue
        through_server(arguments, table, (model, precision), artifact, program)
        if (model, precision) == FIRST[0]:  # compiling it takes a minute or two
            table.add(model, precision, "torch", batches, torch_resnet50(batches, seconds))


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
    except Exception as error:  # noqa: BLE001  a server that does not start is reported, too
        table.notes.append(f"{name} served: {str(error).strip()[:500]}")


def numbers(text: str) -> list[int]:
    """Parse a comma-separated list of numbers."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    if "--check" in sys.argv:
        sys.exit(gpu_check.main([each for each in sys.argv[1:] if each != "--check"]))
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
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(gpu_check.environment(Path(folder)))
        measure(arguments, devices, table)
    table.show()
    print()
    show_bars(arguments, devices, table)


if __name__ == "__main__":
    main()
