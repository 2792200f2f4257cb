"""A temporary folder of this process; those of killed processes are removed when the next one starts."""

import fcntl
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path

__all__ = ["Scratch"]

PREFIX = "kerve."

# Seconds after its creation in which a folder may not be locked yet.
YOUNG = 60


class Scratch:
    """A folder that exists until `close`, or until the object is garbage collected. Its lock is released when
    the process ends, however it ends.
    """

    def __init__(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            remove_if_abandoned(folder)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(self.path, os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._removal = weakref.finalize(self, remove, self.path, lock)

    def close(self) -> None:
        """Remove the folder."""
        self._removal()


def remove(folder: Path, lock: int) -> None:
    """Remove a folder of this process, and release its lock."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def remove_if_abandoned(folder: Path) -> None:
    """Remove a folder of this user that no process has locked."""
    try:
        descriptor = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another user's, or removed meanwhile
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
