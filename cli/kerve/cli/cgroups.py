"""The control groups of this process, and their memory limits."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["CGROUP", "OWN", "groups", "memory_limit"]

CGROUP = Path("/sys/fs/cgroup")
# The cgroup of this process: the root in a container, some levels below it in a systemd unit.
OWN = Path("/proc/self/cgroup")

# Version 1 represents "no limit" by a number larger than any machine's memory.
NO_LIMIT = 1 << 60


def groups(cgroup: Path = CGROUP, own: Path = OWN) -> list[Path]:
    """Return the folders of this process' version 2 cgroup and its ancestors, innermost first."""
    found = re.search(r"^0::/(.*)$", own.read_text(), re.MULTILINE) if own.exists() else None
    inner = Path(found[1] if found and ".." not in found[1] else "")
    return [cgroup / folder for folder in (inner, *inner.parents)]


def memory_limit(cgroup: Path = CGROUP, own: Path = OWN) -> int | None:
    """Return the lowest memory limit of the cgroups of either version, in bytes; None for no limit."""
    return min((limit for limit in memory_limits(cgroup, own) if limit < NO_LIMIT), default=None)


def memory_limits(cgroup: Path, own: Path) -> Iterator[int]:
    files = [group / "memory.max" for group in groups(cgroup, own)]
    for file in (*files, cgroup / "memory" / "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such group, or no limit ("max")
            yield int(file.read_text())
