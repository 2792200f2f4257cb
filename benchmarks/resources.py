"""Memory and threads: the memory used and released by a model, and the throughput of many models at once.

    python benchmarks/resources.py [--rounds 3] [--seconds 2] [--only memory,threads]

`memory`: the resident memory of `kerve serve` before loading a MobileNetV2, with it, after one image, after a
batch of 32, and after unloading it; with `shrink_memory` and without. `threads`: 1, 4 and 16 models under
constant load, with 16 calls in flight in total; in plain loops, with ONNX Runtime's default sessions and with
kerve's, and through `kerve serve`. Throughput is relative to that of one model of the same kind.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import serving_models
from lifecycle import serving
from serving import Parts, Run, Running, in_turn, load, run_parts

from kerve.runtime import Client
from kerve.runtime.cpus import available_cpus
from kerve.runtime.session import Session

COUNTS = (1, 4, 16)
IN_FLIGHT = 16
IMAGE = (224, 224, 3)


def memory(options: argparse.Namespace, folder: Path) -> None:
    """Print the MiB of a server at each step, three times, to show what is not released."""
    model = serving_models.mobilenet(folder)
    steps = ("before", "loaded", "1 image", "32 images", "unloaded")
    print(f"\nresident MiB{'':24}" + "".join(f"{name:>12}" for name in steps))
    for name, text in (("as it is", ""), ("shrink_memory", "shrink_memory = true\n")):
        repository = folder / f"memory {name}"
        copies(model, repository, 1)
        (repository / "model0" / "config.toml").write_text("max_batch_size = 32\n" + text)
        explicit = ("--model-control-mode", "explicit")
        with serving(repository, options.transport, *explicit) as running, Client(running.address) as client:
            for turn in range(3):
                sizes = [running.resident()]
                client.load("model0")
                sizes.append(running.resident())
                for rows in (1, 32):
                    client.predict("model0", {"x": np.zeros((rows, *IMAGE), np.float32)})
                    sizes.append(running.resident())
                client.unload("model0")
                sizes.append(settled(running))
                told = "".join(f"{size / 2**20:12.1f}" for size in sizes)
                print(f"{f'{name}, time {turn + 1}':36}{told}", flush=True)


def settled(running: Running) -> int:
    """Return the resident memory of the process when it no longer changes."""
    before, now = 0, running.resident()
    while before != now:
        time.sleep(1.5)
        before, now = now, running.resident()
    return now


def threads(options: argparse.Namespace, folder: Path) -> None:
    """Measure many MobileNets at once, on all CPUs."""
    model = serving_models.mobilenet(folder)
    sides: dict[str, Callable[[], Run]] = {}
    for count in COUNTS:
        for kind in ("default sessions", "kerve's sessions"):
            sides[f"{kind}, {count}"] = partial(bare, kind, count, model, options.seconds)
        sides[f"kerve serve, {count}"] = partial(served, count, model, folder, options)
    rows = in_turn(options.rounds, sides)
    print(
        f"\n{available_cpus()} CPUs{'':28}{'threads':>10}{'per_second':>12}{'against one':>13}{'cpu_ms':>10}"
    )
    for name, row in rows.items():
        one = rows[f"{name.rpartition(', ')[0]}, 1"]["per_second"]
        print(
            f"{name:34}{row['threads']:10.0f}{row['per_second']:12.1f}{row['per_second'] / one:12.0%}"
            f"{row['cpu_ms']:11.2f}"
        )


def bare(kind: str, count: int, model: Path, seconds: float) -> Run:
    """Run loops in a separate process: a process creates its thread pool only once."""
    command = [sys.executable, __file__, "--loops", kind, str(count), str(model), str(seconds)]
    found: Run = json.loads(subprocess.check_output(command))
    return found


def loops(kind: str, count: int, model: Path, seconds: float) -> Run:
    """Run each session repeatedly in a separate thread."""
    run = [session_of(kind, model) for _ in range(count)]
    image = np.zeros((1, *IMAGE), np.float32)
    begin, cpu = time.perf_counter(), time.process_time()
    done = [0] * count

    def work(number: int) -> None:
        while time.perf_counter() < begin + seconds:
            run[number](image)
            done[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    most = tasks(os.getpid())
    for worker in workers:
        worker.join()
    took = time.perf_counter() - begin
    return {
        "threads": most,
        "per_second": sum(done) / took,
        "cpu_ms": (time.process_time() - cpu) / sum(done) * 1e3,
    }


def session_of(kind: str, model: Path) -> Callable[[Any], Any]:
    if kind == "default sessions":
        session: Any = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"x": image})
    ours = Session(model, threads=available_cpus())
    names = [spec.name for spec in ours.outputs]
    return lambda image: ours.run({"x": image}, names)


def served(count: int, model: Path, folder: Path, options: argparse.Namespace) -> Run:
    """Run a load generator for each model, all at the same time."""
    repository = folder / f"served {count}"
    copies(model, repository, count)
    bodies = [
        serving_models.request((1, *IMAGE), folder / f"body{number}", f"model{number}")
        for number in range(count)
    ]
    with serving(repository, options.transport) as running, ThreadPoolExecutor(count) as pool:
        cpu = running.cpu_seconds()
        calls = [pool.submit(load, running, body, IN_FLIGHT // count, options.seconds) for body in bodies]
        found = [call.result() for call in calls]
        used = running.cpu_seconds() - cpu
        many = tasks(running.process.pid)
    answered = sum(each["answered"] for each in found)
    return {
        "threads": many,
        "per_second": sum(each["per_second"] for each in found),
        "cpu_ms": used / answered * 1e3,
    }


def tasks(process: int) -> int:
    """Return the number of threads of a process."""
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def copies(model: Path, repository: Path, count: int) -> None:
    """Create a repository with a number of models that share their files."""
    for number in range(count):
        version = repository / f"model{number}" / "1"
        if not version.exists():
            version.mkdir(parents=True)
            os.link(model, version / "model.onnx")


PARTS: Parts = {"memory": memory, "threads": threads}


def main() -> None:
    if sys.argv[1:2] == ["--loops"]:
        kind, count, model, seconds = sys.argv[2:]
        print(json.dumps(loops(kind, int(count), Path(model), float(seconds))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--transport", default="auto")
    run_parts(parser, PARTS)


if __name__ == "__main__":
    main()
