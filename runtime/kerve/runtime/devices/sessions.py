"""Opens a model where it is to compute."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kerve.runtime.devices.device import Device, Kind
from kerve.runtime.devices.driver import driver
from kerve.runtime.devices.gate import GATE
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.libraries import load_packaged
from kerve.runtime.devices.memory import CudaMemory, CudaStream
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import Place
from kerve.runtime.errors import ArtifactError
from kerve.runtime.session import MemoryPolicy, Provider, Session

__all__ = ["open_session", "providers_for"]

log = logging.getLogger(__name__)

# What ONNX Runtime says of a graph that it cannot capture.
NOT_CAPTURABLE = "cannot use the graph capture feature"


class Opener(Protocol):
    """Opens a model on one kind of device."""

    def __call__(self, model_file: Path, place: Place, **given: Any) -> Session:
        """`given`: what `Session` takes for any device."""


def open_session(
    model_file: Path,
    place: Place,
    *,
    threads: int,
    hidden: Sequence[str] = (),
    memory: MemoryPolicy | None = None,
) -> Session:
    """Load a model on a device; ArtifactError when it cannot be loaded there.

    `threads`: on the CPU, also for what falls to it from elsewhere.
    """
    return OPENERS[place.device.kind](model_file, place, threads=threads, hidden=hidden, memory=memory)


def providers_for(device: Device, options: CudaOptions, **more: str) -> tuple[Provider, ...]:
    """Return ONNX Runtime's providers for a device and their options; `more` is for the CUDA provider."""
    table: Mapping[str, Callable[[], dict[str, str]]] = {
        "CPUExecutionProvider": dict,
        "CUDAExecutionProvider": lambda: options.provider_options(device.index) | more,
        "TensorrtExecutionProvider": lambda: tensorrt_options(device.index),
    }
    return tuple((name, table[name]()) for name in device.providers)


def open_plain(model_file: Path, place: Place, **given: Any) -> Session:
    """Open a model without buffers of ours."""
    if place.device.kind == "cpu":
        return Session(model_file, **given)
    load_packaged()
    providers = providers_for(place.device, place.cuda, enable_cuda_graph="0")
    return LaneSession(model_file, providers=providers, buffers=None, **given)


def open_cuda(model_file: Path, place: Place, **given: Any) -> Session:
    """Open a model on a GPU: with graphs if it allows them, with lanes if it wants buffers."""
    if not place.cuda.buffers:
        return open_plain(model_file, place, **given)
    load_packaged()
    with GATE.together():
        stream = CudaStream(driver(), place.device.index)

    def attempt(graphs: bool) -> LaneSession:
        providers = providers_for(
            place.device,
            place.cuda,
            user_compute_stream=str(stream.handle),
            enable_cuda_graph=str(int(graphs)),
        )
        return LaneSession(
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
        with GATE.together():
            stream.close()
        raise


def tensorrt_options(index: int) -> dict[str, str]:
    """Return the TensorRT provider's options: engines and timings are kept between starts."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kerve" / "tensorrt"
    return {
        "device_id": str(index),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
    }


OPENERS: Mapping[Kind, Opener] = {"cpu": open_plain, "cuda": open_cuda, "tensorrt": open_plain}
