"""Libraries of custom operators: native code, which is only loaded from the command line.

Model files and client requests are data and cannot load code. Libraries are named when the process is
started, and their operators are available to all its sessions.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnxruntime

from kerve.runtime.errors import ArtifactError
from kerve.runtime.ort_errors import ORT_ERRORS

__all__ = ["check_libraries", "load_libraries", "register"]

# The libraries of this process.
_libraries: list[Path] = []


def load_libraries(files: Sequence[Path]) -> None:
    """Make the operators of libraries (entry point `RegisterCustomOps`) available to later sessions.

    Raises ArtifactError if one cannot be loaded.
    """
    for file in files:
        try:
            onnxruntime.SessionOptions().register_custom_ops_library(str(file.resolve()))
        except ORT_ERRORS as error:
            raise ArtifactError(f"{file} is not a library of custom operators: {error}") from error
    _libraries[:] = files


def register(options: onnxruntime.SessionOptions) -> None:
    """Register the operators with a session's options."""
    for file in _libraries:
        options.register_custom_ops_library(str(file.resolve()))


def check_libraries(needed: Iterable[str], where: Path) -> None:
    """Raise ArtifactError unless the libraries that a model names are loaded, compared by file name."""
    known = {file.name for file in _libraries}
    for library in needed:
        if (name := Path(library).name) not in known:
            raise ArtifactError(
                f"{where} needs the library {library!r}, which is not loaded; libraries of custom operators "
                f"come from the command line only: kerve serve --custom-op-library PATH/{name}"
            )
