"""Work that must not take the CPU from requests: the kernel runs its thread when others leave some."""

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_background"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# Against a thread of nice 0 on the same CPU, one of 10 gets a tenth.
NICE = 10


def in_background(work: Callable[[], T]) -> T:
    """Return what work returns, or raise what it raises, done in a thread of its own of low priority.

    What takes long in it should not hold the GIL, which others would wait for. Threads that it starts inherit
    the priority, and nobody without privileges can take that back: it must start none that goes on serving.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            # Linux knows a priority for each thread; 0 is the one that calls.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        except OSError as error:  # it is an advantage only
            log.debug("the priority of loading cannot be lowered: %s", error)
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001  raised again by who waits
            result.set_exception(error)

    thread = threading.Thread(target=run, name=f"{threading.current_thread().name} background", daemon=True)
    thread.start()
    return result.result()
