"""The environment and the common functions of the steps of `gpu_check.py`."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kerve.runtime.devices.choice import choose_devices
from kerve.runtime.devices.device import Device, parse_device
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.memory import HostMemory
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import DeviceConfig
from kerve.runtime.devices.sessions import open_session
from kerve.runtime.session import Provider, Session

__all__ = [
    "CPU",
    "MIB",
    "TESTS",
    "Setting",
    "Skip",
    "expected",
    "given_back",
    "rows",
    "same",
    "small",
    "used",
]


TESTS = Path(__file__).parent.parent / "tests" / "runtime"
CPU: tuple[Provider, ...] = (("CPUExecutionProvider", {}),)
MIB = 1 << 20


class Skip(Exception):  # noqa: N818  not an error
    """A step cannot run here."""


@dataclass(frozen=True)
class Setting:
    """The environment of the steps."""

    # In the form of `--device`.
    device: str
    # The folder of artifacts; None: there are none.
    artifacts: Path | None
    work: Path

    @property
    def chosen(self) -> Device:
        """The device."""
        return choose_devices(parse_device(self.device)).devices[0]

    @property
    def on_gpu(self) -> bool:
        """Whether this is not a dry run on the CPU."""
        return self.chosen.kind != "cpu"

    def place(self, **options: Any) -> DeviceConfig:
        """Return the device with options of the section [cuda]."""
        return DeviceConfig(self.chosen, CudaOptions(**options))

    def lanes(self, file: Path, **options: Any) -> LaneSession:
        """Open a model with buffers; in a dry run they are in host memory."""
        if not self.on_gpu:
            return LaneSession(file, threads=1, providers=CPU, buffers=HostMemory, graphs=True)
        session = open_session(file, self.place(**options), threads=1)
        assert isinstance(session, LaneSession), f"{file.name} has no lanes"
        return session

    def artifact(self, name: str) -> Path:
        """Return an artifact's folder; raises `Skip` if it does not exist."""
        found = self.artifacts / name / "1" if self.artifacts else None
        if found is None or not found.exists():
            raise Skip(f"needs the artifact {name} (gpu_artifacts.py)")
        return found


def small(name: str = "classifier") -> Path:
    """Return a small model of the tests."""
    return TESTS / "models" / f"{name}.onnx"


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    """Return inputs of the small classifier."""
    return {"features": np.random.default_rng(seed).random((count, 4), np.float32)}


def same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Assert that two results are equal up to rounding."""
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance, err_msg=name)


def expected(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the small classifier's outputs on the CPU."""
    return Session(small(), threads=1).run(inputs, ["probabilities", "logits"])


def used(setting: Setting) -> int:
    """Return the device's used memory in bytes, measured by NVML."""
    if not setting.on_gpu or find_spec("pynvml") is None:
        raise Skip("needs a GPU, and NVML's module (nvidia-ml-py)")
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetHandleByIndex(setting.chosen.index)).used)


def given_back(before: int, loaded: int, after: int) -> str:
    """Assert that memory was released, and return a description."""
    shown = f"{(loaded - before) / MIB:.0f} MiB taken, {(after - before) / MIB:.0f} MiB of them kept"
    assert after - before <= max(64 * MIB, (loaded - before) // 4), shown
    return shown
