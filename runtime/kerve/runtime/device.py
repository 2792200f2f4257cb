"""Where models compute: on the CPU, or on a GPU by ONNX Runtime's CUDA provider, and why not."""

import contextlib
import ctypes
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import onnxruntime

from kerve.runtime.errors import FailedPreconditionError

__all__ = ["CPU", "Device", "check_name", "choose"]

CUDA_PROVIDER = "CUDAExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"

NAME = re.compile(r"auto|cpu|cuda(?::(\d+))?")

# Of cuda:N, what is the same for every model. TF32 is off: with ten bits of mantissa a float32 model would no
# longer give the answers that it was proven to give. Memory grows by what is asked for: models share it.
CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

WAY_OUT = "or choose --device cpu"


@dataclass(frozen=True)
class Device:
    """A CPU, or a GPU by its number."""

    #: None: the CPU.
    cuda: int | None = None

    def __str__(self) -> str:
        return "cpu" if self.cuda is None else f"cuda:{self.cuda}"

    @property
    def providers(self) -> list[Any]:
        """What ONNX Runtime is told: on a GPU, the CPU computes what CUDA has no kernel for."""
        if self.cuda is None:
            return [CPU_PROVIDER]
        return [(CUDA_PROVIDER, {"device_id": str(self.cuda), **CUDA_OPTIONS}), CPU_PROVIDER]


CPU = Device()


def check_name(name: str) -> None:
    """Raise ValueError unless it is a name of a device, or `auto`."""
    if not NAME.fullmatch(name):
        raise ValueError(f"--device: expected auto, cpu, cuda or cuda:N, got {name!r}")


def choose(name: str) -> Device:
    """Return the device that is asked for.

    `auto` is the first GPU where onnxruntime-gpu is installed and a device answers, and the CPU elsewhere.
    FailedPreconditionError says what is missing: a GPU that is there but cannot be used is not passed over.
    """
    check_name(name)
    providers = onnxruntime.get_available_providers()
    if name == "cpu" or (name == "auto" and (CUDA_PROVIDER not in providers or not count_devices())):
        return CPU
    if CUDA_PROVIDER not in providers:
        raise FailedPreconditionError(f"--device {name}: {why_no_provider(providers)}, {WAY_OUT}")
    device = Device(int(name.partition(":")[2] or 0))
    if not (count := count_devices()):
        raise FailedPreconditionError(
            f"--device {name}: no NVIDIA GPU answers here; install its driver, give the container its GPU "
            f"(docker run --gpus all, nvidia.com/gpu in Kubernetes), {WAY_OUT}"
        )
    if device.cuda not in range(count):
        raise FailedPreconditionError(
            f"--device {name}: expected cuda:0{f' to cuda:{count - 1}' if count > 1 else ''}, "
            f"since {count} NVIDIA GPU{'s' if count > 1 else ''} answer{'' if count > 1 else 's'} here"
        )
    if reason := why_not_loaded():
        raise FailedPreconditionError(
            f"--device {name}: ONNX Runtime's CUDA provider cannot be loaded: {reason}; "
            f"install what it needs (pip install 'onnxruntime-gpu[cuda,cudnn]'), {WAY_OUT}"
        )
    return device


def why_no_provider(providers: Sequence[str]) -> str:
    """Say why ONNX Runtime as it is installed has no CUDA, and what to do."""
    if installed("onnxruntime") and installed("onnxruntime-gpu"):
        return (
            "onnxruntime lies over onnxruntime-gpu, whose files have the same names; "
            "uninstall both, and install kerve[serve-gpu] again"
        )
    return (
        f"the ONNX Runtime that is installed has no CUDA (it has {', '.join(providers)}); "
        "install kerve[serve-gpu] in an environment without onnxruntime"
    )


def installed(name: str) -> bool:
    """Return whether a distribution is installed."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def count_devices() -> int:
    """Return how many GPUs NVIDIA's driver offers to this process; 0 without a driver.

    https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__DEVICE.html
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def why_not_loaded() -> str:
    """Load the CUDA provider and what it needs; return what the loader misses, "" where nothing is missing.

    ONNX Runtime itself only logs that, and computes on the CPU.
    """
    # From NVIDIA's packages, where they are installed; from the system otherwise. It prints what it misses.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        onnxruntime.preload_dlls()
    folder = Path(onnxruntime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        missing = re.findall(r"Failed to load (\S+):", printed.getvalue())
        return f"{error} (missing: {', '.join(missing)})" if missing else str(error)
    return ""
