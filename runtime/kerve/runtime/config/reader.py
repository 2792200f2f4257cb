"""Cached settings, which are read again only if their files have changed, for frequent polling."""

import os
import time
from collections.abc import Collection
from pathlib import Path

from kerve.runtime.config.settings import CONFIG_FILES, Settings, read_settings

__all__ = ["SettingsReader", "stamp"]

# Identifies the state of a file: mtime, size and inode; None: there is no file.
Stamp = tuple[int, int, int] | None

# Nanoseconds within which a file may be modified again without a change of its mtime.
FRESH = 2_000_000_000


class SettingsReader:
    """Reads the settings in models' folders; thread-safe."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[Stamp, ...], Settings]] = {}

    def read(self, folder: Path, override: str | None = None) -> Settings:
        """Return the settings of a folder; see `read_settings`."""
        if override is not None:
            return read_settings(folder, override)
        stamps = tuple(stamp(f"{folder}/{name}") for name in CONFIG_FILES)
        known = self._known.get(folder)
        if known is not None and known[0] == stamps:
            return known[1]
        settings = read_settings(folder)
        newest = max((each[0] for each in stamps if each is not None), default=0)
        if time.time_ns() - newest > FRESH:
            self._known[folder] = stamps, settings
        return settings

    def forget_others(self, folders: Collection[Path]) -> None:
        """Drop the settings of all other folders."""
        for folder in self._known.keys() - folders:
            self._known.pop(folder, None)


def stamp(file: str) -> Stamp:
    """Return the state of a file; None if it does not exist, or is a dangling link."""
    try:
        status = os.stat(file)  # noqa: PTH116  this runs at every poll, and Path is slow
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
