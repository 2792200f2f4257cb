"""CUDA shared memory: an allocation of another process on this machine, opened by its IPC handle.

The handle is the 64 bytes of `cudaIpcGetMemHandle`, equal to the driver's `cuIpcGetMemHandle`
(https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__MEM.html). The memory is only copied, never
computed on: a client that frees it too early, or declares too large a size, can at worst get an error for its
own request.
"""

import ctypes
from dataclasses import dataclass

from kerve.runtime.devices.driver import Driver, DriverError, IpcHandle, driver
from kerve.runtime.devices.locks import DEVICE_LOCK
from kerve.runtime.devices.memory import CudaStream
from kerve.runtime.errors import InvalidArgumentError, UnimplementedError

__all__ = ["CudaMapping", "CudaRegion", "is_supported"]

# cuIpcOpenMemHandle: enable access from peer devices when needed.
LAZY_PEER_ACCESS = 1


def is_supported() -> bool:
    """Return whether regions can be registered: a CUDA device is available."""
    try:
        return driver().number("cuDeviceGetCount") > 0
    except DriverError:
        return False


@dataclass(frozen=True)
class CudaRegion:
    """A region of a device's memory: the first `byte_size` bytes of a handle's allocation."""

    name: str
    raw_handle: bytes
    device_id: int
    byte_size: int

    def open(self) -> "CudaMapping":
        """Open it; raises UnimplementedError without a CUDA device, InvalidArgumentError for an invalid
        handle or device, or a region larger than the allocation.
        """
        try:
            found = driver()
            devices = found.number("cuDeviceGetCount")
        except DriverError as error:
            raise UnimplementedError(
                f"this server does not support CUDA shared memory ({error}); use system shared memory, or "
                "send the tensors' contents in the request"
            ) from error
        if len(self.raw_handle) != ctypes.sizeof(IpcHandle):
            raise self.wrong(
                f"expected a raw handle of {ctypes.sizeof(IpcHandle)} bytes, got {len(self.raw_handle)}"
            )
        if not 0 <= self.device_id < devices:
            raise self.wrong(f"expected a device_id from 0 to {devices - 1}, got {self.device_id}")
        try:
            return CudaMapping(found, self)
        except DriverError as error:
            raise self.wrong(
                f"the handle cannot be opened on device {self.device_id}: {error}; expected the "
                "handle of memory that another process on this machine has not freed"
            ) from error

    def wrong(self, what: str) -> InvalidArgumentError:
        """Return the error for a problem with the region."""
        return InvalidArgumentError(f"CUDA shared memory region {self.name!r}: {what}")


class CudaMapping:
    """The memory of a handle, with a stream for copies; usable by any thread, but only one at a time."""

    def __init__(self, found: Driver, region: CudaRegion) -> None:
        self._driver, self._region = found, region
        with DEVICE_LOCK.shared():
            self._stream = CudaStream(found, region.device_id)
            try:
                self._address = found.pointer(
                    "cuIpcOpenMemHandle_v2", IpcHandle.from_buffer_copy(region.raw_handle), LAZY_PEER_ACCESS
                )
            except DriverError:
                self._stream.close()
                raise
        try:
            room = self._room()
            if not 0 < region.byte_size <= room:
                raise region.wrong(f"expected 1 to {room} bytes, got {region.byte_size}")
        except Exception:
            self.close()
            raise

    def read(self, begin: int, size: int) -> bytes:
        """Return a copy of bytes of the region."""
        contents = (ctypes.c_uint8 * size)()
        self._copy("cuMemcpyDtoHAsync_v2", ctypes.addressof(contents), self._address + begin, size)
        return bytes(contents)

    def write(self, begin: int, contents: bytes) -> None:
        """Replace bytes of the region."""
        source = ctypes.cast(ctypes.c_char_p(contents), ctypes.c_void_p).value
        self._copy("cuMemcpyHtoDAsync_v2", self._address + begin, source, len(contents))

    def close(self) -> None:
        """Close the handle."""
        with DEVICE_LOCK.shared():
            self._stream.enter()
            self._driver.call("cuIpcCloseMemHandle", self._address)
            self._stream.close()

    def _room(self) -> int:
        """Return the number of bytes from the region's start to the end of the allocation."""
        base, size = ctypes.c_void_p(), ctypes.c_size_t()
        self._driver.call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), self._address)
        return (base.value or 0) + size.value - self._address

    def _copy(self, function: str, to: int, source: int | None, size: int) -> None:
        """Copy and wait for completion."""
        if not size:
            return
        try:
            with DEVICE_LOCK.shared():
                self._stream.enter()
                self._driver.call(function, to, source, size, self._stream.handle)
                self._stream.wait()
        except DriverError as error:
            raise self._region.wrong(
                f"it is no longer accessible: {error}; unregister it, and register current memory"
            ) from error
