"""`kerve serve` compared with Triton Inference Server: the same repository, ONNX Runtime and machine.

    python benchmarks/triton.py TRITON [--rounds 3] [--seconds 2] [--only throughput,rest,start]

TRITON is the folder created by `triton_server.sh`. `throughput`: two models in three configurations
(config.pbtxt), with several numbers of calls in flight; the servers run alternately. `rest`: the same over
REST, with tensors in JSON and in binary, which is perf_analyzer's default. `start`: the time from the command
to the first response, and the resident memory then. The load generator shares the cores with the servers.
"""

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import serving_models
from lifecycle import ask
from serving import Parts, Run, Running, in_turn, kerve, load, run_parts

#: Models, the shape of a request to each, and the numbers of calls in flight.
MODELS = {"mlp": ((1, 32), (1, 8, 64)), "mobilenet": ((1, 224, 224, 3), (1, 4, 8))}
BATCHED = 'name: "model" backend: "onnxruntime" max_batch_size: 64 dynamic_batching {}'
ONE_THREAD = 'parameters [{key: "intra_op_thread_count" value: {string_value: "1"}}]'
CONFIGURATIONS = {
    "as it comes": "",
    "one instance": f"{BATCHED} instance_group [{{count: 1 kind: KIND_CPU}}]",
    "two instances of one thread": f"{BATCHED} instance_group [{{count: 2 kind: KIND_CPU}}] {ONE_THREAD}",
}
FORMS = {"JSON": False, "binary": True}
PORTS = iter(range(19100, 19900, 2))


@contextmanager
def triton(folder: Path, repository: Path) -> Iterator[Running]:
    """Run a Triton server; yields when it is ready."""
    grpc, http = next(PORTS), next(PORTS) + 1
    options = {
        "model-repository": repository,
        "backend-directory": folder / "backends",
        "grpc-port": grpc,
        "http-port": http,
        "allow-metrics": "false",
    }
    command = [
        str(folder / "bin" / "tritonserver"),
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not answers(f"http://127.0.0.1:{http}/v2/health/ready"):
            assert process.poll() is None, "Triton did not start"
            time.sleep(0.01)
        yield Running(f"127.0.0.1:{grpc}", process, f"127.0.0.1:{http}")
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    with suppress(OSError), urlopen(url, timeout=5) as response:
        return bool(response.status == 200)
    return False


def repository_of(name: str, configuration: str, folder: Path) -> Path:
    """Return a repository in Triton's layout with one model."""
    repository = folder / "triton" / name
    shutil.rmtree(repository, ignore_errors=True)
    version = repository / "model" / "1"
    version.mkdir(parents=True)
    shutil.copy(getattr(serving_models, name)(folder), version / "model.onnx")
    if configuration:
        (repository / "model" / "config.pbtxt").write_text(configuration)
    return repository


def head(what: str) -> None:
    """Print the names of the columns."""
    print(f"\n{'model':12}{what:30}{'in flight':>10}{'kerve/s':>10}{'Triton/s':>10}{'ratio':>8}", end="")
    print(f"{'p50 us':>10}{'Triton':>10}{'p99 us':>10}{'Triton':>10}{'CPU us':>10}{'Triton':>10}")


def compare(
    rounds: int, labels: str, measure: Callable[[Running], Run], ours: Running, theirs: Running
) -> None:
    """Measure both servers alternately and print a row: requests per second, latencies and CPU times."""
    sides: dict[str, Callable[[], Run]] = {
        side: partial(measure, running) for side, running in (("ours", ours), ("theirs", theirs))
    }
    one, other = in_turn(rounds, sides).values()
    assert not one["failed"]
    assert not other["failed"]
    ratio = one["per_second"] / other["per_second"]
    print(f"{labels}{one['per_second']:10,.0f}{other['per_second']:10,.0f}{ratio:8.2f}", end="")
    pairs = ((each["p50_us"], each["p99_us"], each["cpu_us"]) for each in (one, other))
    both = [figure for pair in zip(*pairs, strict=True) for figure in pair]
    print("".join(f"{figure:10,.0f}" for figure in both), flush=True)


def throughput(options: argparse.Namespace, folder: Path) -> None:
    """Compare throughput over gRPC."""
    head("configuration")
    for name, (shape, counts) in MODELS.items():
        body = serving_models.request(shape, folder / "body")
        for label, configuration in CONFIGURATIONS.items():
            repository = repository_of(name, configuration, folder)
            with kerve(repository) as ours, triton(options.triton, repository) as theirs:
                for count in counts:
                    measure = partial(load, body=body, in_flight=count, seconds=options.seconds)
                    compare(options.rounds, f"{name:12}{label:30}{count:10}", measure, ours, theirs)


def rest(options: argparse.Namespace, folder: Path) -> None:
    """Compare throughput over REST, with one batching instance."""
    head("tensors")
    for name, (shape, counts) in MODELS.items():
        repository = repository_of(name, CONFIGURATIONS["one instance"], folder)
        with (
            kerve(repository, "--http-port", "-1") as ours,
            triton(options.triton, repository) as theirs,
        ):
            for form, binary in FORMS.items():
                body = folder / f"body.{form}"
                length = serving_models.rest_request(shape, body, binary=binary)
                for count in counts:
                    measure = partial(load, body=body, in_flight=count, seconds=options.seconds, rest=length)
                    compare(options.rounds, f"{name:12}{form:30}{count:10}", measure, ours, theirs)


def start(options: argparse.Namespace, folder: Path) -> None:
    """Measure the time from the command to the first response."""
    repository = repository_of("mlp", "", folder)
    body = serving_models.request((1, 32), folder / "body").read_bytes()

    def first(server: Callable[[], AbstractContextManager[Running]]) -> Run:
        begun = time.perf_counter()
        with server() as running:
            ask(running.address, body)
            return {"first_s": time.perf_counter() - begun, "resident_mb": running.resident() / 1e6}

    sides: dict[str, Callable[[], Run]] = {
        "kerve": partial(first, partial(kerve, repository)),
        "Triton": partial(first, partial(triton, options.triton, repository)),
    }
    print()
    for name, row in in_turn(options.rounds, sides).items():
        print(f"{name}: {row['first_s']:.2f} s to the first answer, {row['resident_mb']:.0f} MB resident")


PARTS: Parts = {"throughput": throughput, "rest": rest, "start": start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("triton", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    run_parts(parser, PARTS)


if __name__ == "__main__":
    main()
