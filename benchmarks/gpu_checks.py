"""The steps of `gpu_check.py`: each proves one thing on a device, and returns what was seen in one line."""

import ctypes
import gc
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from gpu_ways import KERVE, ask, timed

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime import Client, InvalidArgumentError
from kerve.runtime.artifact import read_artifact
from kerve.runtime.config import Settings
from kerve.runtime.devices.choice import choose_devices
from kerve.runtime.devices.device import Device, parse_device
from kerve.runtime.devices.lane import Lane
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.libraries import libraries
from kerve.runtime.devices.memory import HostMemory
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import Place
from kerve.runtime.devices.sessions import open_session, providers_for
from kerve.runtime.errors import ArtifactError, ServingError
from kerve.runtime.model import load
from kerve.runtime.session import RECORD, Session

__all__ = ["STEPS", "Setting", "Skip"]

TESTS = Path(__file__).parent.parent / "tests" / "runtime"
CPU = (("CPUExecutionProvider", {}),)
MIB = 1 << 20


class Skip(Exception):  # noqa: N818  it is no error
    """Why a step cannot be taken here."""


@dataclass(frozen=True)
class Setting:
    """Where the steps are taken."""

    # As `--device` takes it.
    device: str
    # Artifacts, one folder for each; None: there are none.
    artifacts: Path | None
    work: Path

    @property
    def chosen(self) -> Device:
        """The device."""
        return choose_devices(parse_device(self.device)).devices[0]

    @property
    def on_gpu(self) -> bool:
        """Whether this is no rehearsal."""
        return self.chosen.kind != "cpu"

    def place(self, **options: Any) -> Place:
        """Return the device with options of [cuda]."""
        return Place(self.chosen, CudaOptions(**options))

    def lanes(self, file: Path, **options: Any) -> LaneSession:
        """Open a model with buffers; in a rehearsal they are the host's."""
        if not self.on_gpu:
            return LaneSession(file, threads=1, providers=CPU, buffers=HostMemory, graphs=True)
        session = open_session(file, self.place(**options), threads=1)
        assert isinstance(session, LaneSession), f"{file.name} has no lanes"
        return session

    def artifact(self, name: str) -> Path:
        """Return an artifact."""
        found = self.artifacts / name / "1" if self.artifacts else None
        if found is None or not found.exists():
            raise Skip(f"needs the artifact {name} (gpu_artifacts.py)")
        return found


def small(name: str = "classifier") -> Path:
    """Return a small model that is always at hand."""
    return TESTS / "models" / f"{name}.onnx"


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    """Return inputs of the small classifier."""
    return {"features": np.random.default_rng(seed).random((count, 4), np.float32)}


def same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Assert that two answers are equal but for rounding."""
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


def expected(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the small classifier's answers on the CPU."""
    return Session(small(), threads=1).run(inputs, ["probabilities", "logits"])


def through(lane: Lane, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return what a lane answers by way of its buffers."""
    found = lane.run(inputs, ["probabilities", "logits"])
    assert found is not None, "the buffers were not used"
    return found


def doctor(setting: Setting) -> str:
    """What is here."""
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


def session(setting: Setting) -> str:
    """A plain session, arrays in and arrays out."""
    with closing(open_session(small(), setting.place(buffers=0), threads=1)) as opened:
        for count in (1, 5):
            inputs = rows(count)
            same(opened.run(inputs, ["probabilities", "logits"]), expected(inputs))
        return opened.hardware


def buffers(setting: Setting) -> str:
    """IOBinding on buffers that are bound once, for several shapes, padded and not."""
    with closing(setting.lanes(small(), enable_cuda_graph=False)) as opened, opened.lane([2, 8]) as lane:
        assert lane is not None
        for seed, count in enumerate((1, 2, 5, 8, 11, 1, 5)):
            inputs = rows(count, seed)
            same(through(lane, inputs), expected(inputs))
        return f"{len(lane._bound)} shapes bound"


def host_inputs(setting: Setting) -> str:
    """An input that is read at the host: what was bound must not be what counts."""
    if find_spec("onnx") is None:
        raise Skip("needs onnx, to make a model")
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Trilu", ["x", "k"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 3]),
            helper.make_tensor_value_info("k", TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 3])],
    )
    file = setting.work / "trilu.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(file))
    with closing(setting.lanes(file)) as opened, opened.lane() as lane:
        assert lane is not None
        x = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
        for captured in (True, False):
            lane.captures = captured and opened.graphs
            for k in (0, 1, -1):
                found = opened.run({"x": x, "k": np.array(k)}, ["y"])["y"]
                np.testing.assert_array_equal(found, np.triu(x, k))
        return f"read at the host: {', '.join(sorted(opened.at_host)) or 'none'}; graphs: {opened.graphs}"


def graphs(setting: Setting) -> str:
    """CUDA graphs for each bucket: captured once, replayed with other values, at other sizes in between."""
    sizes = [1, 4, 8]
    with closing(setting.lanes(small())) as opened, opened.lane(sizes) as lane:
        assert lane is not None
        with lane.capturing():
            for count in sizes:
                opened.run(rows(count), ["probabilities"])
        captured = sum(each.captured for each in lane._bound.values())
        for seed, count in enumerate([*sizes, 3, 20, *reversed(sizes), 1]):
            inputs = rows(count, seed)
            same(through(lane, inputs), expected(inputs))
        replayed = timed(lambda: through(lane, rows(8)), 8, 0.3)
    with closing(setting.lanes(small(), enable_cuda_graph=False)) as opened, opened.lane(sizes) as lane:
        assert lane is not None
        launched = timed(lambda: through(lane, rows(8)), 8, 0.3)
    assert captured == len(sizes), f"captured {captured} of {len(sizes)}"
    return (
        f"{captured} captured; {replayed.p50 * 1e6:.0f} us replayed, {launched.p50 * 1e6:.0f} us launched "
        f"({launched.p50 / replayed.p50:.2f}x)"
    )


def threads(setting: Setting) -> str:
    """Two threads compute on one session at the same time, each with graphs of its own."""
    with closing(setting.lanes(small())) as opened, ThreadPoolExecutor(2) as pool:

        def work(seed: int) -> int:
            with opened.lane([1, 8]) as lane:
                assert lane is not None
                with lane.capturing():
                    opened.run(rows(8), ["probabilities"])
                for number in range(200):
                    inputs = rows(1 + number % 8, seed + number)
                    same(through(lane, inputs), opened_on_cpu.run(inputs, ["probabilities", "logits"]))
            return 200

        opened_on_cpu = Session(small(), threads=1)
        return f"{sum(pool.map(work, (0, 1000)))} batches"


def beside(setting: Setting) -> str:
    """Models are loaded, captured and closed while another computes."""
    done, over = [0], threading.Event()
    with closing(setting.lanes(small())) as opened, ThreadPoolExecutor(1) as pool:

        def traffic() -> None:
            with opened.lane([8]) as lane:
                assert lane is not None
                inputs = rows(8)
                right = expected(inputs)
                while not over.is_set():
                    same(opened.run(inputs, ["probabilities", "logits"]), right)
                    done[0] += 1

        future = pool.submit(traffic)
        try:
            for _ in range(5):
                with closing(setting.lanes(small())) as other, other.lane([1, 2, 4, 8]) as lane:
                    assert lane is not None
                    with lane.capturing():
                        for count in (1, 2, 4, 8):
                            other.run(rows(count), ["probabilities"])
                    assert all(each.captured for each in lane._bound.values())
        finally:
            over.set()
        future.result()
    return f"5 models came and went beside {done[0]} batches"


def precisions(setting: Setting) -> str:
    """Artifacts answer as their golden data says, plain and by way of buffers and graphs."""
    found = []
    for name in ("mlp_float32", "mlp_float16", "mobilenetv2_float32", "mobilenetv2_float16"):
        begin = time.perf_counter()
        artifact = read_artifact(setting.artifact(name))
        with closing(load(artifact, threads=1, place=setting.place())) as model, model.prepared():
            assert model.check_golden(), "there is no golden data"
        found.append(f"{name} {time.perf_counter() - begin:.1f} s")
    return ", ".join(found)


def golden(setting: Setting) -> str:
    """An artifact whose golden data the device does not give is refused."""
    folder = shutil.copytree(setting.artifact("mlp_float32"), setting.work / "wrong" / "1")
    file, manifest = folder / "golden.npz", folder / "manifest.json"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    with np.load(file) as arrays:
        changed = {key: array + 1 if "output" in key else array for key, array in arrays.items()}
    np.savez(file, **changed)
    text = manifest.read_text()
    assert before in text, "the manifest does not hold the file's hash"
    manifest.write_text(text.replace(before, hashlib.sha256(file.read_bytes()).hexdigest()))
    try:
        load(read_artifact(folder), threads=1, place=setting.place())
    except ArtifactError as error:
        return str(error).partition(": ")[2][:120]
    raise AssertionError("it was loaded")


def tf32(setting: Setting) -> str:
    """TF32, where it is asked for, passes with float16's tolerance."""
    artifact = read_artifact(setting.artifact("mobilenetv2_float32"))
    place = setting.place(use_tf32=True)
    with closing(load(artifact, threads=1, place=place, settings=Settings())) as model, model.prepared():
        return "answers as its golden data says"


def nhwc(setting: Setting) -> str:
    """What `prefer_nhwc` does to the nodes of a convolution model."""
    file = setting.artifact("mobilenetv2_float16") / "model.onnx"
    shown = []
    for prefer in (True, False):
        options = CudaOptions(prefer_nhwc=prefer)
        providers = providers_for(setting.chosen, options, enable_cuda_graph="0")
        with closing(Session(file, threads=1, providers=providers, entries={RECORD: "1"})) as opened:
            nodes = opened.assignments()
        operators = [node.operator.rpartition(".")[2] for node in nodes]
        fallen = sum(node.provider == "CPUExecutionProvider" for node in nodes)
        shown.append(
            f"{'NHWC' if prefer else 'NCHW'}: {len(nodes)} nodes, {operators.count('Transpose')} transposes, "
            f"{operators.count('Cast')} casts, {fallen} on the CPU"
        )
    return "; ".join(shown)


def memory_limit(setting: Setting) -> str:
    """A limit that is too small is an error in words, not the process's end."""
    if not setting.on_gpu:
        raise Skip("the CPU has no such limit")
    artifact = read_artifact(setting.artifact("mobilenetv2_float32"))
    try:
        with closing(load(artifact, threads=1, place=setting.place(gpu_mem_limit=MIB))):
            raise AssertionError("it was loaded within 1 MiB")
    except ServingError as error:
        return str(error)[-160:]


def used(setting: Setting) -> int:
    """Return the bytes of the device that are taken, as NVML tells."""
    if not setting.on_gpu or find_spec("pynvml") is None:
        raise Skip("needs a GPU, and NVML's module (nvidia-ml-py)")
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(setting.chosen.index)).used)


def given_back(before: int, loaded: int, after: int) -> str:
    """Assert that what was taken was given back, and say it."""
    shown = f"{(loaded - before) / MIB:.0f} MiB taken, {(after - before) / MIB:.0f} MiB of them kept"
    assert after - before <= max(64 * MIB, (loaded - before) // 4), shown
    return shown


def give_back(setting: Setting) -> str:
    """A model that is closed gives its memory back."""
    used(setting)
    with closing(setting.lanes(small())):  # pays for CUDA's context and libraries
        pass
    gc.collect()
    before = used(setting)
    artifact = read_artifact(setting.artifact("mobilenetv2_float32"))
    model = load(artifact, threads=1, place=setting.place())
    with model.prepared():
        loaded = used(setting)
    model.close()
    del model
    gc.collect()
    return given_back(before, loaded, used(setting))


@contextmanager
def server(setting: Setting, repository: Path, *options: str) -> Iterator[tuple[str, str, float]]:
    """`kerve serve`: its addresses for gRPC and HTTP, and the seconds until it was ready."""
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
    """A server answers as the CPU does, one request at a time and many."""
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
    """Return a request whose tensors lie in the region `ours`: the input first, the answer behind it."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=inputs.shape)
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="probabilities")
    for each, size, offset in ((tensor, inputs.nbytes, 0), (output, answer_size, inputs.nbytes)):
        each.parameters["shared_memory_region"].string_param = "ours"
        each.parameters["shared_memory_byte_size"].int64_param = size
        each.parameters["shared_memory_offset"].int64_param = offset
    return pb.ModelInferRequest(model_name="classifier", inputs=[tensor], outputs=[output])


def system_memory(setting: Setting) -> str:
    """Inputs and outputs in the system's shared memory."""
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
    """Register a region with a server, and ask for what lies in it."""
    service = "/inference.GRPCInferenceService/"
    with (
        server(setting, repository(setting, "classifier")) as (address, _, _),
        grpc.insecure_channel(address) as channel,
    ):
        ask(channel, service + method, register.SerializeToString())
        ask(channel, service + "ModelInfer", request.SerializeToString())


def cuda_memory(setting: Setting) -> str:
    """Inputs and outputs in a device's memory, which this process makes with the CUDA runtime."""
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
    """Evaluation gives Keras's numbers."""
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
    """A server gives a model's memory back when it is unloaded."""
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
    """/metrics tells NVML's quantities."""
    used(setting)
    with server(setting, repository(setting, "classifier")) as (_, http, _):
        text = urllib.request.urlopen(f"http://{http}/metrics", timeout=30).read().decode()
    found = sorted(set(re.findall(r"^(nv_(?:gpu|energy)\w*)\{", text, re.MULTILINE)))
    assert "nv_gpu_memory_used_bytes" in found, found
    return ", ".join(found)


def errors(setting: Setting) -> str:
    """A device that is not there is named, and the command ends."""
    command = [*KERVE, "serve", "--repository", str(repository(setting, "classifier")), "--device", "cuda:99"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, (done.returncode, done.stderr[-500:])
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))[:150]


def tensorrt(setting: Setting) -> str:
    """The same on TensorRT, where its libraries are."""
    if not setting.on_gpu:
        raise Skip("needs a GPU")
    if missing := [each.name for each in libraries("tensorrt") if each.problem]:
        raise Skip(f"needs {', '.join(missing)}")
    place = Place(Device("tensorrt", setting.chosen.index))
    begin = time.perf_counter()
    with closing(open_session(small(), place, threads=1)) as opened:
        inputs = rows(4)
        same(opened.run(inputs, ["probabilities", "logits"]), expected(inputs), 1e-3)
        return f"{opened.hardware}, {time.perf_counter() - begin:.1f} s"


STEPS: dict[str, Callable[[Setting], str]] = {
    "doctor": doctor,
    "session": session,
    "buffers": buffers,
    "host inputs": host_inputs,
    "graphs": graphs,
    "threads": threads,
    "loading beside traffic": beside,
    "precisions": precisions,
    "golden data": golden,
    "tf32": tf32,
    "nhwc": nhwc,
    "memory limit": memory_limit,
    "give-back": give_back,
    "served": served,
    "system shared memory": system_memory,
    "CUDA shared memory": cuda_memory,
    "evaluation": evaluation,
    "unloading": unloading,
    "metrics": metrics,
    "errors": errors,
    "tensorrt": tensorrt,
}
