"""GPU metrics from NVIDIA's management library (NVML), if available, under Triton's names.

The library is part of the driver, its Python module (nvidia-ml-py) of `kerve[serve-gpu]`.
"""

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

__all__ = ["GpuCollector", "gpu_collector"]

log = logging.getLogger(__name__)


class Quantity(NamedTuple):
    """A metric, and how it is read from NVML, given its module and the handle of a device."""

    name: str
    help: str
    read: Callable[[Any, Any], float]
    # Prometheus' metric type; not `counter` for Triton's counters, as that would add `_total` to the name.
    kind: str = "gauge"


QUANTITIES = (
    Quantity(
        "nv_gpu_utilization",
        "Share of recent time in which a kernel ran, 0 to 1.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    Quantity(
        "nv_gpu_memory_total_bytes",
        "Memory of the device.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    Quantity(
        "nv_gpu_memory_used_bytes",
        "Memory of the device in use, by all processes.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    Quantity(
        "nv_gpu_power_usage",
        "Power drawn by the device, in watts.",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    Quantity(
        "nv_gpu_power_limit",
        "Power limit of the device, in watts.",
        lambda nvml, gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000,
    ),
    Quantity(
        "nv_energy_consumption",
        "Energy since the driver was loaded, in joules.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
        "unknown",
    ),
)


class GpuCollector(Collector):
    """The quantities of every device, read at each scrape; those that a device lacks are left out."""

    def __init__(self, nvml: Any) -> None:
        """`nvml`: the module pynvml, initialized."""
        self._nvml = nvml

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each quantity that any device provides."""
        try:
            handles = [
                self._nvml.nvmlDeviceGetHandleByIndex(index)
                for index in range(self._nvml.nvmlDeviceGetCount())
            ]
        except self._nvml.NVMLError as error:  # a device may be lost while the server runs
            log.warning("the metrics of the GPUs cannot be read: %s", error)
            return
        for quantity in QUANTITIES:
            metric = Metric(quantity.name, quantity.help, quantity.kind)
            for index, handle in enumerate(handles):
                try:
                    labels = {"gpu_uuid": self._nvml.nvmlDeviceGetUUID(handle), "gpu": str(index)}
                    metric.add_sample(quantity.name, labels, quantity.read(self._nvml, handle))
                except self._nvml.NVMLError:  # not every device has every quantity
                    continue
            if metric.samples:
                yield metric


def gpu_collector() -> GpuCollector | None:
    """Return the collector; None if NVML is not available."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.info("no metrics of GPUs: %s", error)
        return None
    return GpuCollector(nvml)
