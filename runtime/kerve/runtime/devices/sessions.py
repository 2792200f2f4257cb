"""Opens a model on its device."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from kerve.runtime.devices.device import Device, Kind
from kerve.runtime.devices.driver import driver
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.libraries import load_packaged
from kerve.runtime.devices.locks import DEVICE_LOCK
from kerve.runtime.devices.memory import CudaMemory, CudaStream
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import DeviceConfig
from kerve.runtime.devices.tensorrt import Engine, TensorRtSession
from kerve.runtime.errors import ArtifactError
from kerve.runtime.session import MemoryPolicy, Provider, Session

__all__ = ["open_session", "providers_for"]

log = logging.getLogger(__name__)

# ONNX Runtime's message for a graph that it cannot capture.
NOT_CAPTURABLE = "cannot use the graph capture feature"


class Opener(Protocol):
    """Opens a model on one kind of device."""

    def __call__(self, model_file: Path, place: DeviceConfig, **given: Any) -> Session:
        """`given`: the arguments of `Session` for any device."""


def open_session(
    model_file: Path,
    place: DeviceConfig,
    *,
    threads: int,
    hidden: Sequence[str] = (),
    memory: MemoryPolicy | None = None,
    precision: str = "float32",
) -> Session:
    """Load a model on a device; raises ArtifactError if that fails.

    `threads`: CPU threads, also for nodes that a GPU's providers leave to the CPU. `precision`: the
    artifact's, which TensorRT needs to know.
    """
    given: dict[str, Any] = {"threads": threads, "hidden": hidden, "memory": memory}
    if place.device.kind == "tensorrt":
        given["precision"] = precision
    return OPENERS[place.device.kind](model_file, place, **given)


def providers_for(device: Device, options: CudaOptions, **more: str) -> tuple[Provider, ...]:
    """Return ONNX Runtime's providers for a device with their options; `more`: for the CUDA provider."""
    table: Mapping[str, Callable[[], dict[str, str]]] = {
        "CPUExecutionProvider": dict,
        "CUDAExecutionProvider": lambda: options.provider_options(device.index) | more,
        "TensorrtExecutionProvider": lambda: {"device_id": str(device.index)},
    }
    return tuple((name, table[name]()) for name in device.providers)


def open_cpu(model_file: Path, place: DeviceConfig, **given: Any) -> Session:  # noqa: ARG001  an opener's
    """Open a model on the CPU."""
    return Session(model_file, **given)


def open_cuda(
    model_file: Path, place: DeviceConfig, make: Callable[..., LaneSession] = LaneSession, **given: Any
) -> Session:
    """Open a model on a GPU: with CUDA graphs if possible, with lanes if `buffers` is set."""
    load_packaged()
    if not place.cuda.buffers:
        providers = providers_for(place.device, place.cuda, enable_cuda_graph="0")
        return make(model_file, providers=providers, buffers=None, **given)
    with DEVICE_LOCK.shared():
        stream = CudaStream(driver(), place.device.index)

    def attempt(graphs: bool) -> LaneSession:
        providers = providers_for(
            place.device,
            place.cuda,
            user_compute_stream=str(stream.handle),
            enable_cuda_graph=str(int(graphs)),
        )
        return make(
            model_file,
            providers=providers,
            buffers=lambda: CudaMemory(stream),
            graphs=graphs,
            closed=stream.close,
            **given,
        )

    try:
        try:
            return attempt(place.cuda.enable_cuda_graph)
        except ArtifactError as error:
            if NOT_CAPTURABLE not in str(error):
                raise
            log.info("%s runs without CUDA graphs: %s", model_file, error)
            return attempt(graphs=False)
    except Exception:
        with DEVICE_LOCK.shared():
            stream.close()
        raise


def open_tensorrt(model_file: Path, place: DeviceConfig, precision: str = "float32", **given: Any) -> Session:
    """Open a model with the CUDA provider, which TensorRT replaces once its engine is built."""

    def providers(device: Device, options: Mapping[str, str]) -> tuple[Provider, ...]:
        cuda = providers_for(Device("cuda", device.index), place.cuda, enable_cuda_graph="0")
        return (("TensorrtExecutionProvider", dict(options)), *cuda)

    engine = Engine(model_file, place.device, precision, given, providers)
    on_cuda = replace(place, device=Device("cuda", place.device.index, place.device.name))
    return open_cuda(model_file, on_cuda, make=partial(TensorRtSession, builder=engine), **given)


OPENERS: Mapping[Kind, Opener] = {"cpu": open_cpu, "cuda": open_cuda, "tensorrt": open_tensorrt}
