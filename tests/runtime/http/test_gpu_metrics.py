"""The GPUs' metrics, with a module in NVML's place: what is tested is how it is asked, and what is shown."""

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

FAKE = '''
"""Two devices, of which the second tells neither power nor energy."""

from types import SimpleNamespace


class NVMLError(Exception):
    pass


def nvmlInit():
    pass


def nvmlDeviceGetCount():
    return 2


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetUUID(gpu):
    return f"GPU-{gpu}"


def nvmlDeviceGetUtilizationRates(gpu):
    return SimpleNamespace(gpu=25 + gpu, memory=1)


def nvmlDeviceGetMemoryInfo(gpu):
    return SimpleNamespace(total=80_000_000_000, used=1000 + gpu, free=0)


def power(gpu):
    if gpu:
        raise NVMLError("not supported")
    return 350_000


nvmlDeviceGetPowerUsage = nvmlDeviceGetEnforcedPowerLimit = nvmlDeviceGetTotalEnergyConsumption = power
'''


def scrape(serve: Any, publish: Any, folder: Path) -> dict[str, float]:
    publish(folder / "models", "classifier")
    with (
        serve(folder / "models", "--http-port", "-1", "--transport", "grpcio") as running,
        urllib.request.urlopen(f"http://{running.http}/metrics", timeout=60) as answer,
    ):
        lines = [line.rpartition(" ") for line in answer.read().decode().splitlines()]
    return {name: float(value) for name, _, value in lines if name.startswith("nv_")}


def test_every_device_tells_what_it_can(
    serve: Any, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pynvml.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    found = scrape(serve, publish, tmp_path)
    first, second = ('{gpu="0",gpu_uuid="GPU-0"}', '{gpu="1",gpu_uuid="GPU-1"}')
    assert {name: value for name, value in found.items() if name.startswith(("nv_gpu", "nv_energy"))} == {
        f"nv_gpu_utilization{first}": 0.25,
        f"nv_gpu_utilization{second}": 0.26,
        f"nv_gpu_memory_total_bytes{first}": 80e9,
        f"nv_gpu_memory_total_bytes{second}": 80e9,
        f"nv_gpu_memory_used_bytes{first}": 1000,
        f"nv_gpu_memory_used_bytes{second}": 1001,
        f"nv_gpu_power_usage{first}": 350,
        f"nv_gpu_power_limit{first}": 350,
        f"nv_energy_consumption{first}": 350,
    }


def test_without_nvml_there_are_none(
    serve: Any, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module may be installed where there is no driver."""
    begun = "def nvmlInit():\n    "
    (tmp_path / "pynvml.py").write_text(FAKE.replace(f"{begun}pass", f"{begun}raise NVMLError('no driver')"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    found = scrape(serve, publish, tmp_path)
    assert found
    assert not [name for name in found if name.startswith(("nv_gpu", "nv_energy"))]
