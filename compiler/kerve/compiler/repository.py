"""Where artifacts appear: whole, under the next free version number, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kerve.compiler.errors import CompileError

__all__ = ["check_name", "publish", "reporting_write_errors", "staging"]

#: What the system says of a folder that cannot be written.
_REFUSALS = frozenset(
    {
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
    }
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_name(name: str) -> None:
    """Raise ValueError for a name that could not be a folder and part of a request."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"model name '{name}': expected letters, digits, '.', '_' and '-', the first a letter or digit"
        )


@contextmanager
def reporting_write_errors(repository: Path) -> Iterator[None]:
    """Say in words of ours that the system does not let us write: `CompileError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS and not _lies_in(repository, error.filename):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise CompileError(
            f"cannot write to the repository {repository}: {error.strerror}{where}; nothing was published"
        ) from error


def _lies_in(repository: Path, name: object) -> bool:
    return isinstance(name, str) and Path(name).is_relative_to(repository)


@contextmanager
def staging(repository: Path, name: str) -> Iterator[Path]:
    """Give an empty folder inside the repository, on the same file system, and remove it at the end.

    Its name begins with a dot, so no server takes it for a version.
    """
    model = repository / name
    made = [folder for folder in (model, *model.parents) if not folder.exists()]
    # Named before it is made: whatever ends the compile from then on, it goes.
    folder = model / f".compiling-{secrets.token_hex(8)}"
    try:
        model.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for empty in made:
            with suppress(OSError):  # something is in it by now, or it was not made
                empty.rmdir()


def publish(folder: Path, model: Path) -> Path:
    """Rename a finished folder to the next version of a model and return its new path.

    Its files are on the disk before it has a number: the name alone would survive a loss of power.
    """
    folder.chmod(0o755)  # private until now
    for path in (*folder.rglob("*"), folder):
        _sync(path)
    while True:
        target = model / str(max(_versions(model), default=0) + 1)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            continue  # another compile published this number first
        for parent in (model, model.parent):  # the second, where the model is new
            _sync(parent)
        return target


def _versions(model: Path) -> list[int]:
    return [int(entry.name) for entry in model.iterdir() if entry.name.isdecimal()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
