"""Regions of system shared memory that clients have registered: POSIX shared memory, by Triton's rules.

A client makes a region (`shm_open`), registers it under a name, and requests then say where in it a tensor
lies
instead of carrying it. Inputs are copied out when the request comes, outputs are copied in before it is
answered.
"""

import mmap
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from kerve.runtime.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError

__all__ = ["Place", "Region", "Regions"]

# Where Linux keeps what shm_open makes.
FOLDER = Path("/dev/shm")  # noqa: S108  not a temporary file of ours


@dataclass(frozen=True)
class Region:
    """A registered region: `byte_size` bytes at `offset` of what has the name `key`."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a region."""

    region: str
    offset: int
    byte_size: int


class Regions:
    """The registered regions; every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: dict[str, tuple[Region, mmap.mmap]] = {}

    def register(self, region: Region) -> None:
        """Map a region. InvalidArgumentError when there is none or it is smaller, AlreadyExistsError for
        its name.
        """
        if not region.name:
            raise InvalidArgumentError("expected a name for the shared memory region, got none")
        mapped = map_region(region)
        with self._lock:
            if region.name in self._regions:
                mapped.close()
                raise AlreadyExistsError(
                    f"shared memory region {region.name!r} is registered already; unregister it first"
                )
            self._regions[region.name] = (region, mapped)

    def unregister(self, name: str) -> None:
        """Forget a region, or all of them without a name; one that is unknown is no error, as in Triton."""
        with self._lock:
            names = [name] if name else list(self._regions)
            for each in names:
                if (found := self._regions.pop(each, None)) is not None:
                    found[1].close()

    def status(self, name: str = "") -> list[Region]:
        """Return the region of that name, or all; NotFoundError for one that is unknown."""
        with self._lock:
            if name and name not in self._regions:
                raise NotFoundError(f"shared memory region {name!r} is not registered here")
            return [region for key, (region, _) in sorted(self._regions.items()) if name in ("", key)]

    def read(self, tensor: str, place: Place) -> bytes:
        """Return the bytes of a tensor; InvalidArgumentError when they are not in a region."""
        with self._lock:
            mapped, start = self._find(tensor, place)
            return mapped[start : start + place.byte_size]

    def write(self, tensor: str, place: Place, contents: bytes) -> None:
        """Put the bytes of a tensor into its place; InvalidArgumentError when there is not enough room."""
        if len(contents) > place.byte_size:
            raise InvalidArgumentError(
                f"tensor {tensor!r}: expected shared_memory_byte_size of at least {len(contents)}, "
                f"got {place.byte_size}"
            )
        with self._lock:
            mapped, start = self._find(tensor, place)
            mapped[start : start + len(contents)] = contents

    def _find(self, tensor: str, place: Place) -> tuple[mmap.mmap, int]:
        if place.region not in self._regions:
            raise InvalidArgumentError(
                f"tensor {tensor!r}: shared memory region {place.region!r} is not registered here"
            )
        region, mapped = self._regions[place.region]
        if place.offset < 0 or place.byte_size < 0 or place.offset + place.byte_size > region.byte_size:
            raise InvalidArgumentError(
                f"tensor {tensor!r}: expected bytes within the {region.byte_size} of region {region.name!r}, "
                f"got {place.byte_size} at offset {place.offset}"
            )
        return mapped, region.offset + place.offset


def map_region(region: Region) -> mmap.mmap:
    """Return the memory that a region names, up to the region's end."""
    key = region.key.removeprefix("/")
    if not key or "/" in key or "\0" in key or key in (".", ".."):
        raise InvalidArgumentError(f"shared memory key: expected the name of a region, got {region.key!r}")
    end = region.offset + region.byte_size
    try:
        descriptor = os.open(FOLDER / key, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if region.byte_size == 0 or end > size:
                raise InvalidArgumentError(
                    f"shared memory region {region.name!r}: expected 1 to "
                    f"{max(0, size - region.offset)} bytes at "
                    f"offset {region.offset} of {region.key!r}, got {region.byte_size}"
                )
            return mmap.mmap(descriptor, end)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(
            f"shared memory region {region.name!r}: {region.key!r} cannot be opened: {error}"
        ) from error
