"""Memory that a batch goes through: where the host writes, where the device computes, and the copies between.

`HostMemory` is the CPU's, where both are the same; `CudaMemory` copies on a stream of its own, which
overlaps with the computation of another batch on the stream that ONNX Runtime was given.
"""

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.driver import NO_TIMING, NON_BLOCKING, PORTABLE, Driver, DriverError

__all__ = ["Buffer", "CudaMemory", "CudaStream", "HostMemory", "Memory"]

# Of a buffer's beginning, in bytes: a cache line's, and that of AVX-512.
ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """Room for one tensor: bytes that the host writes and reads, and the address that a session is given."""

    host: Array
    address: int


class Memory(Protocol):
    """The memory that one thread uses for its batches; used by that thread only."""

    @property
    def device_type(self) -> str:
        """What ONNX Runtime calls the place of the addresses."""

    @property
    def device_id(self) -> int:
        """Which device of that type."""

    def allocate(self, size: int) -> Buffer:
        """Return room for so many bytes, until `free`."""

    def free(self, buffer: Buffer) -> None:
        """Give a buffer back."""

    def push(self, buffer: Buffer, size: int) -> None:
        """Begin to copy what the host wrote to the device."""

    def pull(self, buffer: Buffer, size: int) -> None:
        """Begin to copy what the device computed to the host."""

    def before_compute(self) -> None:
        """Let computation that is launched from now on wait for what was pushed."""

    def after_compute(self) -> None:
        """Let what is pulled from now on wait for the computation that was launched."""

    def wait(self) -> None:
        """Wait until what was pulled is there."""

    def close(self) -> None:
        """Give back what is not a buffer."""


class HostMemory:
    """Memory of the CPU: nothing is copied, nothing runs later."""

    device_type, device_id = "cpu", 0

    def allocate(self, size: int) -> Buffer:
        """Return aligned bytes, zeros at first."""
        room = np.zeros(size + ALIGNMENT, np.uint8)
        begin = -room.ctypes.data % ALIGNMENT
        host = room[begin : begin + size]
        return Buffer(host, host.ctypes.data)

    def free(self, buffer: Buffer) -> None:
        """Leave it to the garbage collector."""

    def push(self, buffer: Buffer, size: int) -> None:
        """Nothing: it is there."""

    def pull(self, buffer: Buffer, size: int) -> None:
        """Nothing: it is there."""

    def before_compute(self) -> None:
        """Nothing runs later."""

    def after_compute(self) -> None:
        """Nothing runs later."""

    def wait(self) -> None:
        """Nothing runs later."""

    def close(self) -> None:
        """Nothing is held."""


class CudaStream:
    """The stream on which a session computes, in the context that the CUDA runtime uses too."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver, self.index = driver, index
        self.context = driver.pointer("cuDevicePrimaryCtxRetain", driver.number("cuDeviceGet", index))
        self.enter()
        self.handle = driver.pointer("cuStreamCreate", NON_BLOCKING)

    def enter(self) -> None:
        """Let the calling thread use the device."""
        self.driver.call("cuCtxSetCurrent", self.context)

    def wait(self) -> None:
        """Wait for all that was launched."""
        self.driver.call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Give the stream back."""
        self.enter()
        self.driver.call("cuStreamDestroy_v2", self.handle)


class CudaMemory:
    """Page-locked host memory and device memory, with a stream for the copies between them."""

    device_type = "cuda"

    def __init__(self, compute: CudaStream) -> None:
        self._compute, self._driver = compute, compute.driver
        self.device_id = compute.index
        compute.enter()
        self._copies = self._driver.pointer("cuStreamCreate", NON_BLOCKING)
        self._pushed, self._computed = (self._driver.pointer("cuEventCreate", NO_TIMING) for _ in range(2))

    def allocate(self, size: int) -> Buffer:
        """Return zeros at the host, and room for them on the device."""
        host = self._driver.pointer("cuMemHostAlloc", max(1, size), PORTABLE)
        ctypes.memset(host, 0, size)
        try:
            address = self._driver.pointer("cuMemAlloc_v2", max(1, size))
        except DriverError:
            self._driver.call("cuMemFreeHost", host)
            raise
        view = memoryview((ctypes.c_uint8 * size).from_address(host))
        return Buffer(np.frombuffer(view, np.uint8), address)

    def free(self, buffer: Buffer) -> None:
        """Give both halves back."""
        self._driver.call("cuMemFree_v2", buffer.address)
        self._driver.call("cuMemFreeHost", buffer.host.ctypes.data)

    def push(self, buffer: Buffer, size: int) -> None:
        """Begin to copy to the device."""
        self._driver.call("cuMemcpyHtoDAsync_v2", buffer.address, buffer.host.ctypes.data, size, self._copies)

    def pull(self, buffer: Buffer, size: int) -> None:
        """Begin to copy to the host."""
        self._driver.call("cuMemcpyDtoHAsync_v2", buffer.host.ctypes.data, buffer.address, size, self._copies)

    def before_compute(self) -> None:
        """Order the stream of computation behind the copies so far."""
        self._driver.call("cuEventRecord", self._pushed, self._copies)
        self._driver.call("cuStreamWaitEvent", self._compute.handle, self._pushed, 0)

    def after_compute(self) -> None:
        """Order later copies behind the computation so far."""
        self._driver.call("cuEventRecord", self._computed, self._compute.handle)
        self._driver.call("cuStreamWaitEvent", self._copies, self._computed, 0)

    def wait(self) -> None:
        """Wait for the copies; ctypes lets other threads run meanwhile."""
        self._driver.call("cuStreamSynchronize", self._copies)

    def close(self) -> None:
        """Give stream and events back."""
        self._driver.call("cuStreamDestroy_v2", self._copies)
        for event in (self._pushed, self._computed):
            self._driver.call("cuEventDestroy_v2", event)
