"""The shared libraries that ONNX Runtime's providers need, by their ELF headers, and their availability."""

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

# Providers of ONNX Runtime that are separate libraries, next to its Python module.
FILES: dict[Kind, str] = {
    "cuda": "libonnxruntime_providers_cuda.so",
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
}
# Their usual dependencies, if their headers cannot be read; `{}` is the major version of CUDA.
USUAL: dict[Kind, tuple[str, ...]] = {
    "cuda": ("libcuda.so.1", "libcudart.so.{}", "libcublasLt.so.{}", "libcublas.so.{}", "libcurand.so.10"),
    "tensorrt": ("libnvinfer.so.10", "libnvonnxparser.so.10"),
}
# Loaded by the CUDA provider when a convolution first runs, so not in its header.
LOADED_LATER = ("libcudnn.so.9",)
# Libraries in Python packages, each after its dependencies; `{}` is the major version of CUDA.
PACKAGED = (
    *("libcudart.so.{}", "libcublasLt.so.{}", "libcublas.so.{}", "libnvrtc.so.{}", "libcurand.so.10"),
    *("libcudnn.so.9", "libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"),
)
# The packages, which may be in several folders of the path, and the locations of their libraries.
PACKAGES = {"nvidia": "*/lib", "tensorrt_libs": "."}

CUDA_PACKAGES = "kerve[serve-gpu], or CUDA's own installation"
# The source of a library, by the prefix of its name.
SOURCES = {
    "libcuda.": "the NVIDIA driver of the machine; in a container, the NVIDIA Container Toolkit provides it",
    "libcu": CUDA_PACKAGES,
    "libnvrtc": CUDA_PACKAGES,
    "libnvinfer": "NVIDIA TensorRT 10",
    "libnvonnxparser": "NVIDIA TensorRT 10",
}
# Functions that return a library's version, and whether they write it to a reference parameter.
VERSIONS = {
    "libcudnn.": ("cudnnGetVersion", False),
    "libcublasLt.": ("cublasLtGetVersion", False),
    "libcudart.": ("cudaRuntimeGetVersion", True),
}


@dataclass(frozen=True)
class Library:
    """A library that a provider needs: whether it can be loaded, and where it comes from."""

    name: str
    # The dynamic linker's error; empty if it can be loaded.
    problem: str
    source: str
    # The file it was loaded from, and its version; empty if unknown.
    path: str = ""
    version: str = ""


def built_for() -> str:
    """Return ONNX Runtime's package, version and CUDA version: `onnxruntime-gpu 1.31.1 for CUDA 13.0`."""
    cuda = getattr(onnxruntime, "cuda_version", "")
    name = getattr(onnxruntime, "package_name", "onnxruntime")
    return f"{name} {onnxruntime.__version__}" + (f" for CUDA {cuda}" if cuda else ", without CUDA")


def has_provider(kind: Kind) -> bool:
    """Return whether ONNX Runtime was built with a device's provider; it may still not be loadable."""
    return PROVIDERS[kind][0] in onnxruntime.get_available_providers()


@cache
def load_packaged() -> None:
    """Load CUDA, cuDNN and TensorRT from Python packages, so that ONNX Runtime finds them."""
    # ONNX Runtime's `preload_dlls` only looks next to itself, and prints missing libraries.
    for name in PACKAGED:
        for file in packaged(name.format(cuda_major())):
            with contextlib.suppress(OSError):  # missing libraries are reported by `libraries`
                ctypes.CDLL(str(file))
                break


def cuda_major() -> str:
    """Return the major version of CUDA that ONNX Runtime was built for; empty if none."""
    return str(getattr(onnxruntime, "cuda_version", "")).partition(".")[0]


def packaged(name: str) -> Iterator[Path]:
    """Yield the files of a library in packages, those for one CUDA version only (`nvidia/cu13`) first."""
    for package, pattern in PACKAGES.items():
        spec = find_spec(package)
        for folder in dict.fromkeys(spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(Path(folder).glob(f"{pattern}/{name}"))


def libraries(kind: Kind) -> tuple[Library, ...]:
    """Return the libraries that a device's providers need, except for the system's own.

    The providers themselves can only be loaded by ONNX Runtime, which they look up on loading.
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
    """Return the dependencies of a shared library (DT_NEEDED); none if it cannot be read: pyelftools is part
    of `kerve[serve-gpu]`.
    """
    if find_spec("elftools") is None or not file.is_file():
        return ()
    from elftools.elf.elffile import ELFFile  # imported only if a GPU is looked for

    with file.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".dynamic")
        return tuple(tag.needed for tag in section.iter_tags("DT_NEEDED"))


def source_of(name: str) -> str:
    """Return the source of a library; empty for the system's own."""
    return next((source for prefix, source in SOURCES.items() if name.startswith(prefix)), "")


def inspect(name: str, source: str) -> Library:
    """Load a library and return information on it."""
    if problem := load_problem(name):
        return Library(name, problem, source)
    return Library(name, "", source, next(paths_of(name), ""), version_of(name))


def load_problem(name: str) -> str:
    """Return why the dynamic linker cannot load a library; empty if it can."""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return str(error).removeprefix(f"{name}: ")
    return ""


def version_of(name: str) -> str:
    """Return the version number of a loaded library; empty if unknown."""
    for prefix, (function, by_reference) in VERSIONS.items():
        if name.startswith(prefix):
            if (version_function := getattr(ctypes.CDLL(name), function, None)) is None:
                return ""  # the version is informative only
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
