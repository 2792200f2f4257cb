"""Arrays that stay where they were computed, for what is computed of them there."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.locks import DEVICE_LOCK

__all__ = ["DeviceArray", "all_at_host", "at_host"]


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """An array in ONNX Runtime's own memory (an OrtValue), on whichever device."""

    value: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.value.shape())

    @cached_property
    def array(self) -> Array:
        """A copy at the host, made once."""
        with DEVICE_LOCK.shared():
            copied: Array = self.value.numpy()
        return copied


def at_host(array: Array | DeviceArray) -> Array:
    """Return an array at the host, copied there if it lies elsewhere."""
    return array.array if isinstance(array, DeviceArray) else array


def all_at_host(arrays: Mapping[str, Array | DeviceArray]) -> dict[str, Array]:
    """Return arrays by their names at the host."""
    return {name: at_host(each) for name, each in arrays.items()}
