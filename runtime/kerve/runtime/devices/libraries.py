"""The shared libraries that ONNX Runtime's providers need, as their ELF headers say, and which are here."""

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import onnxruntime

from kerve.runtime.devices.device import PROVIDERS, Kind

__all__ = ["Library", "built_for", "has_provider", "libraries", "load_packaged", "packaged"]

# Providers of ONNX Runtime that are libraries of their own, beside its Python module.
FILES: dict[Kind, str] = {
    "cuda": "libonnxruntime_providers_cuda.so",
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
}
# What they name as needed, for where their headers cannot be read; `{}` is the major version of CUDA.
USUAL: dict[Kind, tuple[str, ...]] = {
    "cuda": ("libcuda.so.1", "libcudart.so.{}", "libcublasLt.so.{}", "libcublas.so.{}", "libcurand.so.10"),
    "tensorrt": ("libnvinfer.so.10", "libnvonnxparser.so.10"),
}
# What the CUDA provider loads when a convolution first runs, and so does not name in its header.
LOADED_LATER = ("libcudnn.so.9",)
# What packages bring: each behind those it needs itself; `{}` is the major version of CUDA.
PACKAGED = (
    *("libcudart.so.{}", "libcublasLt.so.{}", "libcublas.so.{}", "libnvrtc.so.{}", "libcurand.so.10"),
    *("libcudnn.so.9", "libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"),
)
# The packages, which may lie in several folders of the path, and where they have their libraries.
PACKAGES = {"nvidia": "*/lib", "tensorrt_libs": "."}

CUDA_PACKAGES = "kerve[serve-gpu], or CUDA's own installation"
# Who brings a library, by the beginning of its name.
SOURCES = {
    "libcuda.": "the NVIDIA driver of the machine; a container is given it by the NVIDIA Container Toolkit",
    "libcu": CUDA_PACKAGES,
    "libnvrtc": CUDA_PACKAGES,
    "libnvinfer": "NVIDIA TensorRT 10",
    "libnvonnxparser": "NVIDIA TensorRT 10",
}
# Functions that tell a library's version: no parameter, or a reference to a number.
VERSIONS = {
    "libcudnn.": ("cudnnGetVersion", False),
    "libcublasLt.": ("cublasLtGetVersion", False),
    "libcudart.": ("cudaRuntimeGetVersion", True),
}


@dataclass(frozen=True)
class Library:
    """A library that a provider needs: what the dynamic linker says of it, and who brings it."""

    name: str
    # Empty where it can be loaded.
    problem: str
    source: str
    # Where it was loaded from, and its version as it tells it; empty where that is not known.
    path: str = ""
    version: str = ""


def built_for() -> str:
    """Return what ONNX Runtime is and was built for, as `onnxruntime-gpu 1.31.1 for CUDA 13.0`."""
    cuda = getattr(onnxruntime, "cuda_version", "")
    name = getattr(onnxruntime, "package_name", "onnxruntime")
    return f"{name} {onnxruntime.__version__}" + (f" for CUDA {cuda}" if cuda else ", without CUDA")


def has_provider(kind: Kind) -> bool:
    """Return whether ONNX Runtime was built with a device's provider; it may still not be loadable."""
    return PROVIDERS[kind][0] in onnxruntime.get_available_providers()


@cache
def load_packaged() -> None:
    """Load CUDA and cuDNN from where packages put them, so that ONNX Runtime finds them."""
    # ONNX Runtime's `preload_dlls` looks beside itself only, and prints what it misses.
    for name in PACKAGED:
        for file in packaged(name.format(cuda_major())):
            with contextlib.suppress(OSError):  # what is missing is told by `libraries`
                ctypes.CDLL(str(file))
                break


def cuda_major() -> str:
    """Return the major version of the CUDA that ONNX Runtime was built for; empty for none."""
    return str(getattr(onnxruntime, "cuda_version", "")).partition(".")[0]


def packaged(name: str) -> Iterator[Path]:
    """Yield the files of a library in packages, those for one version of CUDA alone (`nvidia/cu13`) first."""
    for package, pattern in PACKAGES.items():
        spec = find_spec(package)
        for folder in dict.fromkeys(spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(folder).glob(f"{pattern}/{name}"))


def libraries(kind: Kind) -> tuple[Library, ...]:
    """Return what a device's providers need beside the system's own libraries.

    The providers themselves only ONNX Runtime may load: they look for it as they are loaded.
    """
    load_packaged()
    folder = Path(onnxruntime.__file__).parent / "capi"
    providers: tuple[Kind, ...] = ("cuda", kind) if kind != "cuda" else ("cuda",)
    names = dict.fromkeys(
        name.format(cuda_major())
        for provider in providers
        for name in needed(folder / FILES[provider]) or USUAL[provider]
    )
    names |= dict.fromkeys(LOADED_LATER)
    return tuple(inspect(name, source) for name in names if (source := source_of(name)))


def needed(file: Path) -> tuple[str, ...]:
    """Return the libraries that a shared library names as needed (DT_NEEDED); none where it cannot be read:
    pyelftools is in `kerve[serve-gpu]`.
    """
    if find_spec("elftools") is None or not file.is_file():
        return ()
    from elftools.elf.elffile import ELFFile  # only who looks for a GPU pays for it

    with file.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".dynamic")
        return tuple(tag.needed for tag in section.iter_tags("DT_NEEDED"))


def source_of(name: str) -> str:
    """Return who brings a library; empty for the system's own."""
    return next((source for prefix, source in SOURCES.items() if name.startswith(prefix)), "")


def inspect(name: str, source: str) -> Library:
    """Return what is known of a library, which is loaded for that."""
    if problem := load_problem(name):
        return Library(name, problem, source)
    return Library(name, "", source, next(paths_of(name), ""), version_of(name))


def load_problem(name: str) -> str:
    """Return why the dynamic linker cannot load a library; empty where it can."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return str(error).removeprefix(f"{name}: ")
    return ""


def version_of(name: str) -> str:
    """Return the number that a loaded library calls its version."""
    for prefix, (function, by_reference) in VERSIONS.items():
        if name.startswith(prefix):
            if (version_function := getattr(ctypes.CDLL(name), function, None)) is None:
                return ""  # it is worth showing, and no reason to refuse a device
            if not by_reference:
                version_function.restype = ctypes.c_size_t
                return str(version_function())
            number = ctypes.c_int()
            version_function(ctypes.byref(number))
            return str(number.value)
    return ""


def paths_of(name: str) -> Iterator[str]:
    """Yield the files that are mapped into this process under a library's name."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if Path(path).name.startswith(name):
            yield path
