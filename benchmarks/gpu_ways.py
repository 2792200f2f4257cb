"""The ways in which `gpu.py` runs a model: plain ONNX Runtime, kerve's executor, and served.

Each measures rows per second and seconds per call, over as many calls as fit into the given time.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.artifact import read_artifact
from kerve.runtime.config import read_settings
from kerve.runtime.datatypes import Array
from kerve.runtime.devices.choice import Devices
from kerve.runtime.devices.libraries import load_packaged
from kerve.runtime.devices.placement import place
from kerve.runtime.model import Model, load

__all__ = [
    "KERVE",
    "Measured",
    "ask",
    "bare",
    "executor",
    "request",
    "serve",
    "served",
    "shared_row",
    "timed",
]

Inputs = dict[str, Array]

# The `kerve` command, also if the package is importable but not installed.
KERVE = [sys.executable, "-c", "from kerve.cli import main; main()"]

METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Measured:
    """Rows per second; the median and the 99th percentile of a call, in seconds."""

    rows: float
    p50: float
    p99: float


def timed(call: Callable[[], object], rows: int, seconds: float) -> Measured:
    """Call repeatedly for some seconds, with the given number of rows per call."""
    call()
    durations: list[float] = []
    begin = time.perf_counter()
    while (before := time.perf_counter()) < begin + seconds:
        call()
        durations.append(time.perf_counter() - before)
    return summary(durations, rows, time.perf_counter() - begin)


def summary(durations: list[float], rows: int, seconds: float) -> Measured:
    """Return the statistics of calls with the given number of rows each."""
    ordered = sorted(durations)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return Measured(len(durations) * rows / seconds, statistics.median(ordered), p99)


def inputs_of(artifact: Path, rows: int) -> Inputs:
    """Return random inputs for a model."""
    signature = read_artifact(artifact).signature
    assert signature is not None
    generator = np.random.default_rng(1)
    return {
        spec.name: generator.random((rows, *(int(size or 1) for size in spec.shape[1:])), np.float32)
        for spec in signature.inputs
    }


def bare(
    artifact: Path, device: str, batches: list[int], seconds: float, *, tf32: bool
) -> Iterator[Measured]:
    """Measure ONNX Runtime with its default settings, with arrays as inputs and outputs."""
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        load_packaged()
        providers = [("CUDAExecutionProvider", {"use_tf32": str(int(tf32))}), *providers]
    session = onnxruntime.InferenceSession(str(artifact / "model.onnx"), providers=providers)
    assert session.get_providers()[0] == (providers[0] if device == "cpu" else providers[0][0])
    for rows in batches:
        feed = inputs_of(artifact, rows)
        yield timed(partial(session.run, None, feed), rows, seconds)


def executor(artifact: Path, devices: Devices, batches: list[int], seconds: float) -> Iterator[Measured]:
    """Measure the model as loaded by `kerve serve`, in this process: latencies with one thread, throughput
    with as many threads as it is served with.
    """
    settings = read_settings(artifact.parent)
    (placement, *_) = place(settings.config, devices, settings.cuda, artifact.parent)
    model = load(read_artifact(artifact), threads=1, settings=settings, place=placement.place)
    try:
        yield from in_lanes(
            model, [inputs_of(artifact, rows) for rows in batches], seconds, placement.executors
        )
    finally:
        model.close()


def in_lanes(model: Model, feeds: list[Inputs], seconds: float, threads: int) -> Iterator[Measured]:
    """Call a model in threads that keep their buffers: first in one of them alone, then in all."""
    barrier = threading.Barrier(threads + 1)
    taken: list[list[float]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        try:
            with model.prepared():
                for feed in feeds:
                    for count in (1, threads):
                        barrier.wait()
                        taken[number] = calls(model, feed, seconds) if number < count else []
                        barrier.wait()
        except threading.BrokenBarrierError:
            return
        except Exception:
            barrier.abort()  # otherwise the others would wait forever
            raise

    for number in range(threads):
        threading.Thread(target=work, args=(number,), daemon=True).start()
    for feed in feeds:
        rows, found = len(next(iter(feed.values()))), []
        for _ in (1, threads):
            barrier.wait()
            begin = time.perf_counter()
            barrier.wait()
            found.append(
                summary([each for part in taken for each in part], rows, time.perf_counter() - begin)
            )
        alone, together = found
        yield Measured(together.rows, alone.p50, alone.p99)


def calls(model: Model, feed: Inputs, seconds: float) -> list[float]:
    """Return the duration of each call."""
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while (before := time.perf_counter()) < end or not durations:
        model.run(feed)
        durations.append(time.perf_counter() - before)
    return durations


@dataclass(frozen=True)
class Served:
    """A server, and the seconds from its start to the first response."""

    address: str
    first_answer: float


@contextmanager
def serve(repository: Path, name: str, body: bytes, device: str) -> Iterator[Served]:
    """Run `kerve serve` with one model of a repository, on a free port."""
    begin = time.perf_counter()
    options = ("--repository", str(repository), "--model-control-mode", "explicit", "--load-model", name)
    ports = ("--grpc-port", "0", "--http-port", "0", "--max-queue-size", "4096", "--device", device)
    command = [*KERVE, "serve", *options, *ports]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            found = re.search(r"\S+:\d+", process.stdout.readline().decode())
            if not found:
                log.seek(0)
                raise RuntimeError(f"no ready line: {log.read().decode()[-800:]}")
            with grpc.insecure_channel(found[0]) as channel:
                ask(channel, METHOD, body)
            yield Served(found[0], time.perf_counter() - begin)
        finally:
            process.terminate()
            process.wait(60)


def ask(channel: grpc.Channel, method: str, message: bytes) -> bytes:
    """Call a method with a serialized message."""
    return channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)(message)


def request(name: str, artifact: Path, region: str = "") -> bytes:
    """Return a serialized request with one row; with `region`, with the row in that shared memory region."""
    ((input_name, array),) = inputs_of(artifact, 1).items()
    tensor = pb.ModelInferRequest.InferInputTensor(name=input_name, datatype="FP32", shape=array.shape)
    if region:
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = array.nbytes
        return pb.ModelInferRequest(model_name=name, inputs=[tensor]).SerializeToString()
    message = pb.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[array.tobytes()])
    return message.SerializeToString()


@contextmanager
def shared_row(address: str, artifact: Path) -> Iterator[str]:
    """Register a row in shared memory with a server; yields its region's name."""
    ((_, array),) = inputs_of(artifact, 1).items()
    file = Path("/dev/shm") / f"kerve-bench-{os.getpid()}"
    file.write_bytes(array.tobytes())
    register = pb.SystemSharedMemoryRegisterRequest(
        name="row", key=f"/{file.name}", byte_size=array.nbytes
    ).SerializeToString()
    try:
        with grpc.insecure_channel(address) as channel:
            ask(channel, "/inference.GRPCInferenceService/SystemSharedMemoryRegister", register)
        yield "row"
    finally:
        file.unlink()


def served(program: Path, address: str, body: bytes, in_flight: int, seconds: float) -> Measured:
    """Measure a server with a number of requests, of one row each, in flight."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        flags = ("--in-flight", in_flight, "--connections", min(4, in_flight), "--seconds", seconds)
        command = [str(program), address, METHOD, file.name, *map(str, flags)]
        found = json.loads(subprocess.check_output(command, timeout=seconds + 60))
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} requests failed")
    return Measured(found["per_second"], found["p50_us"] / 1e6, found["p99_us"] / 1e6)
