"""What NVIDIA's management library tells of the GPUs, under Triton's names; nothing where it is not there.

The library comes with the driver, its Python module with `kerve[serve-gpu]` (nvidia-ml-py).
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
    """A metric, and how NVML is asked for it: with its module and the handle of a device."""

    name: str
    help: str
    read: Callable[[Any, Any], float]
    # As Prometheus has it; Triton's counters have no `_total`, which its counters would.
    kind: str = "gauge"


QUANTITIES = (
    Quantity(
        "nv_gpu_utilization",
        "Share of the last moments in which a kernel ran, 0 to 1.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    Quantity(
        "nv_gpu_memory_total_bytes",
        "Memory of the device.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    Quantity(
        "nv_gpu_memory_used_bytes",
        "Memory of the device that is taken, by whomever.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    Quantity(
        "nv_gpu_power_usage",
        "Power that the device draws, in watts.",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    Quantity(
        "nv_gpu_power_limit",
        "Power that the device may draw, in watts.",
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
    """The quantities of every device, asked for at each scrape; what a device does not tell is left out."""

    def __init__(self, nvml: Any) -> None:
        """`nvml`: the module pynvml, initialized."""
        self._nvml = nvml

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each quantity that a device tells."""
        try:
            handles = [
                self._nvml.nvmlDeviceGetHandleByIndex(index)
                for index in range(self._nvml.nvmlDeviceGetCount())
            ]
        except self._nvml.NVMLError as error:  # a device may be lost while the server runs
            log.warning("the GPUs have no metrics now: %s", error)
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
    """Return the collector; None without NVML."""
    try:
        nvml = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        log.info("the GPUs have no metrics: %s", error)
        return None
    return GpuCollector(nvml)
