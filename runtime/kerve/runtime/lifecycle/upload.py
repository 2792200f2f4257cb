"""Model files that a client uploads instead of a model's folder."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from kerve.cli.scratch import Scratch
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.repository import Repository, Source

__all__ = ["write_files"]

# Allowed names of models whose files a client sends.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def write_files(name: str, files: Mapping[str, bytes]) -> tuple[Source, Scratch]:
    """Write a client's files to a temporary folder, which is deleted when nothing refers to it any more."""
    if not NAME.fullmatch(name):
        raise InvalidArgumentError(f"expected a model's name of letters, digits, '_', '-', '.', got {name!r}")
    scratch = Scratch()
    folder = scratch.path / name
    for path, contents in files.items():
        parts = PurePosixPath(path).parts
        if len(parts) < 2 or ".." in parts or PurePosixPath(path).is_absolute() or "\0" in path:
            raise InvalidArgumentError(f"parameter 'file:{path}': expected file:<version>/<path>")
        file = folder.joinpath(*parts)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents)
        except OSError as error:  # a name that is too long, or that of a folder
            raise InvalidArgumentError(
                f"parameter 'file:{path}' cannot be written: {error.strerror}"
            ) from error
    (source,) = Repository(scratch.path).sources().values() or (Source(name, folder, {}),)
    if not source.versions:
        given = ", ".join(f"file:{path}" for path in files)
        raise InvalidArgumentError(
            f"expected file:<version>/<path> with a number as the version, got {given}"
        )
    return source, scratch
