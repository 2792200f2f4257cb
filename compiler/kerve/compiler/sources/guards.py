"""Checks of a file before any library reads its contents."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import h5py

from kerve.compiler.errors import LoadError

__all__ = ["archive", "hdf5", "text"]

#: Decompressed sizes up to this are always allowed; larger ones only up to `_LARGEST_RATIO` times the size of
#: the file. Random weights do not compress, zeros do.
_FREE_BYTES = 1 << 28
#: The same for JSON, which can take twenty times its size in memory.
_FREE_BYTES_OF_TEXT = 1 << 24
_LARGEST_RATIO = 200
_MOST_OBJECTS = 200_000
_DEEPEST = 64
_ENCRYPTED = 0x1


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file, checking that its members are regular files inside it of a plausible total size."""
    try:
        opened = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise LoadError(f"{path} is a damaged zip file ({error}); copy or save it again") from error
    with opened:
        _check_members(path, opened.infolist())
        try:
            yield opened
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise LoadError(f"{path} is a damaged zip file ({error}); copy or save it again") from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise LoadError(
            f"{path} holds two members of the same name, which Keras never writes; it was tampered with"
        )
    for member in members:
        inside = PurePosixPath(member.filename.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts:
            raise LoadError(
                f"{path} holds {member.filename!r}, a path outside the archive; it was tampered with"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise LoadError(f"{path} holds the link {member.filename!r}; it was tampered with")
        if member.flag_bits & _ENCRYPTED:
            raise LoadError(f"{path} is encrypted; save the model without a password")
    _check_size(path, sum(member.file_size for member in members))


def text(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a text member, at most its declared size."""
    member = archive.getinfo(name)
    _check_size(path, member.file_size, _FREE_BYTES_OF_TEXT)
    with archive.open(member) as stream:
        return stream.read(member.file_size)  # without a size, everything would be decompressed first


def _check_size(path: Path, unfolded: int, free: int = _FREE_BYTES) -> None:
    packed = path.stat().st_size
    if unfolded > free and unfolded > packed * _LARGEST_RATIO:
        raise LoadError(
            f"{path} of {packed:,} bytes would expand to {unfolded:,} bytes, as a decompression bomb does"
        )


@contextmanager
def hdf5(path: Path, shown: Path | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file, checking that all data is in the file itself and of a plausible total size.

    Errors name `shown`, the file given by the user, if it is not `path`.
    """
    origin = shown if shown is not None else path
    try:
        opened = h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise LoadError(f"{origin} is a damaged HDF5 file ({error}); copy or save it again") from error
    with opened:
        try:
            _check_objects(origin, opened)
            yield opened
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
        ) as error:  # raised by h5py for damaged contents
            raise LoadError(f"{origin} is a damaged HDF5 file ({error}); copy or save it again") from error


def _check_objects(path: Path, file: h5py.File) -> None:
    unfolded = 0
    seen: set[int] = set()
    waiting: list[tuple[h5py.Group, int]] = [(file, 0)]
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            child = _own_object(path, group, name)
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > _MOST_OBJECTS or depth > _DEEPEST:
                raise LoadError(f"{path} is nested or split further than any Keras model; it is not a model")
            if isinstance(child, h5py.Group):
                waiting.append((child, depth + 1))
            elif isinstance(child, h5py.Dataset):
                unfolded += _declared_bytes(path, child)
    _check_size(path, unfolded)


def _own_object(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | h5py.Datatype:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise LoadError(f"{path}: {group.name}/{name} is a link to another place; it was tampered with")
    return group[name]


def _declared_bytes(path: Path, dataset: h5py.Dataset) -> int:
    if dataset.external or dataset.is_virtual:
        raise LoadError(f"{path}: {dataset.name} stores its data in another file; it was tampered with")
    return dataset.size * dataset.dtype.itemsize if dataset.size is not None else 0
