"""The steps of `gpu_check.py`: each checks one function of a device and returns its result in one line."""

import gc
import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from typing import Any

import numpy as np
from gpu_checks_served import (
    cuda_memory,
    doctor,
    errors,
    evaluation,
    metrics,
    served,
    system_memory,
    unloading,
)
from gpu_setting import MIB, Setting, Skip, expected, given_back, rows, same, small, used
from gpu_torch import resnet50, usable
from gpu_ways import timed

from kerve.runtime.artifact import read_artifact
from kerve.runtime.config import Settings
from kerve.runtime.devices.device import Device
from kerve.runtime.devices.lane import Lane
from kerve.runtime.devices.libraries import libraries
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import DeviceConfig
from kerve.runtime.devices.sessions import open_session, providers_for
from kerve.runtime.devices.tensorrt import TensorRtSession
from kerve.runtime.errors import ArtifactError, ServingError
from kerve.runtime.model import load
from kerve.runtime.session import RECORD, Session

__all__ = ["STEPS"]


def through(lane: Lane, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs that a lane computes through its buffers."""
    found = lane.run(inputs, ["probabilities", "logits"])
    assert found is not None, "the buffers were not used"
    return found


def session(setting: Setting) -> str:
    """A plain session, arrays in and arrays out."""
    with closing(open_session(small(), setting.place(buffers=0), threads=1)) as opened:
        for count in (1, 5):
            inputs = rows(count)
            same(opened.run(inputs, ["probabilities", "logits"]), expected(inputs))
        return opened.hardware


def buffers(setting: Setting) -> str:
    """IOBinding on buffers that are bound once, for several shapes, with and without padding."""
    with closing(setting.lanes(small(), enable_cuda_graph=False)) as opened, opened.lane([2, 8]) as lane:
        assert lane is not None
        for seed, count in enumerate((1, 2, 5, 8, 11, 1, 5)):
            inputs = rows(count, seed)
            same(through(lane, inputs), expected(inputs))
        return f"{len(lane._bound)} shapes bound"


def host_inputs(setting: Setting) -> str:
    """An input that is read on the host: the current value must be used, not the one at binding."""
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
    """CUDA graphs for each bucket: captured once, replayed with other values and with other sizes between."""
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
    """Two threads run one session concurrently, each with its own graphs."""
    with closing(setting.lanes(small())) as opened, ThreadPoolExecutor(2) as pool:

        def work(seed: int) -> int:
            with opened.lane([1, 8]) as lane:
                assert lane is not None
                with lane.capturing():
                    for count in (1, 8):
                        opened.run(rows(count), ["probabilities"])
                for number in range(200):
                    inputs = rows(1 + number % 8, seed + number)
                    right = on_cpu.run(inputs, ["probabilities", "logits"])
                    same(opened.run(inputs, ["probabilities", "logits"]), right)
                assert sum(each.captured for each in lane._bound.values()) == 2, "sizes 1 and 8"
            return 200

        on_cpu = Session(small(), threads=1)
        return f"{sum(pool.map(work, (0, 1000)))} batches"


def beside(setting: Setting) -> str:
    """Models are loaded, captured and closed while another is running."""
    done, begun, over = [0], threading.Event(), threading.Event()
    with closing(setting.lanes(small())) as opened, ThreadPoolExecutor(1) as pool:

        def traffic() -> None:
            with opened.lane([8]) as lane:
                assert lane is not None
                inputs = rows(8)
                right = expected(inputs)
                while not over.is_set():
                    same(opened.run(inputs, ["probabilities", "logits"]), right)
                    done[0] += 1
                    begun.set()

        future = pool.submit(traffic)
        try:
            assert begun.wait(60), "the first batch takes more than a minute"
            before = done[0]
            for _ in range(5):
                with closing(setting.lanes(small())) as other, other.lane([1, 2, 4, 8]) as lane:
                    assert lane is not None
                    with lane.capturing():
                        for count in (1, 2, 4, 8):
                            other.run(rows(count), ["probabilities"])
                    assert all(each.captured for each in lane._bound.values())
            meanwhile = done[0] - before
        finally:
            over.set()
        future.result()
    assert meanwhile, "no batch was computed while models were loaded"
    return f"5 models came and went beside {meanwhile} batches"


def precisions(setting: Setting) -> str:
    """Artifacts reproduce their golden data, with and without buffers and graphs."""
    found = []
    for name in ("mlp_float32", "mlp_float16", "mobilenetv2_float32", "mobilenetv2_float16"):
        begin = time.perf_counter()
        artifact = read_artifact(setting.artifact(name))
        with closing(load(artifact, threads=1, place=setting.place())) as model, model.prepared():
            assert model.check_golden(), "there is no golden data"
        found.append(f"{name} {time.perf_counter() - begin:.1f} s")
    return ", ".join(found)


def golden(setting: Setting) -> str:
    """An artifact whose golden data the device does not reproduce is rejected."""
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
    """TF32, if enabled, passes with float16's tolerance."""
    artifact = read_artifact(setting.artifact("mobilenetv2_float32"))
    place = setting.place(use_tf32=True)
    with closing(load(artifact, threads=1, place=place, settings=Settings())) as model, model.prepared():
        return "answers as its golden data says"


def nhwc(setting: Setting) -> str:
    """The effect of `prefer_nhwc` on the nodes of a convolution model."""
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
    """A memory limit that is too small raises an error and does not crash the process."""
    if not setting.on_gpu:
        raise Skip("the CPU has no such limit")
    artifact = read_artifact(setting.artifact("mobilenetv2_float32"))
    try:
        with closing(load(artifact, threads=1, place=setting.place(gpu_mem_limit=MIB))):
            raise AssertionError("it was loaded within 1 MiB")
    except ServingError as error:
        return str(error)[-160:]


def give_back(setting: Setting) -> str:
    """Closing a model releases its memory."""
    used(setting)
    with closing(setting.lanes(small())):  # allocates CUDA's context and libraries
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


def tensorrt(setting: Setting) -> str:
    """The same on TensorRT, if its libraries are installed."""
    if not setting.on_gpu:
        raise Skip("needs a GPU")
    if missing := [each.name for each in libraries("tensorrt") if each.problem]:
        raise Skip(f"needs {', '.join(missing)}")
    chosen = setting.chosen
    place = DeviceConfig(Device("tensorrt", chosen.index, chosen.name))
    begin = time.perf_counter()
    inputs = rows(4)

    def prove(engine: Session) -> None:
        same(engine.run(inputs, ["probabilities", "logits"]), expected(inputs), 1e-2)

    with closing(open_session(small(), place, threads=1)) as opened:
        assert isinstance(opened, TensorRtSession), "it is no session with an engine"
        same(opened.run(inputs, ["probabilities", "logits"]), expected(inputs))
        opened.improve([1, 4], prove)
        while opened.engine == "building":
            time.sleep(0.1)
        assert opened.engine == "ready", "the engine failed; what was logged says why"
        return f"{opened.hardware}, {time.perf_counter() - begin:.1f} s"


def reference(setting: Setting) -> str:
    """PyTorch's ResNet50, a baseline of `gpu.py`."""
    torch = usable()
    if not setting.on_gpu or torch is None:
        raise Skip("needs PyTorch, and a GPU that it can use")
    model = resnet50().half().cuda().eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        answer = model(torch.rand((2, 3, 224, 224)).half().cuda())
    assert tuple(answer.shape) == (2, 100), answer.shape
    return f"torch {torch.__version__}, {torch.cuda.get_device_name()}"


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
    "PyTorch": reference,
}
