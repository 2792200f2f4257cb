"""A folder for this process alone; what a killed one left goes when the next one starts."""

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

__all__ = ["Scratch"]

PREFIX = "kerve."

# Seconds in which whoever made a folder may not have locked it yet.
YOUNG = 60


class Scratch:
    """From construction until `close`, or until nobody refers to it. The lock on it ends with the process,
    however that ends.
    """

    def __init__(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            remove_if_abandoned(folder)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(self.path, os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._removal = weakref.finalize(self, remove, self.path, lock)

    def close(self) -> None:
        """Remove it."""
        self._removal()


def remove(folder: Path, lock: int) -> None:
    """Remove a folder of this process, and let its lock go."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


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
