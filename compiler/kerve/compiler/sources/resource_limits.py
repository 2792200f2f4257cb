"""Resource limits of a process that opens a file."""

from __future__ import annotations

import os
import resource

from kerve.cli.cgroups import memory_limit

__all__ = ["enforce", "machine_memory"]

_CPU_SECONDS_PER_CORE = 3600


def enforce(memory: int | None = None, cpu_seconds: int | None = None) -> None:
    """Limit this process permanently, by default to the machine's memory and an hour of CPU time per core.

    `memory` is in bytes. Allocations beyond it fail; after the CPU time SIGXCPU ends the process.
    """
    cores = len(os.sched_getaffinity(0))
    # Not RLIMIT_AS: TensorFlow reserves far more address space than it uses.
    _lower(resource.RLIMIT_DATA, memory if memory is not None else machine_memory())
    _lower(resource.RLIMIT_CPU, cpu_seconds if cpu_seconds is not None else _CPU_SECONDS_PER_CORE * cores)
    _lower(resource.RLIMIT_CORE, 0)


def machine_memory() -> int:
    """Return the memory available to this process in bytes: the machine's, or its control group's limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(physical, memory_limit() or physical)


def _lower(kind: int, value: int) -> None:
    """Set the soft and the hard limit, but never above the current hard limit."""
    _, hard = resource.getrlimit(kind)
    lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (lowered, lowered))
