"""A folder for this process alone; what a killed one left goes when the next one starts."""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

__all__ = ["Scratch"]

PREFIX = "kerve."

# Seconds in which whoever made a folder may not have locked it yet.
YOUNG = 60


class Scratch:
    """From construction to `close`. The lock on it ends with the process, however that ends."""

    def __init__(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            remove_if_abandoned(folder)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.path, os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of ours that nobody holds."""
    try:
        descriptor = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another user's, or gone meanwhile
        return
    try:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and time.time() - status.st_mtime > YOUNG:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:  # it is in use
        pass
    finally:
        os.close(descriptor)
