"""The control groups that this process is part of, and what they leave it of the machine."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["CGROUP", "OWN", "groups", "memory_limit"]

CGROUP = Path("/sys/fs/cgroup")
# In which of them this process is: in a container at the top, in a unit of systemd some levels below.
OWN = Path("/proc/self/cgroup")

# What version 1 has for "no limit" is beyond any machine.
NO_LIMIT = 1 << 60


def groups(cgroup: Path = CGROUP, own: Path = OWN) -> list[Path]:
    """Return the folders of version 2's groups that this process is part of, the innermost first."""
    found = re.search(r"^0::/(.*)$", own.read_text(), re.MULTILINE) if own.exists() else None
    inner = Path(found[1] if found and ".." not in found[1] else "")
    return [cgroup / folder for folder in (inner, *inner.parents)]


def memory_limit(cgroup: Path = CGROUP, own: Path = OWN) -> int | None:
    """Return the bytes of memory that all of them allow, of either version; None for no limit."""
    return min((limit for limit in memory_limits(cgroup, own) if limit < NO_LIMIT), default=None)


def memory_limits(cgroup: Path, own: Path) -> Iterator[int]:
    files = [group / "memory.max" for group in groups(cgroup, own)]
    for file in (*files, cgroup / "memory" / "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such group, or no limit ("max")
            yield int(file.read_text())
