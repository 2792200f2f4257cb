"""Publishing artifacts atomically, under the next free version number."""

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

#: Error numbers that mean the repository cannot be written.
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
    """Raise ValueError for a name that is not valid as a folder name and in request URLs."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"model name '{name}': expected letters, digits, '.', '_' and '-', the first a letter or digit"
        )


@contextmanager
def reporting_write_errors(repository: Path) -> Iterator[None]:
    """Raise `CompileError` for system errors that mean the repository cannot be written."""
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
    """Yield an empty folder inside the repository, on the same file system; it is removed at the end.

    Its name begins with a dot, so servers do not take it for a version.
    """
    model = repository / name
    made = [folder for folder in (model, *model.parents) if not folder.exists()]
    # Named before the `try`, so that it is removed however the compile ends.
    folder = model / f".compiling-{secrets.token_hex(8)}"
    try:
        model.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for empty in made:
            with suppress(OSError):  # not empty by now, or was never created
                empty.rmdir()


def publish(folder: Path, model: Path) -> Path:
    """Rename a finished folder to the next version of a model and return its new path.

    Its files are synced to disk before the rename: after a power loss, only the name might have survived.
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
        for parent in (model, model.parent):  # the parent has a new entry if the model is new
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
