"""ONNX Runtime's real CUDA provider on a GPU that is none: buffers, bindings, graphs and captures.

Kernels do nothing there, so models only copy: what they answer is right if addresses, streams and graphs are.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kerve.runtime.devices.libraries import has_provider

if not has_provider("cuda"):
    pytest.skip(
        "this environment has no build of ONNX Runtime with CUDA (onnxruntime-gpu)", allow_module_level=True
    )
pytest.importorskip("onnx", reason="graphs are made with onnx, which serving does not need")
from onnx import TensorProto, helper, save

PREPARE = """
import ctypes, sys, threading
from contextlib import closing
from pathlib import Path
import numpy as np
from kerve.runtime.devices.choice import choose_devices
from kerve.runtime.devices.device import parse_device
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import DeviceConfig
from kerve.runtime.devices.sessions import open_session

file = Path(sys.argv[1])
(device,) = choose_devices(parse_device("cuda:0")).devices
runtime = ctypes.CDLL("libcudart.so.13")

def opened(**options):
    return open_session(file, DeviceConfig(device, CudaOptions(**options)), threads=1)

def number(name, kind=ctypes.c_int):
    return kind.in_dll(runtime, name).value

def array(rows, value):
    return np.full((rows, 3), value, np.float32)

def answer(session, rows, value):
    assert (session.run({"x": array(rows, value)}, ["y"])["y"] == array(rows, value)).all(), (rows, value)

def captured(session, lane, *sizes):
    with lane.capturing():
        for rows in sizes:
            answer(session, rows, 1)
    return [each.captured for each in lane._bound.values()]

def given_back():
    assert number("fake_allocations", ctypes.c_long) == 0
    assert ctypes.CDLL("libcuda.so.1").fake_cuda_out() == 0
    assert number("fake_refused") == 0, "something met a capture"
"""

GRAPHS = """
for options, graphs in (({"buffers": 0}, 0), ({"enable_cuda_graph": False}, 0), ({}, 3)):
    before = number("fake_launches")
    with closing(opened(**options)) as session:
        assert "CUDAExecutionProvider" in session._session.get_providers()
        answer(session, 2, 7)
        with session.lane([1, 4, 8]) as lane:
            assert (lane is None) == ("buffers" in options)
            if lane is not None:
                assert captured(session, lane, 1, 4, 8) == [bool(graphs)] * 3
                launched, waited = number("fake_launches"), number("fake_waits")
                for rows, value in ((1, 2), (4, 3), (3, 4), (8, 5), (20, 6), (1, 9)):
                    assert (lane.run({"x": array(rows, value)}, ["y"])["y"] == array(rows, value)).all()
                assert number("fake_launches") - launched == (5 if graphs else 0), "20 rows have no graph"
                assert number("fake_waits") == waited, "who reads the outputs waits, and not ONNX Runtime"
        kept = session.keep({"x": array(2, 5)}, ["y"])["y"]
        again = session.keep({"x": kept}, ["y"])["y"]
        assert kept.value.device_name() == "cuda" and (again.array == array(2, 5)).all()
        del kept, again
    given_back()
assert number("fake_captures") == 3
"""

BESIDE = """
over, wrong = threading.Event(), []

def traffic(session, value):
    try:
        with session.lane([4]) as lane:
            captured(session, lane, 4)
            while not over.is_set():
                value += 1
                answer(session, 1 + value % 6, value)
                assert (session.keep({"x": array(2, value)}, ["y"])["y"].array == value).all()
    except BaseException as error:
        wrong.append(error)

with closing(opened()) as session:
    threads = [threading.Thread(target=traffic, args=(session, start)) for start in (0, 1000)]
    for thread in threads: thread.start()
    for _ in range(3):
        with closing(opened()) as other, other.lane([1, 2, 8]) as lane:
            assert captured(other, lane, 1, 2, 8) == [True] * 3
    over.set()
    for thread in threads: thread.join()
assert not wrong, wrong
given_back()
"""

HOST = """
with closing(opened()) as session:
    assert session.at_host == {"s"} and not session.graphs
    with session.lane() as lane, lane.capturing():
        for value in (1, 2, 3):
            inputs = {"x": array(2, value), "s": np.array([2, 3])}
            assert (lane.run(inputs, ["y"])["y"] == array(2, value)).all()
given_back()
"""


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPU's libraries."""
    if not (shutil.which("cc") and shutil.which("nm")):
        pytest.skip("the stand-in for a GPU needs a C compiler (cc) and nm")
    folder = tmp_path_factory.mktemp("gpu")
    builder = Path(__file__).with_name("build_fake_gpu.py")
    subprocess.run([sys.executable, str(builder), str(folder)], check=True)
    return folder


@pytest.fixture
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model that copies; `Reshape` takes the shape at the host."""
    operator = request.param
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    if operator == "Reshape":
        inputs.append(helper.make_tensor_value_info("s", TensorProto.INT64, [2]))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    node = helper.make_node(operator, [each.name for each in inputs], ["y"])
    graph = helper.make_graph([node], "g", inputs, outputs)
    file = tmp_path / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(file))
    return file


@pytest.mark.parametrize(
    ("model", "script"),
    [
        pytest.param("Identity", GRAPHS, id="a graph for each size, replayed at its own addresses"),
        pytest.param("Identity", BESIDE, id="captures meet nobody"),
        pytest.param("Reshape", HOST, id="what the host reads is bound there"),
    ],
    indirect=["model"],
)
def test_on_the_cuda_provider(model: Path, script: str, gpu: Path) -> None:
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(gpu / "driver"),
        "FAKE_CUDA_DEVICES": "1",
        "PYTHONPATH": os.pathsep.join([str(gpu), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + script, str(model)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
