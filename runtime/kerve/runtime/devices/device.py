"""The names of devices, as used by `--device` and reported by the server."""

import re
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CPU", "PROVIDERS", "Device", "DeviceRequest", "Kind", "parse_device"]

Kind = Literal["cpu", "cuda", "tensorrt"]

#: The execution providers of ONNX Runtime, in order of preference.
PROVIDERS: dict[Kind, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}

PATTERN = re.compile(r"(auto|cpu)|(cuda|tensorrt)(?::(\d+))?")


@dataclass(frozen=True)
class Device:
    """One device; shown as `cpu`, `cuda:0`, `tensorrt:1`."""

    kind: Kind
    index: int = 0
    # The product name, from the driver.
    name: str = field(default="", compare=False)

    def show(self) -> str:
        """Return it with its product name: `cuda:0 (NVIDIA H100 80GB HBM3)`."""
        return f"{self} ({self.name})" if self.name else str(self)

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's providers for it, the preferred one first."""
        return PROVIDERS[self.kind]


CPU = Device("cpu")


@dataclass(frozen=True)
class DeviceRequest:
    """The value of `--device`: `auto`, or a kind and one device of it; index None: all devices."""

    kind: Literal["auto"] | Kind
    index: int | None = None


def parse_device(text: str) -> DeviceRequest:
    """Parse `--device`; raises ValueError if the syntax is wrong."""
    found = PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(f"--device: expected auto, cpu, cuda[:N] or tensorrt[:N], got {text!r}")
    plain, kind, index = found.groups()
    return DeviceRequest(plain or kind, None if index is None else int(index))  # type: ignore[arg-type]  # the pattern's
