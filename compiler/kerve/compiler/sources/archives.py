"""Unpacking `.keras` archives: with checked weights, and with our version of the configuration."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import guards, shared_weights
from kerve.compiler.sources.detect import DetectedSource

__all__ = ["WEIGHTS", "packed", "unpacked"]

_CONFIG = "config.json"
_METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
_WEIGHTS = (WEIGHTS, "model.weights.npz")
_ASSETS = "assets"


@contextmanager
def unpacked(found: DetectedSource) -> Iterator[Path]:
    """Yield a folder with the archive's members and `found.config`; raises `LoadError`."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        folder.mkdir()
        if found.path.is_dir():
            _link(found.path, folder)
        else:
            with guards.archive(found.path) as archive:
                _extract(archive, folder)
        if not any((folder / name).exists() for name in _WEIGHTS):
            raise LoadError(f"{found.path} has no {WEIGHTS} in it; the archive is damaged")
        weights = folder / WEIGHTS
        if weights.exists():
            with guards.hdf5(weights, found.path):
                pass
        (folder / _CONFIG).write_text(json.dumps(shared_weights.with_separate_copies(found.config)), "utf-8")
        yield folder


def packed(folder: Path) -> Path:
    """Pack an unpacked archive into a file next to it, for readers that do not accept folders."""
    path = folder.with_suffix(".keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def _extract(archive: zipfile.ZipFile, folder: Path) -> None:
    for member in archive.infolist():
        top = member.filename.partition("/")[0]
        if member.filename in (_METADATA, *_WEIGHTS) or top == _ASSETS:
            archive.extract(member, folder)


def _link(source: Path, folder: Path) -> None:
    for name in (_METADATA, *_WEIGHTS, _ASSETS):
        if (source / name).exists():
            (folder / name).symlink_to((source / name).absolute())
