"""Work that must not take the CPU from requests: the kernel runs its threads when others leave some."""

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

# Against a thread of nice 0 on the same CPU, one of 15 gets 3.5 %; what nobody else wants it gets, too. Linux
# knows a priority for each thread; 0 is the one that calls.
NICE = 15


class Runner(Protocol):
    """Runs some work, inline or otherwise, and returns what it returns."""

    def __call__(self, work: Callable[[], T]) -> T:
        """Run it."""


def run_inline(work: Callable[[], T]) -> T:
    """Run work in this thread."""
    return work()


class Background:
    """Runs work at low priority, and in the end raises the threads that it has started to the usual one.

    Only for what takes long and releases the GIL: a thread that holds it and gets no CPU blocks all others
    (priority inversion).
    """

    def __init__(self, *, low_priority: bool = True) -> None:
        """Without `low_priority` work runs at the priority of the caller."""
        self._low_priority = low_priority
        self._before = tasks() if low_priority else set()

    def run(self, work: Callable[[], T]) -> T:
        """Return what work returns, or raise what it raises."""
        if not self._low_priority:
            return run_inline(work)
        return (
            run_at_low_priority(work)
            if can_raise_priority()
            else run_in_thread(functools.partial(run_lowered, work))
        )

    def run_starting(self, work: Callable[[], T]) -> T:
        """The same for work that starts threads that stay: they inherit the priority until `end`.

        Where it cannot be raised again, it is not lowered.
        """
        return self.run(work) if self._low_priority and can_raise_priority() else run_inline(work)

    def end(self) -> None:
        """Raise the threads that were started meanwhile to the priority of the caller."""
        if not self._low_priority or not can_raise_priority():
            return
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        for task in tasks() - self._before:
            with contextlib.suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, task, usual)


def run_at_low_priority(work: Callable[[], T]) -> T:
    """Run work in this thread, whose priority is lowered before and raised after."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, usual))
    try:
        return work()
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def run_lowered(work: Callable[[], T]) -> T:
    """Run work in this thread, whose priority stays low."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError as error:  # it is an advantage only
        log.debug("the priority of loading cannot be lowered: %s", error)
    return work()


def tasks() -> set[int]:
    """Return the threads of this process, each of which has a priority of its own in Linux."""
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


@functools.cache
def can_raise_priority() -> bool:
    """Return whether a priority that was lowered can be raised again, which takes CAP_SYS_NICE or
    RLIMIT_NICE.
    """

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
    """Return what work returns, or raise what it raises, in another thread."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised again by who waits
            result.set_exception(error)

    name = f"{threading.current_thread().name} background"
    threading.Thread(target=run, name=name, daemon=True).start()
    return result.result()
