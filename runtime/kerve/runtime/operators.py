"""Libraries of custom operators: native code, which only the command line may bring.

A model's files and what clients send are data, and run nothing. A library is named by whoever starts the
process, and every session of the process knows its operators.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnxruntime

from kerve.runtime.errors import ArtifactError
from kerve.runtime.ort_errors import ORT_ERRORS

__all__ = ["check_libraries", "load_libraries", "register"]

# Those of this process.
_libraries: list[Path] = []


def load_libraries(files: Sequence[Path]) -> None:
    """Let the sessions that are made from now on know the operators of libraries with the entry point
    `RegisterCustomOps`; ArtifactError when one cannot be loaded.
    """
    for file in files:
        try:
            onnxruntime.SessionOptions().register_custom_ops_library(str(file.resolve()))
        except ORT_ERRORS as error:
            raise ArtifactError(f"{file} is no library of custom operators: {error}") from error
    _libraries[:] = files


def register(options: onnxruntime.SessionOptions) -> None:
    """Tell a session of the operators."""
    for file in _libraries:
        options.register_custom_ops_library(str(file.resolve()))


def check_libraries(needed: Iterable[str], where: Path) -> None:
    """Raise ArtifactError unless the libraries that a model names are there; it is by their files' names that
    they are known.
    """
    known = {file.name for file in _libraries}
    for library in needed:
        if (name := Path(library).name) not in known:
            raise ArtifactError(
                f"{where} needs the library {library!r}, which is not loaded; libraries of custom operators "
                f"come from the command line only: kerve serve --custom-op-library PATH/{name}"
            )
