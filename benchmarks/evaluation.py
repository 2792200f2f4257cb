"""Speed of `kerve evaluate`, compared with a bare session on the same batches and with model.evaluate().

    python benchmarks/evaluation.py [--rounds 3] [--only digits,mobilenet,resnet50]

All sides run alternately on the same CPUs, after a warm-up round, and the medians of the rounds are shown.
The bare session is ONNX Runtime with its default options, as a script would use it. TensorFlow evaluates in a
separate process, in Keras's batches of 32; kerve's server is another process, called over loopback by a
client in this one. CPU seconds are those of all processes of a side: they are meaningful on a shared machine,
too. Prints the table of docs/performance.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evaluation_models
import numpy as np
import onnxruntime

from kerve.runtime import Client
from kerve.runtime.artifact import read_artifact
from kerve.runtime.cpus import available_cpus
from kerve.runtime.evaluation.client import batches, messages

HERE = Path(__file__).parent
KERVE = str(Path(sys.executable).with_name("kerve"))
CLOCK_TICKS = 100
HEAD = """\
| model | rows | bare session, rows/s | kerve evaluate, rows/s | model.evaluate(), rows/s \
| of the bare session (bar: 0.90) | of model.evaluate() (bar: 1) | CPU ms per row of each | loss off by |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Took:
    """One round of one side."""

    seconds: float
    cpu: float
    loss: float


def cpu_of(process: int) -> float:
    """Return the CPU seconds used by a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


@contextmanager
def serving(repository: Path) -> Iterator[tuple[Client, int]]:
    """Run a server of the compiled models; yields a client and the server's process id."""
    command = [KERVE, "serve", "--repository", str(repository), "--grpc-port", "0", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = next(word.strip(",") for word in line.split() if ":" in word and word[-1].isdigit())
        try:
            with Client(address) as client:
                yield client, process.pid
        finally:
            process.terminate()


class Bare:
    """An ONNX Runtime session, called with the same batches as a client sends."""

    def __init__(self, folder: Path, rows: evaluation_models.Rows) -> None:
        artifact = read_artifact(folder)
        signature = artifact.signature
        assert signature is not None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        self._session = onnxruntime.InferenceSession(
            str(artifact.model_file), options, providers=["CPUExecutionProvider"]
        )
        self._batches = [
            {spec.name: typed[spec.name][1] for spec in signature.inputs}
            for typed in messages(signature, batches(signature, rows.x, rows.y, None))
        ]

    def run(self) -> Took:
        begin, cpu = time.perf_counter(), time.process_time()
        for batch in self._batches:
            self._session.run(None, batch)
        return Took(time.perf_counter() - begin, time.process_time() - cpu, float("nan"))


def kerve(client: Client, server: int, name: str, rows: evaluation_models.Rows) -> Took:
    begin, cpu, served = time.perf_counter(), time.process_time(), cpu_of(server)
    loss = client.evaluate(name, rows.x, rows.y).results["loss"]
    took = time.perf_counter() - begin
    return Took(took, time.process_time() - cpu + cpu_of(server) - served, float(np.asarray(loss)))


class TensorFlow:
    """model.evaluate() in a process that holds the model and the rows and waits for commands."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, str(HERE / "evaluation_models.py"), "evaluate", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.run()  # traces

    def run(self) -> Took:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return Took(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def medians(sides: dict[str, Callable[[], Took]], rounds: int) -> dict[str, Took]:
    """Run all sides alternately, after a warm-up round; returns the medians."""
    found: dict[str, list[Took]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            took = run()
            if number:
                found[name].append(took)

    return {
        name: Took(
            statistics.median(each.seconds for each in of),
            statistics.median(each.cpu for each in of),
            of[0].loss,
        )
        for name, of in found.items()
    }


def compare(name: str, repository: Path, client: Client, server: int, rounds: int) -> None:
    rows = evaluation_models.rows(name)
    bare, tensorflow = Bare(repository / name / "1", rows), TensorFlow(name)
    sides: dict[str, Callable[[], Took]] = {
        "bare session": bare.run,
        "kerve evaluate": lambda: kerve(client, server, name, rows),
        "model.evaluate()": tensorflow.run,
    }
    try:
        found = medians(sides, rounds)
    finally:
        tensorflow.close()
    ours, session, keras = (found[side] for side in ("kerve evaluate", "bare session", "model.evaluate()"))
    count = len(rows.y)
    speeds = (f"{count / took.seconds:,.1f}" for took in (session, ours, keras))
    cpu = (f"{took.cpu / count * 1e3:.3f}" for took in (session, ours, keras))
    print(
        f"| {name} | {count:,} | {' | '.join(speeds)} | {session.seconds / ours.seconds:.3f} | "
        f"{keras.seconds / ours.seconds:.2f} | {', '.join(cpu)} | {abs(ours.loss / keras.loss - 1):.0e} |",
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", default=",".join(evaluation_models.MODELS))
    chosen: Any = arguments.parse_args()
    names = chosen.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        for name in names:
            command = [sys.executable, str(HERE / "evaluation_models.py"), "compile", name, folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(HEAD)
        with serving(repository) as (client, server):
            for name in names:
                compare(name, repository, client, server, chosen.rounds)


if __name__ == "__main__":
    main()
