"""Low-priority work, which must not take the CPU from requests."""

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol, TypeVar

__all__ = ["Background", "Runner", "run_inline"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# Next to a thread of nice 0 on the same CPU, one of nice 15 gets 3.5 % of it, plus all idle time. Linux has a
# priority per thread; in setpriority, 0 is the calling thread.
NICE = 15


class Runner(Protocol):
    """Runs a function, inline or otherwise, and returns its result."""

    def __call__(self, work: Callable[[], T]) -> T:
        """Run it."""


def run_inline(work: Callable[[], T]) -> T:
    """Run work in the calling thread."""
    return work()


class Background:
    """Runs work at low priority; `end` raises the threads started meanwhile to the caller's priority.

    Only for long work that releases the GIL: a thread that holds it and gets no CPU blocks all others
    (priority inversion).
    """

    def __init__(self, *, low_priority: bool = True) -> None:
        """Without `low_priority` work runs at the priority of the caller."""
        self._low_priority = low_priority
        self._before = tasks() if low_priority else set()

    def run(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, or raise its exception."""
        if not self._low_priority:
            return run_inline(work)
        return (
            run_at_low_priority(work)
            if can_raise_priority()
            else run_in_thread(functools.partial(run_lowered, work))
        )

    def run_starting(self, work: Callable[[], T]) -> T:
        """Like `run`, for work that starts threads that persist: they inherit the priority until `end`.

        The priority is not lowered if it cannot be raised again.
        """
        return self.run(work) if self._low_priority and can_raise_priority() else run_inline(work)

    def end(self) -> None:
        """Raise the threads started meanwhile to the priority of the caller."""
        if not self._low_priority or not can_raise_priority():
            return
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        for task in tasks() - self._before:
            with contextlib.suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, task, usual)


def run_at_low_priority(work: Callable[[], T]) -> T:
    """Run work in the calling thread, whose priority is lowered before and restored afterwards."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, usual))
    try:
        return work()
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def run_lowered(work: Callable[[], T]) -> T:
    """Run work in the calling thread, whose priority stays low."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError as error:  # the lower priority is optional
        log.debug("the priority of loading cannot be lowered: %s", error)
    return work()


def tasks() -> set[int]:
    """Return the ids of the threads of this process; Linux has a priority per thread."""
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


@functools.cache
def can_raise_priority() -> bool:
    """Return whether a lowered priority can be raised again, which requires CAP_SYS_NICE or RLIMIT_NICE."""

    def attempt() -> bool:
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            for priority in (NICE, usual):
                os.setpriority(os.PRIO_PROCESS, 0, priority)
        except OSError:
            return False
        return True

    return run_in_thread(attempt)


def run_in_thread(work: Callable[[], T]) -> T:
    """Run work in another thread; return its result or raise its exception."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised again in the waiting thread
            result.set_exception(error)

    name = f"{threading.current_thread().name} background"
    threading.Thread(target=run, name=name, daemon=True).start()
    return result.result()
