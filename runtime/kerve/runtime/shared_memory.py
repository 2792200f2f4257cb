"""Regions of memory that clients share with the server, by Triton's rules: the system's, and GPUs'.

A client makes a region (`shm_open`, `cudaMalloc`), registers it under a name, and requests then say where in
it a tensor lies instead of carrying it. Inputs are copied out when the request comes, outputs are copied in
before it is answered.
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

# Where Linux keeps what shm_open makes.
FOLDER = Path("/dev/shm")  # noqa: S108  not a temporary file of ours


class Mapped(Protocol):
    """A region that this process can reach."""

    def read(self, begin: int, size: int) -> bytes:
        """Return a copy of bytes of the region."""

    def write(self, begin: int, contents: bytes) -> None:
        """Replace bytes of the region."""

    def close(self) -> None:
        """Let it go."""


@dataclass(frozen=True)
class Region:
    """A region of the system's memory: `byte_size` bytes at `offset` of what has the name `key`."""

    name: str
    key: str
    offset: int
    byte_size: int

    def open(self) -> "SystemMemory":
        """Open it; InvalidArgumentError when there is none or it is smaller."""
        return SystemMemory(self)


Kind = TypeVar("Kind", Region, CudaRegion)


@dataclass(frozen=True)
class RegionSlice:
    """Where a tensor lies in a region."""

    region: str
    offset: int
    byte_size: int


@dataclass(eq=False)
class Registered:
    """A region that is there."""

    region: Region | CudaRegion
    mapped: Mapped
    # Requests under way whose tensors may lie in it.
    users: int = 0
    # Whether it is forgotten as soon as there are none.
    leaving: bool = False


class Regions:
    """The registered regions; every method may be called by any thread.

    Names are one space for both kinds; status and unregistering see one kind.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: dict[str, Registered] = {}

    def register(self, region: Region | CudaRegion) -> None:
        """Open a region. AlreadyExistsError for its name; raises what opening it raises."""
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
        """Keep regions for a request: what is unregistered goes with the last that holds it, as in Triton."""
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
        """Forget a region, or all of them without a name; one that is unknown is no error, as in Triton."""
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
        """Return the region of that name, or all; NotFoundError for one that is unknown."""
        with self._lock:
            found = self._of(kind, name)
        if name and not found:
            raise NotFoundError(f"shared memory region {name!r} is not registered here")
        return found

    def _of(self, kind: type[Kind], name: str) -> list[Kind]:
        regions = (found.region for _, found in sorted(self._regions.items()))
        return [region for region in regions if isinstance(region, kind) and name in ("", region.name)]

    def read(self, tensor: str, place: RegionSlice) -> bytes:
        """Return the bytes of a tensor; InvalidArgumentError when they are not in a region."""
        with self._lock:
            return self._find(tensor, place).read(place.offset, place.byte_size)

    def write(self, tensor: str, place: RegionSlice, contents: bytes) -> None:
        """Put the bytes of a tensor into its place; InvalidArgumentError when there is not enough room."""
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
    """POSIX shared memory, read and written as the file that it is: whoever made it may cut it off at any
    time, which would end a process that has mapped it (SIGBUS).
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self._descriptor = open_region(region)

    # Linux moves 2 GiB at a time at most.

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
            raise self._cut_off()  # to write behind its end would make it longer
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
    """Return a descriptor of the memory that a region names; InvalidArgumentError when it is smaller."""
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
