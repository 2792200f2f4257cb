"""Facts about the machine that matter to a server."""

import math
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from kerve.cli.cgroups import CGROUP, memory_limit
from kerve.runtime.cpus import available_cpus, quota_v1, quota_v2
from kerve.runtime.devices.choice import choose_devices
from kerve.runtime.devices.device import DeviceRequest, Kind
from kerve.runtime.devices.driver import DriverError, driver
from kerve.runtime.devices.libraries import built_for, has_provider, libraries
from kerve.runtime.errors import UnavailableError
from kerve.runtime.transport import automatic

__all__ = ["examine"]

Facts = dict[str, Any]


def examine(requested: DeviceRequest) -> Facts:
    """Return the facts by section, as JSON values."""
    return {section: look(requested) for section, look in SECTIONS.items()}


def software(_: DeviceRequest) -> Facts:
    """Return versions, and ONNX Runtime's build."""
    return {
        "kerve": version("kerve"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "onnxruntime": built_for(),
        "build": onnxruntime.get_build_info(),
        "providers": onnxruntime.get_available_providers(),
    }


def cpus(_: DeviceRequest) -> Facts:
    """Return the CPUs of the process, which a server divides among the instances of a model."""
    quota = min(quota_v2(CGROUP), quota_v1(CGROUP))
    return {
        "usable": available_cpus(),
        "affinity": len(os.sched_getaffinity(0)),
        "cgroup_quota": None if math.isinf(quota) else quota,
        "machine": os.cpu_count(),
    }


def memory(_: DeviceRequest) -> Facts:
    """Return the memory of the machine and the cgroup's limit, in bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    sizes = {name.rstrip(":"): int(number) * 1024 for name, number, *_ in lines}
    return {
        "total": sizes["MemTotal"],
        "available": sizes["MemAvailable"],
        "cgroup_limit": memory_limit(),
    }


def gpu_driver(_: DeviceRequest) -> Facts:
    """Return NVIDIA's driver and its devices, or why there are none."""
    try:
        found = driver()
        gpus = found.gpus()
    except DriverError as error:
        return {"problem": str(error), "devices": []}
    return {"cuda": found.version, "devices": [vars(gpu) for gpu in gpus]}


def provider_libraries(_: DeviceRequest) -> Facts:
    """Return the libraries that the GPU providers of ONNX Runtime need."""
    kinds: tuple[Kind, ...] = ("cuda", "tensorrt")
    return {kind: [vars(each) for each in libraries(kind)] for kind in kinds if has_provider(kind)}


def transport(_: DeviceRequest) -> Facts:
    """Return the transport that `--transport auto` selects."""
    taken, why = automatic()
    return {"taken": taken, "why": why}


def device(requested: DeviceRequest) -> Facts:
    """Return the devices that `--device` selects."""
    try:
        chosen = choose_devices(requested)
    except UnavailableError as error:
        return {"taken": None, "problem": str(error)}
    return {"taken": list(map(str, chosen.devices)), "why": chosen.why}


SECTIONS: Mapping[str, Callable[[DeviceRequest], Facts]] = {
    "software": software,
    "cpus": cpus,
    "memory": memory,
    "driver": gpu_driver,
    "libraries": provider_libraries,
    "transport": transport,
    "device": device,
}
