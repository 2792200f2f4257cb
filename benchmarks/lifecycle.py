"""Startup time and memory of `kerve serve`, and latency while it loads new versions.

    python benchmarks/lifecycle.py [--rounds 9] [--only start,swap] [--transport auto]

`start`: the time from the command to the ready line and to the first response, and the resident memory then;
the baseline is a Python process that imports onnxruntime and creates the same session. `swap`: the latency of
a client in short runs, in each of which a version is published, loaded, verified and swapped in, alternating
with undisturbed runs; use many rounds (`--rounds 30`), since the machine's speed varies.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import serving_models
from serving import Parts, Run, Running, in_turn, load, run_parts, show
from serving_servers import METHOD
from tritonclient.grpc import InferenceServerClient

KERVE = Path(sys.executable).with_name("kerve")
BARE = (
    "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
)


@contextmanager
def serving(repository: Path, transport: str, *options: str) -> Iterator[Running]:
    """Run `kerve serve`; yields when it reports that it is ready."""
    command = [str(KERVE), "serve", "--repository", str(repository), "--grpc-port", "0", "--http-port", "0"]
    process = subprocess.Popen(
        [*command, "--transport", transport, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        yield Running(line.partition("gRPC on ")[2].split()[0], process)
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, body: bytes) -> None:
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(METHOD)
        call(body, timeout=30)


def start(options: argparse.Namespace, folder: Path) -> None:
    """Measure the time from starting a server of the small MLP to its first response."""
    model, body = serving_models.mlp(folder), serving_models.request((1, 32), folder / "body").read_bytes()
    repository = served_alone(model, folder / "start")

    def bare() -> Run:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", BARE, str(model)], check=True)
        return {"ready_s": time.perf_counter() - begun}

    def ours() -> Run:
        begun = time.perf_counter()
        with serving(repository, options.transport) as running:
            ready = time.perf_counter() - begun
            ask(running.address, body)
            first = time.perf_counter() - begun
            return {"ready_s": ready, "first_answer_s": first, "resident_mb": running.resident() / 1e6}

    def help_page() -> Run:
        begun = time.perf_counter()
        subprocess.run([str(KERVE), "--help"], check=True, stdout=subprocess.DEVNULL)
        return {"ready_s": time.perf_counter() - begun}

    sides: Mapping[str, Callable[[], Run]] = {
        "a bare session in a Python": bare,
        "kerve serve": ours,
        "kerve --help": help_page,
    }
    rows = in_turn(options.rounds, sides)
    columns = ("ready_s", "first_answer_s", "resident_mb")
    print(f"\nstarting\n{'':34}" + "".join(f"{name:>16}" for name in columns))
    for name, row in rows.items():
        print(f"{name:34}" + "".join(f"{row.get(column, float('nan')):16.2f}" for column in columns))
    print("bars: first answer within 0.8 s, at most 120 MB, --help within 0.3 s")


def served_alone(model: Path, repository: Path) -> Path:
    """Return a repository with only this model, as version 1, under the name used in the requests."""
    shutil.rmtree(repository, ignore_errors=True)
    shutil.copytree(model.parent, repository / "model" / "1")
    return repository


def swap(options: argparse.Namespace, folder: Path) -> None:
    """Measure with one and with eight calls in flight; a version can be loaded within each run."""
    for name, shape, counts, seconds in (
        ("mlp", (1, 32), (1, 8), 1.0),
        ("mobilenet", (1, 224, 224, 3), (1,), 4.0),
    ):
        model = getattr(serving_models, name)(folder)
        body = serving_models.request(shape, folder / "body")
        repository = served_alone(model, folder / "swap")
        polling = ("--model-control-mode", "poll", "--repository-poll-secs", "0.05")
        with serving(repository, options.transport, *polling) as running:
            for in_flight in counts:
                peace = partial(load, running, body, in_flight, seconds)
                changed = partial(swapped, peace, running, repository, seconds / 4)
                rows = in_turn(options.rounds, {"in peace": peace, "a new version in each run": changed})
                show(f"{name}, {in_flight} in flight, runs of {seconds:.0f} s", rows)
                calm, busy = rows.values()
                print(f"p99: {busy['p99_us'] / calm['p99_us'] - 1:+.0%} (bar: less than +20 %)")


def swapped(run: Callable[[], Run], running: Running, repository: Path, after: float) -> Run:
    """Return the measurements of a run in which a new version is published some seconds after its start."""
    model = repository / "model"
    newest = max(int(each.name) for each in model.iterdir() if each.name.isdecimal())

    def publish() -> None:
        hidden = model / f".{newest + 1}"
        shutil.copytree(model / str(newest), hidden, copy_function=os.link)
        hidden.rename(model / str(newest + 1))

    timer = threading.Timer(after, publish)
    timer.start()
    try:
        found = run()
    finally:
        timer.join()
    with InferenceServerClient(running.address) as client:
        assert client.is_model_ready("model", str(newest + 1)), "the run was too short for a load"
    return found


PARTS: Parts = {"start": start, "swap": swap}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--transport", default="auto")
    run_parts(parser, PARTS)


if __name__ == "__main__":
    main()
