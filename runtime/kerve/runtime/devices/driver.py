"""NVIDIA's driver, called through its own library: devices, memory, streams and events.

The functions are those of the CUDA driver API (https://docs.nvidia.com/cuda/cuda-driver-api). The library is
part of the driver, so it exists wherever a device can be used, whatever else is installed.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["LIBRARY", "Driver", "DriverError", "Gpu", "IpcHandle", "driver"]

LIBRARY = "libcuda.so.1"

# CUdevice_attribute
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
# cuMemHostAlloc: page-locked for every context. cuEventCreate: without timing. cuStreamCreate: no
# synchronization with the default stream.
PORTABLE, NO_TIMING, NON_BLOCKING = 0x01, 0x02, 0x01

Pointer, Size, Number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
Reference = ctypes.POINTER


class IpcHandle(ctypes.Structure):
    """CUipcMemHandle, equal to cudaIpcMemHandle_t: identifies an allocation of another process."""

    _fields_ = (("reserved", ctypes.c_uint8 * 64),)


# The functions, with the types of their parameters.
FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (Reference(Number),),
    "cuDeviceGetCount": (Reference(Number),),
    "cuDeviceGet": (Reference(Number), Number),
    "cuDeviceGetName": (ctypes.c_char_p, Number, Number),
    "cuDeviceTotalMem_v2": (Reference(Size), Number),
    "cuDeviceGetAttribute": (Reference(Number), Number, Number),
    "cuDevicePrimaryCtxRetain": (Reference(Pointer), Number),
    "cuCtxSetCurrent": (Pointer,),
    "cuMemHostAlloc": (Reference(Pointer), Size, ctypes.c_uint),
    "cuMemFreeHost": (Pointer,),
    "cuMemAlloc_v2": (Reference(Pointer), Size),
    "cuMemFree_v2": (Pointer,),
    "cuMemcpyHtoDAsync_v2": (Pointer, Pointer, Size, Pointer),
    "cuMemcpyDtoHAsync_v2": (Pointer, Pointer, Size, Pointer),
    "cuMemGetAddressRange_v2": (Reference(Pointer), Reference(Size), Pointer),
    "cuIpcOpenMemHandle_v2": (Reference(Pointer), IpcHandle, ctypes.c_uint),
    "cuIpcCloseMemHandle": (Pointer,),
    "cuStreamCreate": (Reference(Pointer), ctypes.c_uint),
    "cuStreamDestroy_v2": (Pointer,),
    "cuStreamSynchronize": (Pointer,),
    "cuStreamWaitEvent": (Pointer, Pointer, ctypes.c_uint),
    "cuEventCreate": (Reference(Pointer), ctypes.c_uint),
    "cuEventDestroy_v2": (Pointer,),
    "cuEventRecord": (Pointer, Pointer),
}


class DriverError(RuntimeError):
    """The driver is not installed, or a call failed; the message has the call and the reason."""


@dataclass(frozen=True)
class Gpu:
    """An available device; memory in bytes."""

    index: int
    name: str
    memory: int
    # Compute capability, "9.0".
    capability: str


class Driver:
    """The driver's library, initialized; raises DriverError if that fails."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DriverError(f"the NVIDIA driver is not installed here: {error}") from error
        self._functions: dict[str, Callable[..., int]] = {}
        for name, parameters in FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = parameters, Number
            self._functions[name] = function
        self._explain = library.cuGetErrorString
        self._explain.argtypes, self._explain.restype = (Number, Reference(ctypes.c_char_p)), Number
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function; raises DriverError with the driver's message if it fails."""
        if (status := self._functions[name](*arguments)) != 0:
            text = ctypes.c_char_p()
            self._explain(status, ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'unknown error').decode()} (error {status})")

    def number(self, name: str, *arguments: Any) -> int:
        """Return the integer that a function writes to its first parameter."""
        found = (Size if name == "cuDeviceTotalMem_v2" else Number)()
        self.call(name, ctypes.byref(found), *arguments)
        return int(found.value)

    def pointer(self, name: str, *arguments: Any) -> int:
        """Return the pointer or handle that a function writes to its first parameter."""
        found = Pointer()
        self.call(name, ctypes.byref(found), *arguments)
        return int(found.value or 0)

    @property
    def version(self) -> str:
        """The newest CUDA version that the driver supports, as `13.0`."""
        number = self.number("cuDriverGetVersion")
        return f"{number // 1000}.{number % 1000 // 10}"

    def gpus(self) -> tuple[Gpu, ...]:
        """Return the available devices."""
        return tuple(self._gpu(index) for index in range(self.number("cuDeviceGetCount")))

    def _gpu(self, index: int) -> Gpu:
        handle = self.number("cuDeviceGet", index)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, len(name), handle)
        major, minor = (
            self.number("cuDeviceGetAttribute", attribute, handle)
            for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR)
        )
        memory = self.number("cuDeviceTotalMem_v2", handle)
        return Gpu(index, name.value.decode(), memory, f"{major}.{minor}")


@cache
def driver() -> Driver:
    """Return the process' driver; raises DriverError, which is not cached, as `Driver` does."""
    return Driver()
