"""The steps of `gpu_check.py` that use a server or a command."""

import ctypes
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from gpu_setting import MIB, TESTS, Setting, Skip, expected, given_back, rows, same, small, used
from gpu_ways import KERVE, ask

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime import Client, InvalidArgumentError
from kerve.runtime.devices.libraries import libraries

__all__ = [
    "cuda_memory",
    "doctor",
    "errors",
    "evaluation",
    "metrics",
    "served",
    "system_memory",
    "unloading",
]


@contextmanager
def server(setting: Setting, repository: Path, *options: str) -> Iterator[tuple[str, str, float]]:
    """Run `kerve serve`; yields its addresses for gRPC and HTTP, and the seconds until it was ready."""
    ports = ("--grpc-port", "0", "--http-port", "-1", "--device", setting.device)
    command = [*KERVE, "serve", "--repository", str(repository), *ports, *options]
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            found = re.search(r"gRPC on (\S+).*HTTP on ([^\s,]+)", line)
            assert found, f"no ready line, but {line!r}"
            print(line.strip())
            yield found[1], found[2], time.perf_counter() - begin
            process.terminate()
            assert process.wait(60) == 0, "it did not end well"
        finally:
            process.kill()
            log.seek(0)
            print(log.read().decode()[-3000:])


def repository(setting: Setting, *names: str) -> Path:
    """Return a repository of small models."""
    folder = setting.work / "repository"
    for name in names:
        (folder / name / "1").mkdir(parents=True)
        shutil.copy(small(name), folder / name / "1" / "model.onnx")
    return folder


def served(setting: Setting) -> str:
    """A server returns the same as the CPU, for sequential and for concurrent requests."""
    with (
        server(setting, repository(setting, "classifier")) as (address, _, seconds),
        Client(address) as client,
    ):

        def ask(number: int) -> None:
            inputs = rows(1 + number % 9, number)
            same(client.infer("classifier", inputs), expected(inputs))

        begin = time.perf_counter()
        ask(0)
        first = seconds + time.perf_counter() - begin
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(200)))
        try:
            client.infer("classifier", {"features": np.zeros((1, 3), np.float32)})
        except InvalidArgumentError as error:
            refused = str(error)
        else:
            raise AssertionError("a wrong shape was computed")
    return f"first answer after {first:.1f} s, 201 answers, and {refused[:60]!r}"


def shared_request(inputs: Any, answer_size: int) -> pb.ModelInferRequest:
    """Return a request whose tensors are in the region `ours`: the input, followed by the output."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=inputs.shape)
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
    for each, size, offset in ((tensor, inputs.nbytes, 0), (output, answer_size, inputs.nbytes)):
        each.parameters["shared_memory_region"].string_param = "ours"
        each.parameters["shared_memory_byte_size"].int64_param = size
        each.parameters["shared_memory_offset"].int64_param = offset
    return pb.ModelInferRequest(model_name="classifier", inputs=[tensor], outputs=[output])


def system_memory(setting: Setting) -> str:
    """Inputs and outputs in system shared memory."""
    inputs = rows(3)["features"]
    right = expected({"features": inputs})["probabilities"]
    file = Path("/dev/shm") / f"kerve-check-{uuid.uuid4().hex}"
    file.write_bytes(inputs.tobytes() + bytes(right.nbytes))
    register = pb.SystemSharedMemoryRegisterRequest(
        name="ours", key=f"/{file.name}", byte_size=file.stat().st_size
    )
    try:
        in_region(setting, "SystemSharedMemoryRegister", register, shared_request(inputs, right.nbytes))
        found = np.frombuffer(file.read_bytes()[inputs.nbytes :], np.float32).reshape(right.shape)
    finally:
        file.unlink()
    same({"probabilities": found}, {"probabilities": right})
    return f"{file.name} read and written"


def in_region(setting: Setting, method: str, register: Any, request: pb.ModelInferRequest) -> None:
    """Register a region with a server and send a request that uses it."""
    service = "/inference.GRPCInferenceService/"
    with (
        server(setting, repository(setting, "classifier")) as (address, _, _),
        grpc.insecure_channel(address) as channel,
    ):
        ask(channel, service + method, register.SerializeToString())
        ask(channel, service + "ModelInfer", request.SerializeToString())


def cuda_memory(setting: Setting) -> str:
    """Inputs and outputs in device memory, which this process allocates with the CUDA runtime."""
    if not setting.on_gpu:
        raise Skip("needs a GPU")
    libraries("cuda")  # loads the runtime
    runtime = ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}")

    def call(name: str, *arguments: Any) -> None:
        status = getattr(runtime, name)(*arguments)
        assert status == 0, f"{name}: error {status}"

    inputs = rows(3)["features"]
    right = expected({"features": inputs})["probabilities"]
    found, size = np.zeros_like(right), inputs.nbytes + right.nbytes
    pointer, handle = ctypes.c_void_p(), (ctypes.c_uint8 * 64)()
    call("cudaSetDevice", setting.chosen.index)
    call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
    host, length = ctypes.c_void_p(inputs.ctypes.data), ctypes.c_size_t(inputs.nbytes)
    call("cudaMemcpy", pointer, host, length, 1)  # to the device
    call("cudaDeviceSynchronize")
    call("cudaIpcGetMemHandle", ctypes.byref(handle), pointer)
    register = pb.CudaSharedMemoryRegisterRequest(
        name="ours", raw_handle=bytes(handle), device_id=setting.chosen.index, byte_size=size
    )
    in_region(setting, "CudaSharedMemoryRegister", register, shared_request(inputs, right.nbytes))
    behind = ctypes.c_void_p((pointer.value or 0) + inputs.nbytes)
    host, length = ctypes.c_void_p(found.ctypes.data), ctypes.c_size_t(found.nbytes)
    call("cudaMemcpy", host, behind, length, 2)  # to the host
    same({"probabilities": found}, {"probabilities": right})
    return f"{size} bytes of {setting.chosen.show()} read and written"


def evaluation(setting: Setting) -> str:
    """Evaluation reports the same numbers as Keras."""
    keras = json.loads((TESTS / "evaluation" / "keras.json").read_text())
    folder = shutil.copytree(TESTS / "evaluation" / "models", setting.work / "repository")
    with (
        np.load(TESTS / "evaluation" / "rows.npz") as arrays,
        server(setting, folder) as (address, _, _),
        Client(address) as client,
    ):
        result = client.evaluate("classifier", arrays["x"], arrays["classes"])
        numbers = {name: float(value) for name, value in result.results.items()}
    print(numbers, keras)
    for name, value in keras["classifier/2/plain"].items():
        assert abs(numbers[name] - value) <= 1e-4 * max(1, abs(value)), (name, numbers[name], value)
    return ", ".join(f"{name} {value:.6f}" for name, value in numbers.items())


def unloading(setting: Setting) -> str:
    """A server releases a model's memory when it is unloaded."""
    used(setting)
    assert setting.artifacts is not None or not setting.on_gpu, "needs artifacts"
    setting.artifact("mobilenetv2_float32")
    assert setting.artifacts is not None
    options = ("--model-control-mode", "explicit", "--load-model", "mlp_float32")
    with server(setting, setting.artifacts, *options) as (address, _, _), Client(address) as client:
        before = used(setting)
        client.load("mobilenetv2_float32")
        loaded = used(setting)
        client.unload("mobilenetv2_float32")
        end = time.monotonic() + 20
        while used(setting) > before + 64 * MIB and time.monotonic() < end:
            time.sleep(0.1)
        return given_back(before, loaded, used(setting))


def metrics(setting: Setting) -> str:
    """/metrics contains NVML's metrics."""
    used(setting)
    with server(setting, repository(setting, "classifier")) as (_, http, _):
        text = urllib.request.urlopen(f"http://{http}/metrics", timeout=30).read().decode()
    found = sorted(set(re.findall(r"^(nv_(?:gpu|energy)\w*)\{", text, re.MULTILINE)))
    assert "nv_gpu_memory_used_bytes" in found, found
    return ", ".join(found)


def errors(setting: Setting) -> str:
    """A device that does not exist is reported by name, and the command exits."""
    command = [*KERVE, "serve", "--repository", str(repository(setting, "classifier")), "--device", "cuda:99"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, (done.returncode, done.stderr[-500:])
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))[:150]


def doctor(setting: Setting) -> str:
    """The device, software and libraries on this machine."""
    command = [*KERVE, "doctor", "--device", setting.device, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-2000:]
    facts = json.loads(done.stdout)
    print(json.dumps(facts, indent=1))
    missing = [each for kind in facts["libraries"].values() for each in kind if each["problem"]]
    assert facts["device"]["taken"], facts["device"]["problem"]
    names = ", ".join(each["name"] for each in facts["driver"]["devices"])
    return (
        f"{names or 'no GPU'}; {facts['software']['onnxruntime']}; missing: "
        f"{', '.join(each['name'] for each in missing) or 'nothing'}; {facts['transport']['taken']}"
    )
