"""Selects the devices of a server: checks `--device` against the available ones."""

import logging
from dataclasses import dataclass

from kerve.runtime.devices.device import CPU, Device, DeviceRequest, Kind
from kerve.runtime.devices.driver import DriverError, driver
from kerve.runtime.devices.libraries import Library, built_for, has_provider, libraries
from kerve.runtime.errors import UnavailableError

__all__ = ["ON_CPU", "Devices", "choose_devices"]

log = logging.getLogger(__name__)

INSTALL = {
    "cuda": "install kerve[serve-gpu] in an environment without the package onnxruntime; "
    "it brings CUDA's libraries",
    "tensorrt": "install kerve[serve-gpu] in an environment without the package onnxruntime, and TensorRT",
}
ACCEPT = "use --device cpu to serve on the CPU"


@dataclass(frozen=True)
class Devices:
    """The devices of a server, with the reason for the choice."""

    devices: tuple[Device, ...]
    why: str

    def __str__(self) -> str:
        return ", ".join(map(str, self.devices))

    def show(self) -> str:
        """Return the devices with their product names."""
        return ", ".join(each.show() for each in self.devices)


ON_CPU = Devices((CPU,), "selected by --device")


def choose_devices(requested: DeviceRequest) -> Devices:
    """Return the requested devices; raises UnavailableError, with all that is missing, if they are unusable.

    `auto` selects CUDA if ONNX Runtime was built for it and there is a device; a missing library is then an
    error, as for `cuda`.
    """
    if requested.kind == "cpu":
        return ON_CPU
    if requested.kind != "auto":
        return on_gpus(requested.kind, requested.index)
    if not has_provider("cuda"):
        return Devices((CPU,), f"the CUDA provider is not in {built_for()}")
    try:
        answering = driver().gpus()
    except DriverError as error:
        return Devices((CPU,), str(error))
    if not answering:
        return Devices((CPU,), "the NVIDIA driver finds no device")
    return on_gpus("cuda", None)


def on_gpus(kind: Kind, index: int | None) -> Devices:
    """Return usable GPUs; raises UnavailableError if there are none."""
    option = f"--device {kind}" + ("" if index is None else f":{index}")
    if not has_provider(kind):
        raise UnavailableError(f"{option}: {built_for()} has no provider for it; {INSTALL[kind]}; {ACCEPT}")
    if missing := [each for each in libraries(kind) if each.problem]:
        raise UnavailableError(
            f"{option}: {built_for()} cannot load its provider, because these libraries are missing:\n"
            f"{show_missing(missing)}\n{ACCEPT}"
        )
    try:
        gpus = driver().gpus()
    except DriverError as error:
        raise UnavailableError(f"{option}: no device is available: {error}; {ACCEPT}") from error
    chosen = tuple(gpu for gpu in gpus if index in (None, gpu.index))
    if not chosen:
        raise UnavailableError(f"{option}: there are {len(gpus)} devices, numbered from 0; {ACCEPT}")
    return Devices(tuple(Device(kind, gpu.index, gpu.name) for gpu in chosen), "a GPU is available")


def show_missing(missing: list[Library]) -> str:
    """Return a line for each library: the problem, and where the library comes from."""
    return "\n".join(f"  {each.name}: {each.problem}; it comes with {each.source}" for each in missing)
