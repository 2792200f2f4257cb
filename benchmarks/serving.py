"""Speed of the wire transport, compared with a Python server and a bare session on the same machine.

    python benchmarks/serving.py [--rounds 5] [--seconds 2] [--only small,compute,overload,crowd]

Every comparison consists of short alternating runs of both sides and shows their medians, so that variations
of the machine's speed affect both alike. The last part, `memory`, observes one server over a million
requests. The load generator is the example `load` of `runtime/wire`, built with cargo when needed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import serving_models
from serving_servers import METHOD, session

HERE = Path(__file__).parent
WIRE = HERE.parent / "runtime" / "wire"

Run = Mapping[str, float]
Parts = Mapping[str, Callable[[argparse.Namespace, Path], None]]


@dataclass(frozen=True)
class Running:
    """A server in a separate process."""

    address: str
    process: "subprocess.Popen[bytes]"
    # Its HTTP address; empty without HTTP.
    http: str = ""

    def cpu_seconds(self) -> float:
        """Return the CPU time used by the process."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def executor_seconds(self) -> float:
        """Return the CPU time of the executor thread: the busiest one."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return max(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def resident(self) -> int:
        """Return the resident memory of the process in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096


@contextmanager
def server(kind: str, model: Path, *options: str) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        program = str(HERE / "serving_servers.py")
        command = [sys.executable, program, kind, str(model), str(port_file), *options]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # ends when its input does
            while not port_file.exists():
                assert process.poll() is None, "the server did not start"
                time.sleep(0.02)
            yield Running(f"127.0.0.1:{port_file.read_text()}", process)


def build_generator() -> None:
    """Build the load generator if it is not built yet."""
    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "load"], cwd=WIRE, check=True)


def generator(
    running: Running,
    body: Path,
    in_flight: int,
    seconds: float,
    connections: int = 1,
    backoff: float = 0.0,
    rest: int | None = None,
) -> list[str]:
    """Return the command of a load generator that keeps `in_flight` calls in flight.

    With `rest`, it uses REST; the value is the length of the body's JSON part, 0 for all of it.
    """
    flags = {"in-flight": in_flight, "connections": connections, "seconds": seconds, "backoff": backoff}
    where = [running.address, METHOD]
    if rest is not None:
        flags["rest"], where = rest, [running.http, "/v2/models/model/infer"]
    program = WIRE / "target" / "release" / "examples" / "load"
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return [str(program), *where, str(body), *arguments]


def load(
    running: Running,
    body: Path,
    in_flight: int,
    seconds: float,
    connections: int = 1,
    backoff: float = 0.0,
    rest: int | None = None,
) -> Run:
    """Keep `in_flight` calls in flight; returns the load generator's results and the server's CPU times."""
    before, executor = running.cpu_seconds(), running.executor_seconds()
    command = generator(running, body, in_flight, seconds, connections, backoff, rest)
    found: dict[str, float] = json.loads(subprocess.check_output(command, timeout=seconds + 60))
    # Independent of other processes on the machine.
    found["per_cpu_s"] = found["answered"] / ((running.executor_seconds() - executor) or float("nan"))
    found["cpu_us"] = (running.cpu_seconds() - before) / max(1, found["answered"] + found["failed"]) * 1e6
    return found


def medians(runs: Sequence[Run]) -> Run:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def in_turn(rounds: int, sides: Mapping[str, Callable[[], Run]]) -> Mapping[str, Run]:
    """Run every side once per round; return the medians of each."""
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for side in sides.values():
        side()  # warm-up
    for _ in range(rounds):
        for name, side in sides.items():
            runs[name].append(side())
    return {name: medians(each) for name, each in runs.items()}


def show(title: str, rows: Mapping[str, Run]) -> None:
    columns = ("per_second", "mean_us", "p50_us", "p99_us", "cpu_us", "per_cpu_s", "failed")
    print(f"\n{title}\n{'':34}" + "".join(f"{name:>12}" for name in columns))
    for name, row in rows.items():
        print(f"{name:34}" + "".join(f"{row.get(column, float('nan')):12,.1f}" for column in columns))


def small(options: argparse.Namespace, folder: Path) -> None:
    """Compare a 32-64-64-10 MLP with a grpc.aio server that returns a constant."""
    model, body = serving_models.mlp(folder), serving_models.request((1, 32), folder / "body")
    bars = {1: 0.4, 8: 7.0, 64: 12.0}
    with server("wire", model) as wire, server("constant", model) as constant:
        for in_flight, bar in bars.items():
            sides = {
                name: lambda side=side, count=in_flight: load(side, body, count, options.seconds)
                for name, side in (("wire, ONNX Runtime", wire), ("grpc.aio, a constant", constant))
            }
            rows = in_turn(options.rounds, sides)
            show(f"small model, {in_flight} in flight", rows)
            ours, theirs = rows.values()
            if in_flight == 1:
                print(f"latency: {ours['mean_us'] / theirs['mean_us']:.2f}x (bar: at most {bar}x)")
            else:
                print(f"throughput: {ours['per_second'] / theirs['per_second']:.1f}x (bar: at least {bar}x)")


def image(folder: Path) -> Path:
    return serving_models.request((1, 224, 224, 3), folder / "body")


def compute(options: argparse.Namespace, folder: Path) -> None:
    """Compare MobileNetV2 on 600 KB requests with a bare session, and measure the transport's CPU time."""
    model, body = serving_models.mobilenet(folder), image(folder)
    bare = session(model, 1)
    feed = {"x": np.random.default_rng(0).random((1, 224, 224, 3), np.float32)}

    def run_bare() -> Run:
        begun, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - begun < options.seconds:
            bare.run(None, feed)
            count += 1
        used = (time.process_time() - cpu) / count * 1e6
        return {"per_second": count / (time.perf_counter() - begun), "cpu_us": used, "per_cpu_s": 1e6 / used}

    with server("wire", model, "--batch", "1") as wire:
        sides = {
            "bare session, one thread": run_bare,
            "wire, 4 in flight": lambda: load(wire, body, 4, options.seconds),
        }
        rows = in_turn(options.rounds, sides)
    show("MobileNetV2, 600 KB requests", rows)
    theirs, ours = rows.values()
    print(f"throughput: {ours['per_second'] / theirs['per_second']:.1%} of the session's (bar: 97 %)")
    with server("wire", serving_models.summary(folder)) as wire:
        row = in_turn(options.rounds, {"wire": lambda: load(wire, body, 4, options.seconds)})
    show("a model that does next to nothing with 600 KB", row)
    print(f"the server's CPU per request: {row['wire']['cpu_us']:.0f} us (bar for the transport: 300 us)")


def overload(options: argparse.Namespace, folder: Path) -> None:
    """Send four times the calls that can be served: most must be rejected, none may be slow."""
    model, body, queue = serving_models.mobilenet(folder), image(folder), 16
    with server("wire", model, "--queue", str(queue), "--batch", "1") as wire:
        capacity = load(wire, body, queue, options.seconds)["per_second"]
        # Rejected calls are retried after a backoff, such that the total load is four times the capacity.
        backoff = 48 / (3 * capacity)
        sides: dict[str, Callable[[], Run]] = {
            "as many as fit": lambda: load(wire, body, queue, options.seconds),
            "four times as many": lambda: load(wire, body, 64, options.seconds, backoff=backoff),
        }
        for side in sides.values():
            side()
        before = wire.resident()
        rows = in_turn(options.rounds, sides)
        grown = wire.resident() - before
    show(f"overload, queue of {queue}", rows)
    fits, over = rows.values()
    asked = (over["answered"] + over["failed"]) / over["seconds"] / fits["per_second"]
    print(f"asked: {asked:.1f}x what can be served")
    print(f"throughput: {over['per_second'] / fits['per_second']:.1%} of the best (bar: 95 %)")
    print(f"per second of the executor's CPU: {over['per_cpu_s'] / fits['per_cpu_s']:.1%} of the best")
    # The requests in the queue, the one being computed, and the new one.
    full = (queue + 2) / over["per_second"]
    print(f"p99 of those accepted: {over['p99_us'] / 1e3:.0f} ms; a full queue takes {full * 1e3:.0f} ms")
    print(f"memory: {grown / 2**20:+.1f} MiB over {options.rounds} rounds")


def workers(options: argparse.Namespace, folder: Path) -> None:
    """Compare one worker thread with two."""
    model, body = serving_models.mlp(folder), serving_models.request((1, 32), folder / "body")
    with server("wire", model) as one, server("wire", model, "--workers", "2") as two:
        sides = {
            "one worker": lambda: load(one, body, 128, options.seconds, 4),
            "two workers": lambda: load(two, body, 128, options.seconds, 4),
        }
        show("workers, 128 in flight on 4 connections", in_turn(options.rounds, sides))


GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def open_stream(number: int) -> bytes:
    """Return the HEADERS frame of a call whose request is never sent."""
    fields = [(b":path", METHOD.encode()), (b"content-type", b"application/grpc")]
    literals = (b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields)
    block = b"\x83\x86" + b"".join(literals)  # :method POST and :scheme http, from the static table
    return len(block).to_bytes(3, "big") + bytes([1, 4]) + number.to_bytes(4, "big") + block


def crowd(options: argparse.Namespace, folder: Path) -> None:
    """Compare eight calls in flight alone and with other clients that should use memory but no CPU time."""
    model, body = serving_models.mlp(folder), serving_models.request((1, 32), folder / "body")
    large = serving_models.request((4096, 32), folder / "large")
    names = ("alone", f"{options.idle} idle connections", "1000 streams of one connection", "a slow reader")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server("wire", model)) for name in names}

        def connect(running: Running) -> socket.socket:
            host, _, port = running.address.rpartition(":")
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(GREETING)
            return connection

        _, idle, wide, slow = servers.values()
        before = idle.resident()
        connections = [connect(idle) for _ in range(options.idle)]
        connect(wide).sendall(b"".join(map(open_stream, range(1, 2000, 2))))
        reader = subprocess.Popen(generator(slow, large, 32, 3600), stdout=subprocess.DEVNULL)
        stack.callback(reader.wait)
        stack.callback(reader.kill)
        time.sleep(2)
        reader.send_signal(signal.SIGSTOP)  # it has sent requests, but no longer reads
        each = (idle.resident() - before) / len(connections)
        measure = {
            name: lambda side=side: load(side, body, 8, options.seconds) for name, side in servers.items()
        }
        rows = in_turn(options.rounds, measure)
    show("a crowd, 8 in flight", rows)
    alone = rows["alone"]["per_second"]
    for name in names[1:]:
        print(f"beside {name}: {rows[name]['per_second'] / alone:.1%} of alone (bar: 90 %)")
    print(f"memory: {each / 1024:.0f} KiB for each idle connection")


HOG = [sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"]


def neighbours(options: argparse.Namespace, folder: Path) -> None:
    """Compare the small model alone and with lowest-priority processes that keep every core busy."""
    model, body = serving_models.mlp(folder), serving_models.request((1, 32), folder / "body")
    with server("wire", model) as wire:

        def beside(count: int) -> Run:
            hogs = [subprocess.Popen(HOG) for _ in range(os.cpu_count() or 1)]
            try:
                return load(wire, body, count, options.seconds)
            finally:
                for hog in hogs:
                    hog.kill()
                    hog.wait()

        for count in (1, 8):
            sides: dict[str, Callable[[], Run]] = {
                "alone": partial(load, wire, body, count, options.seconds),
                "busy neighbours": partial(beside, count),
            }
            rows = in_turn(options.rounds, sides)
            show(f"neighbours, {count} in flight", rows)
            alone, crowded = rows.values()
            print(f"beside busy neighbours: {crowded['per_second'] / alone['per_second']:.1%} of alone")


@contextmanager
def kerve(repository: Path, *options: str) -> Iterator[Running]:
    """Run `kerve serve` with the wire transport; its log goes to a file."""
    command = [str(Path(sys.executable).with_name("kerve")), "serve", "--repository", str(repository)]
    ports = ("--grpc-port", "0", "--http-port", "0", "--transport", "wire")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, *ports, *options], stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().decode()
            address, http = re.search(r"\S+:\d+", ready), re.search(r"HTTP on (\S+:\d+)", ready)
            assert address, "the server did not start"
            yield Running(address[0], process, http[1] if http else "")
        finally:
            process.terminate()
            process.wait(30)


def observed(options: argparse.Namespace, folder: Path) -> None:
    """Measure the cost of logging every request, and of being able to trace requests."""
    version = folder / "repository" / "model" / "1"
    version.mkdir(parents=True)
    shutil.copy(serving_models.mlp(folder), version / "model.onnx")
    (version.parent / "config.toml").write_text("max_batch_size = 64\n")
    body = serving_models.request((1, 32), folder / "body")
    kinds: Mapping[str, tuple[str, ...]] = {
        "unobserved": (),
        "traced when a caller is": ("--trace-ratio", "0"),
        "an access line each": ("--access-log",),
    }
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(kerve(folder / "repository", *each)) for name, each in kinds.items()
        }
        for in_flight in (1, 64):
            measure = {
                name: lambda side=side, count=in_flight: load(side, body, count, options.seconds)
                for name, side in servers.items()
            }
            rows = in_turn(options.rounds, measure)
            show(f"observed, {in_flight} in flight", rows)
            alone = rows["unobserved"]["per_second"]
            for name in [*kinds][1:]:
                print(f"{name}: {rows[name]['per_second'] / alone:.1%} of unobserved")


def memory(options: argparse.Namespace, folder: Path) -> None:
    """Print the process's memory after each tenth of a million requests, about a tenth of them invalid."""
    model, body = serving_models.mlp(folder), serving_models.request((1, 32), folder / "body")
    wrong = serving_models.request((1, 33), folder / "wrong")
    with server("wire", model) as wire:
        count, mark = 0.0, options.requests / 10
        print(f"\n{'requests':>12}{'MiB':>10}")
        while count < options.requests:
            for each, seconds in ((body, options.seconds), (wrong, options.seconds / 10)):
                found = load(wire, each, 64, seconds, connections=4)
                count += found["answered"] + found["failed"]
            if count >= mark:
                print(f"{count:12,.0f}{wire.resident() / 2**20:10.1f}", flush=True)
                mark += options.requests / 10


PARTS: Parts = {
    part.__name__: part for part in (small, compute, overload, workers, crowd, neighbours, observed, memory)
}


def run_parts(parser: argparse.ArgumentParser, parts: Parts) -> None:
    """Run the parts chosen on the command line, with its options."""
    parser.add_argument("--models", type=Path, help="folder that keeps the compiled models for the next time")
    parser.add_argument("--only", default=",".join(parts))
    options = parser.parse_args()
    build_generator()
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only.split(","):
            parts[name](options, options.models or Path(temporary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    run_parts(parser, PARTS)


if __name__ == "__main__":
    main()
