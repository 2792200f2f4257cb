"""Shared memory regions of clients, in system and GPU memory, with Triton's semantics.

A client creates a region (`shm_open`, `cudaMalloc`) and registers it under a name; requests then give the
location of a tensor in it instead of its contents. Inputs are copied out when the request arrives, outputs
are copied in before it is answered.
"""

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from kerve.runtime.devices.shared import CudaRegion
from kerve.runtime.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError

__all__ = ["CudaRegion", "Region", "RegionSlice", "Regions"]

# Folder of the objects that shm_open creates on Linux.
FOLDER = Path("/dev/shm")  # noqa: S108  not a temporary file of ours


class Mapped(Protocol):
    """A region that this process can access."""

    def read(self, begin: int, size: int) -> bytes:
        """Return a copy of bytes of the region."""

    def write(self, begin: int, contents: bytes) -> None:
        """Replace bytes of the region."""

    def close(self) -> None:
        """Release it."""


@dataclass(frozen=True)
class Region:
    """A region of system memory: `byte_size` bytes at `offset` of the shared memory object `key`."""

    name: str
    key: str
    offset: int
    byte_size: int

    def open(self) -> "SystemMemory":
        """Open it; raises InvalidArgumentError if it does not exist or is smaller."""
        return SystemMemory(self)


Kind = TypeVar("Kind", Region, CudaRegion)


@dataclass(frozen=True)
class RegionSlice:
    """The location of a tensor in a region."""

    region: str
    offset: int
    byte_size: int


@dataclass(eq=False)
class Registered:
    """A registered region."""

    region: Region | CudaRegion
    mapped: Mapped
    # Current requests whose tensors may be in it.
    users: int = 0
    # Whether it is removed as soon as there are none.
    leaving: bool = False


class Regions:
    """The registered regions; thread-safe.

    Both kinds share one namespace; `status` and `unregister` see one kind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: dict[str, Registered] = {}

    def register(self, region: Region | CudaRegion) -> None:
        """Open a region; raises AlreadyExistsError if its name is taken, and what opening it raises."""
        if not region.name:
            raise InvalidArgumentError("expected a name for the shared memory region, got none")
        mapped: Mapped = region.open()
        with self._lock:
            if region.name in self._regions:
                mapped.close()
                raise AlreadyExistsError(
                    f"shared memory region {region.name!r} is registered already; unregister it first"
                )
            self._regions[region.name] = Registered(region, mapped)

    @contextmanager
    def hold(self, names: Collection[str]) -> Iterator[None]:
        """Keep regions for a request: an unregistered region is removed with its last user, as in Triton."""
        with self._lock:
            held = [self._regions[name] for name in names if name in self._regions]
            for each in held:
                each.users += 1
        try:
            yield
        finally:
            with self._lock:
                for each in held:
                    each.users -= 1
                    if each.leaving:
                        self._forget(each)

    def unregister(self, kind: type[Kind], name: str) -> None:
        """Remove a region, or all if `name` is empty; an unknown name is not an error, as in Triton."""
        with self._lock:
            for region in self._of(kind, name):
                found = self._regions[region.name]
                found.leaving = True
                self._forget(found)

    def _forget(self, found: Registered) -> None:
        if not found.users:
            del self._regions[found.region.name]
            found.mapped.close()

    def status(self, kind: type[Kind], name: str = "") -> list[Kind]:
        """Return the region of that name, or all; raises NotFoundError for an unknown name."""
        with self._lock:
            found = self._of(kind, name)
        if name and not found:
            raise NotFoundError(f"shared memory region {name!r} is not registered here")
        return found

    def _of(self, kind: type[Kind], name: str) -> list[Kind]:
        regions = (found.region for _, found in sorted(self._regions.items()))
        return [region for region in regions if isinstance(region, kind) and name in ("", region.name)]

    def read(self, tensor: str, place: RegionSlice) -> bytes:
        """Return the bytes of a tensor; raises InvalidArgumentError if they are not within a region."""
        with self._lock:
            return self._find(tensor, place).read(place.offset, place.byte_size)

    def write(self, tensor: str, place: RegionSlice, contents: bytes) -> None:
        """Write the bytes of a tensor to its location; raises InvalidArgumentError if it is too small."""
        if len(contents) > place.byte_size:
            raise InvalidArgumentError(
                f"tensor {tensor!r}: expected shared_memory_byte_size of at least {len(contents)}, "
                f"got {place.byte_size}"
            )
        with self._lock:
            self._find(tensor, place).write(place.offset, contents)

    def _find(self, tensor: str, place: RegionSlice) -> Mapped:
        if place.region not in self._regions:
            raise InvalidArgumentError(
                f"tensor {tensor!r}: shared memory region {place.region!r} is not registered here"
            )
        found = self._regions[place.region]
        region = found.region
        if place.offset < 0 or place.byte_size < 0 or place.offset + place.byte_size > region.byte_size:
            raise InvalidArgumentError(
                f"tensor {tensor!r}: expected bytes within the {region.byte_size} of region {region.name!r}, "
                f"got {place.byte_size} at offset {place.offset}"
            )
        return found.mapped


class SystemMemory:
    """POSIX shared memory, accessed as a file: the client may truncate it at any time, which would kill a
    process that has mapped it (SIGBUS).
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._descriptor = open_region(region)

    # Linux transfers at most 2 GiB per call.

    def read(self, begin: int, size: int) -> bytes:
        """Return a copy of bytes of the region."""
        parts, position = [], self._region.offset + begin
        while size:
            part = os.pread(self._descriptor, size, position)
            if not part:
                raise self._cut_off()
            parts.append(part)
            size, position = size - len(part), position + len(part)
        return b"".join(parts)

    def write(self, begin: int, contents: bytes) -> None:
        """Replace bytes of the region."""
        left, position = memoryview(contents), self._region.offset + begin
        if os.fstat(self._descriptor).st_size < position + len(left):
            raise self._cut_off()  # writing past its end would extend it
        while left:
            written = os.pwrite(self._descriptor, left, position)
            left, position = left[written:], position + written

    def _cut_off(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"shared memory region {self._region.name!r}: {self._region.key!r} is smaller now than when it "
            "was registered"
        )

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


def open_region(region: Region) -> int:
    """Return a descriptor of a region's memory; raises InvalidArgumentError if it is too small."""
    key = region.key.removeprefix("/")
    if not key or "/" in key or "\0" in key or key in (".", ".."):
        raise InvalidArgumentError(f"shared memory key: expected the name of a region, got {region.key!r}")
    try:
        descriptor = os.open(FOLDER / key, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"shared memory region {region.name!r}: {region.key!r} cannot be opened: {error}"
        ) from error
    size = os.fstat(descriptor).st_size
    if region.byte_size == 0 or region.offset + region.byte_size > size:
        os.close(descriptor)
        raise InvalidArgumentError(
            f"shared memory region {region.name!r}: expected 1 to {max(0, size - region.offset)} bytes at "
            f"offset {region.offset} of {region.key!r}, got {region.byte_size}"
        )
    return descriptor
