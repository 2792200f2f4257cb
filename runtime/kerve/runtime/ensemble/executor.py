"""The threads of an ensemble: one takes requests from its queue, one takes what the members answer."""

import logging
import threading
from typing import Any

from kerve.runtime.ensemble.run import Plan, Run
from kerve.runtime.errors import Code
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import Batch, Inbox, Queue

__all__ = ["EnsembleExecutor"]

log = logging.getLogger(__name__)

FAILED = "the ensemble failed; see the server's log"


class EnsembleExecutor(threading.Thread):
    """Serves one queue until it is closed and empty, and everything taken from it is answered.

    It computes nothing: a request costs it a moment when it comes and after each step.
    """

    def __init__(
        self, plan: Plan, queue: Queue, inbox: Inbox, statistics: ServedStatistics, *, name: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._plan = plan
        self._queue = queue
        self._inbox = inbox
        self._statistics = statistics
        # Guards what is under way.
        self._changed = threading.Condition()
        self._runs: set[Run] = set()
        self._terminated = False

    def run(self) -> None:
        """Take and begin requests while there is room; at the end, wait for those under way."""
        answers = threading.Thread(target=self._take_answers, name=f"{self.name} answers", daemon=True)
        answers.start()
        while True:
            self._wait(self._plan.most - 1)
            if (work := self._queue.take()) is None:
                break
            if callable(work):
                work()
            else:
                self._begin(work)
        self._wait(0)
        self._inbox.close()
        answers.join()

    def terminate(self) -> None:
        """Refuse what is under way and what waits."""
        with self._changed:
            self._terminated = True
            runs = list(self._runs)
        for run in runs:
            run.fail(Code.UNAVAILABLE, "the server is shutting down")

    def _wait(self, most: int) -> None:
        """Wait until no more than so many requests are under way."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._runs) <= most)

    def _begin(self, batch: Batch) -> None:
        run = Run(self._plan, batch, self._inbox, self._statistics, self._over)
        with self._changed:
            self._runs.add(run)
            terminated = self._terminated
        if terminated:
            run.fail(Code.UNAVAILABLE, "the server is shutting down")
            return
        try:
            run.advance()
        except Exception:  # the edge of the executor: see `Executor`
            log.exception("%s: a request failed", self.name, extra=told(run.batch))
            run.fail(Code.INTERNAL, FAILED)

    def _take_answers(self) -> None:
        while (answers := self._inbox.take()) is not None:
            for answer in answers:
                run: Run = answer.token.run
                try:
                    run.take(answer)
                except Exception:  # one request that fails must not end the thread that serves the others
                    log.exception("%s: a request failed", self.name, extra=told(run.batch))
                    run.fail(Code.INTERNAL, FAILED)

    def _over(self, run: Run) -> None:
        with self._changed:
            self._runs.discard(run)
            self._changed.notify()


def told(batch: Batch) -> dict[str, Any]:
    """Return what a line of the log says of a request beside its message."""
    return {"fields": {"request_ids": list(batch.request_ids)}}
