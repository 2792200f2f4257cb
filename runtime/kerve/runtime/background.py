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

__all__ = ["Background", "By", "at_once"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# Against a thread of nice 0 on the same CPU, one of 15 gets 3.5 %; what nobody else wants it gets, too. Linux
# knows a priority for each thread; 0 is the one that calls.
NICE = 15


class By(Protocol):
    """Whoever does some work, at once or otherwise, and returns what it returns."""

    def __call__(self, work: Callable[[], T]) -> T:
        """Do it."""


def at_once(work: Callable[[], T]) -> T:
    """Do work here and now."""
    return work()


class Background:
    """Runs work at low priority, and at last gives the usual one to the threads that it has started.

    Only what takes long and does without the GIL belongs here: who holds it and does not get a CPU keeps
    everybody waiting.
    """

    def __init__(self, *, aside: bool = True) -> None:
        """Not `aside`: there is nobody who goes first, and priorities stay what they are."""
        self._aside = aside
        self._before = tasks() if aside else set()

    def run(self, work: Callable[[], T]) -> T:
        """Return what work returns, or raise what it raises."""
        if not self._aside:
            return at_once(work)
        return between(work) if can_rise() else in_thread(functools.partial(lowered, work))

    def run_starting(self, work: Callable[[], T]) -> T:
        """Do likewise for work that starts threads which are to serve: they inherit the priority until `end`.

        Where it cannot be raised again, it is not lowered.
        """
        return self.run(work) if self._aside and can_rise() else at_once(work)

    def end(self) -> None:
        """Raise the threads that were started meanwhile to the priority of the caller."""
        if not self._aside or not can_rise():
            return
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        for task in tasks() - self._before:
            with contextlib.suppress(OSError):  # it has ended
                os.setpriority(os.PRIO_PROCESS, task, usual)


def between(work: Callable[[], T]) -> T:
    """Do work in this thread, whose priority is lowered before and raised after."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, usual))
    try:
        return work()
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def lowered(work: Callable[[], T]) -> T:
    """Do work in this thread, with a lower priority from now on."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    except OSError as error:  # it is an advantage only
        log.debug("the priority of loading cannot be lowered: %s", error)
    return work()


def tasks() -> set[int]:
    """Return the threads of this process, each of which has a priority of its own in Linux."""
    return {int(each.name) for each in Path("/proc/self/task").iterdir()}


@functools.cache
def can_rise() -> bool:
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

    return in_thread(attempt)


def in_thread(work: Callable[[], T]) -> T:
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
