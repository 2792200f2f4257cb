"""Arrays that stay on the device where they were computed, for further computations there."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.locks import DEVICE_LOCK

__all__ = ["DeviceArray", "all_at_host", "at_host"]


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in ONNX Runtime's memory (an OrtValue), on any device."""

    value: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.value.shape())

    @cached_property
    def array(self) -> Array:
        """A copy on the host, made once."""
        with DEVICE_LOCK.shared():
            copied: Array = self.value.numpy()
        return copied


def at_host(array: Array | DeviceArray) -> Array:
    """Return an array on the host, copied if it is on another device."""
    return array.array if isinstance(array, DeviceArray) else array


def all_at_host(arrays: Mapping[str, Array | DeviceArray]) -> dict[str, Array]:
    """Return arrays on the host, by name."""
    return {name: at_host(each) for name, each in arrays.items()}
