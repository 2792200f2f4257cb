"""The driver's library through ctypes, against a stand-in whose device memory is the host's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUND_TRIP = """
import ctypes, sys, threading
import numpy as np
from pathlib import Path
from kerve.runtime.devices.driver import driver
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.memory import CudaMemory, CudaStream
from kerve.runtime.session import Session

class Memory(CudaMemory):
    device_type, device_id = "cpu", 0  # whose provider computes here; the addresses are the stand-in's

    def __init__(self, stream):
        super().__init__(stream)
        self.device_id = 0

file, found = Path(sys.argv[1]), driver()
print([(gpu.index, gpu.name, gpu.memory, gpu.capability) for gpu in found.gpus()], found.version)
stream = CudaStream(found, 1)
session = LaneSession(
    file, threads=1, providers=(("CPUExecutionProvider", {}),), buffers=lambda: Memory(stream),
    graphs=True, closed=stream.close,
)
plain, (spec,) = Session(file, threads=1), session.inputs
names = [each.name for each in session.outputs]

def work():
    generator = np.random.default_rng(0)
    with session.lane([1, 4]) as lane:
        with lane.capturing():
            session.run({spec.name: np.zeros((4, *spec.shape[1:]), np.float32)}, names)
        for rows in (4, 2, 3):
            array = np.repeat(generator.random((1, *spec.shape[1:]), np.float32), 4, 0)
            expected = plain.run({spec.name: array}, names)
            given = session.run({spec.name: array[:rows]}, names)
            assert all(given[name].tobytes() == expected[name][:rows].tobytes() for name in names)
            assert lane.run({spec.name: array[:rows]}, names) is not None

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
session.close()
print("out:", ctypes.CDLL("libcuda.so.1").fake_cuda_out())
"""


def run(code: str, *arguments: str, folder: Path | None = None, devices: int = 0) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder or ""), "FAKE_CUDA_DEVICES": str(devices)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_devices_answer_and_batches_go_through_their_memory(fake_driver: Path, models: Path) -> None:
    shown = run(ROUND_TRIP, str(models / "classifier.onnx"), folder=fake_driver, devices=2)
    first, last = shown.splitlines()
    assert first == f"[(0, 'Fake GPU 0', {80 << 30}, '9.0'), (1, 'Fake GPU 1', {80 << 30}, '9.0')] 13.0"
    assert last == "out: 0", "everything was given back"


ASK = """
from kerve.runtime.devices.driver import DriverError, driver
try:
    driver()
except DriverError as error:
    print(error)
"""


def test_a_driver_without_a_device_says_so(fake_driver: Path) -> None:
    assert run(ASK, folder=fake_driver) == "cuInit: no CUDA-capable device is detected (error 100)\n"


def test_a_machine_without_a_driver_says_so() -> None:
    """Where there is one, its devices answer and there is nothing to say."""
    shown = run(ASK)
    if not shown:
        pytest.skip("this machine has NVIDIA's driver")
    assert shown.startswith(("the NVIDIA driver is not installed here: libcuda.so.1", "cuInit: "))
