"""The thread that computes outlives whatever goes wrong with a batch."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from kerve.runtime.executor import Executor
from kerve.runtime.statistics import ServedStatistics


class Batch:
    requests = rows = 1
    requested = None
    request_ids = ()

    def __init__(self, *, broken: bool) -> None:
        self.inputs: dict[str, Any] = {}
        self.broken = broken
        self.answered = False

    def reply(self, _: Any) -> None:
        if self.answered or self.broken:
            self.answered = True
            raise RuntimeError("kerve-wire failed; its panic is in the server's log")
        self.answered = True

    def fail(self, _code: int, _message: str) -> None:
        raise RuntimeError("the batch has been answered; a batch is answered exactly once")


def test_a_reply_that_fails_ends_no_thread() -> None:
    batches = [Batch(broken=True), Batch(broken=False)]
    waiting = [*batches, None]
    queue: Any = SimpleNamespace(take=lambda: waiting.pop(0))
    model: Any = SimpleNamespace(prepared=nullcontext, run=lambda _inputs, _requested: {})
    executor = Executor(model, queue, ServedStatistics(), name="m/1#0")
    executor.begin()
    executor.join(30)
    assert not executor.is_alive()
    assert [each.answered for each in batches] == [True, True]
