"""The CPUs that this process may use: how many, by its affinity and its cgroup's quota, and which."""

import math
import os
import platform
import re
from pathlib import Path

from kerve.cli.cgroups import CGROUP, OWN, groups

__all__ = ["MOST_THREADS", "available_cpus", "cpu_name"]

#: Maximum number of threads of one model: more would only contend.
MOST_THREADS = 1024

CPUINFO = Path("/proc/cpuinfo")


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """Return the CPU's model name, or its architecture if the system does not report one."""
    try:
        found = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else f"{platform.machine()} CPU"


def available_cpus(cgroup: Path = CGROUP, own: Path = OWN) -> int:
    """Return the number of whole CPUs, at least 1; a quota of 1.5 CPUs counts as 2."""
    limit = min(len(os.sched_getaffinity(0)), quota_v2(cgroup, own), quota_v1(cgroup))
    return max(1, math.ceil(limit))


def quota_v2(cgroup: Path, own: Path = OWN) -> float:
    """Return the CPU quota of this process's cgroup and its ancestors; infinite if unlimited."""
    return min(map(quota_of, groups(cgroup, own)))


def quota_of(cgroup: Path) -> float:
    """Return the CPU quota of `cpu.max` ("quota period" or "max period"); infinite if unlimited."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except FileNotFoundError:
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def quota_v1(cgroup: Path) -> float:
    """Return the CPU quota of the cgroup v1 files `cpu.cfs_*`; infinite if unlimited."""
    try:
        quota = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
    except FileNotFoundError:
        return math.inf
    return math.inf if quota <= 0 else quota / period
