"""Loading beside what serves: at low priority, of which nothing is left once it is done."""

import os
import threading

import pytest

from kerve.runtime import background
from kerve.runtime.background import NICE, Background


class Helper:
    """A thread that outlives the work that starts it, as those of a session do."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def start(self) -> int:
        """Return its number, which the kernel knows it by."""
        self._thread.start()
        self._known.wait()
        assert self._thread.native_id is not None
        return self._thread.native_id

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _wait(self) -> None:
        self._known.set()
        self._over.wait()


@pytest.fixture
def helper() -> Helper:
    return Helper()


def priority(task: int = 0) -> int:
    return os.getpriority(os.PRIO_PROCESS, task)


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may lower priorities only, as most may."""
    lower = os.setpriority

    def refusing(which: int, who: int, value: int) -> None:
        if value < os.getpriority(which, who):
            raise PermissionError("raising takes privileges")
        lower(which, who, value)

    monkeypatch.setattr(os, "setpriority", refusing)
    monkeypatch.setattr(background, "can_raise_priority", background.can_raise_priority.__wrapped__)


def test_work_has_a_low_priority_and_its_caller_the_usual_one() -> None:
    usual = priority()
    assert Background().run(priority) == NICE
    assert priority() == usual


def test_threads_that_go_on_are_raised_at_the_end(helper: Helper) -> None:
    if not background.can_raise_priority():
        pytest.skip("raising a priority takes privileges")
    background_work = Background()
    task = background_work.run_starting(helper.start)
    assert priority(task) == NICE
    background_work.end()
    assert priority(task) == priority()
    helper.end()


def test_threads_that_go_on_are_never_lowered_where_they_could_not_be_raised(
    unprivileged: None, helper: Helper
) -> None:
    background_work = Background()
    assert background_work.run(priority) == NICE
    task = background_work.run_starting(helper.start)
    assert priority(task) == priority()
    background_work.end()
    helper.end()


def test_what_nobody_waits_for_is_done_at_once() -> None:
    ahead = Background(low_priority=False)
    assert ahead.run(threading.get_ident) == ahead.run_starting(threading.get_ident) == threading.get_ident()
    ahead.end()


def test_errors_come_back() -> None:
    with pytest.raises(ZeroDivisionError):
        Background().run(lambda: 1 / 0)
