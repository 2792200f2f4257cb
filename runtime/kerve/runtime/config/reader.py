"""Settings that are read again only when their files have changed: whoever polls looks all the time."""

import os
import time
from collections.abc import Collection
from pathlib import Path

from kerve.runtime.config.settings import CONFIG_FILES, Settings, read_settings

__all__ = ["SettingsReader", "stamp"]

# What tells one state of a file from another; None: there is no file.
Stamp = tuple[int, int, int] | None

# Nanoseconds within which a file may be written again without another time in its stamp.
FRESH = 2_000_000_000


class SettingsReader:
    """Reads the settings in models' folders. Every method may be called by any thread."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[Stamp, ...], Settings]] = {}

    def read(self, folder: Path, override: str | None = None) -> Settings:
        """Return what `read_settings` returns, or raise what it raises."""
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
        """Keep nothing of folders that are gone."""
        for folder in self._known.keys() - folders:
            self._known.pop(folder, None)


def stamp(file: str) -> Stamp:
    """Return the state of a file; None too for one that is gone meanwhile, or a link that leads nowhere."""
    try:
        status = os.stat(file)  # noqa: PTH116  this is done at every look, and Path is slow
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
