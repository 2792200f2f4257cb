"""Memory of batches: host buffers, device buffers, and the copies between them.

With `HostMemory` (CPU) both are the same; `CudaMemory` copies on its own stream, which overlaps with the
computation of another batch on the stream of ONNX Runtime.
"""

import ctypes
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.driver import NO_TIMING, NON_BLOCKING, PORTABLE, Driver, DriverError

__all__ = ["Buffer", "CudaMemory", "CudaStream", "HostMemory", "Memory"]

# Alignment of buffers in bytes: a cache line, and AVX-512.
ALIGNMENT = 64


@dataclass(frozen=True)
class Buffer:
    """Memory of one tensor: bytes that the host accesses, and the address that the session uses."""

    host: Array
    address: int


class Memory(Protocol):
    """The memory of one thread's batches; not thread-safe."""

    @property
    def device_type(self) -> str:
        """ONNX Runtime's name of the device type of the addresses."""

    @property
    def device_id(self) -> int:
        """The number of the device of that type."""

    def allocate(self, size: int) -> Buffer:
        """Allocate a buffer of `size` bytes."""

    def free(self, buffer: Buffer) -> None:
        """Free a buffer."""

    def push(self, buffer: Buffer, size: int) -> None:
        """Start copying from the host to the device."""

    def pull(self, buffer: Buffer, size: int) -> None:
        """Start copying from the device to the host."""

    def before_compute(self) -> None:
        """Let computations launched from now on wait for the pushes so far."""

    def after_compute(self) -> None:
        """Let pulls from now on wait for the computations launched so far."""

    def wait(self) -> None:
        """Wait for the pulls."""

    def close(self) -> None:
        """Free everything except for buffers."""


class HostMemory:
    """CPU memory: nothing is copied, and nothing is asynchronous."""

    device_type, device_id = "cpu", 0

    def allocate(self, size: int) -> Buffer:
        """Allocate aligned bytes, filled with zeros."""
        room = np.zeros(size + ALIGNMENT, np.uint8)
        begin = -room.ctypes.data % ALIGNMENT
        host = room[begin : begin + size]
        return Buffer(host, host.ctypes.data)

    def free(self, buffer: Buffer) -> None:
        """Leave it to the garbage collector."""

    def push(self, buffer: Buffer, size: int) -> None:
        """Do nothing."""

    def pull(self, buffer: Buffer, size: int) -> None:
        """Do nothing."""

    def before_compute(self) -> None:
        """Do nothing."""

    def after_compute(self) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CudaStream:
    """The stream on which a session computes, in the context that the CUDA runtime also uses."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver, self.index = driver, index
        self.context = driver.pointer("cuDevicePrimaryCtxRetain", driver.number("cuDeviceGet", index))
        self.enter()
        self.handle = driver.pointer("cuStreamCreate", NON_BLOCKING)

    def enter(self) -> None:
        """Make the device's context current in the calling thread."""
        self.driver.call("cuCtxSetCurrent", self.context)

    def wait(self) -> None:
        """Wait for all launched work."""
        self.driver.call("cuStreamSynchronize", self.handle)

    def close(self) -> None:
        """Destroy the stream."""
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
        """Allocate zeros on the host, and memory of the same size on the device."""
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
        """Free both sides of a buffer."""
        self._driver.call("cuMemFree_v2", buffer.address)
        self._driver.call("cuMemFreeHost", buffer.host.ctypes.data)

    def push(self, buffer: Buffer, size: int) -> None:
        """Start copying to the device."""
        self._driver.call("cuMemcpyHtoDAsync_v2", buffer.address, buffer.host.ctypes.data, size, self._copies)

    def pull(self, buffer: Buffer, size: int) -> None:
        """Start copying to the host."""
        self._driver.call("cuMemcpyDtoHAsync_v2", buffer.host.ctypes.data, buffer.address, size, self._copies)

    def before_compute(self) -> None:
        """Let the compute stream wait for the copies so far."""
        self._driver.call("cuEventRecord", self._pushed, self._copies)
        self._driver.call("cuStreamWaitEvent", self._compute.handle, self._pushed, 0)

    def after_compute(self) -> None:
        """Let later copies wait for the computations so far."""
        self._driver.call("cuEventRecord", self._computed, self._compute.handle)
        self._driver.call("cuStreamWaitEvent", self._copies, self._computed, 0)

    def wait(self) -> None:
        """Wait for the copies; ctypes releases the GIL meanwhile."""
        self._driver.call("cuStreamSynchronize", self._copies)

    def close(self) -> None:
        """Destroy the stream and the events."""
        self._driver.call("cuStreamDestroy_v2", self._copies)
        for event in (self._pushed, self._computed):
            self._driver.call("cuEventDestroy_v2", event)
