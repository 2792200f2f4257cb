"""The threads of an ensemble: one takes requests from its queue, one takes the members' answers."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from kerve.runtime.ensemble.run import Plan, Run
from kerve.runtime.errors import Code
from kerve.runtime.sequences.lanes import Lanes
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import Batch, Inbox, Queue

__all__ = ["EnsembleExecutor"]

log = logging.getLogger(__name__)

FAILED = "the ensemble failed; see the server's log"


class EnsembleExecutor(threading.Thread):
    """Serves one queue until it is closed and empty and every request is answered.

    It computes nothing itself: a request only takes time when it begins and after each step.
    """

    def __init__(
        self, plan: Plan, queue: Queue, inbox: Inbox, statistics: ServedStatistics, *, name: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._plan = plan
        self._queue = queue
        self._inbox = inbox
        self._statistics = statistics
        # Guards the requests in flight.
        self._changed = threading.Condition()
        self._runs: set[Run] = set()
        self._terminated = False
        # For sequences: a thread for each request, which keeps them in order, and one for each step that may
        # wait for its turn.
        waiting = sum(step.keeps_states for step in plan.steps)
        self._lanes = Lanes(plan.most * (1 + waiting), name) if waiting else None

    def begin(self) -> None:
        """Start; no preparation is needed."""
        self.start()

    def run(self) -> None:
        """Take and begin requests up to the limit; at the end, wait for those in flight."""
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
        if self._lanes is not None:
            self._lanes.close()

    def terminate(self) -> None:
        """Refuse requests in flight and waiting ones."""
        with self._changed:
            self._terminated = True
            runs = list(self._runs)
        for run in runs:
            run.fail(Code.UNAVAILABLE, "the server is shutting down")

    def _wait(self, most: int) -> None:
        """Wait until at most `most` requests are in flight."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._runs) <= most)

    def _begin(self, batch: Batch) -> None:
        run = Run(self._plan, batch, self._inbox, self._statistics, self._on_end, self._run_in_thread)
        with self._changed:
            self._runs.add(run)
            terminated = self._terminated
        if terminated:
            run.fail(Code.UNAVAILABLE, "the server is shutting down")
            return
        sequence = batch.parameters.get("sequence_id") if self._lanes is not None else None
        if self._lanes is None or not sequence:
            self._guard(run, run.begin)
        else:
            self._lanes.begin(sequence, lambda: self._run_to_completion(run))

    def _run_to_completion(self, run: Run) -> None:
        """Begin a request and wait for its end, before which the next one of its sequence must not begin."""
        self._guard(run, run.begin)
        with self._changed:
            self._changed.wait_for(lambda: run not in self._runs)

    def _run_in_thread(self, run: Run, work: Callable[[], None]) -> None:
        """Run work that blocks until a request's turn in its sequence."""
        assert self._lanes is not None
        self._lanes.begin(None, lambda: self._guard(run, work))

    def _guard(self, run: Run, work: Callable[[], None]) -> None:
        """Run a part of a request; an error fails this request, not the thread that serves others."""
        try:
            work()
        except Exception:  # see `Executor`
            log.exception("%s: a request failed", self.name, extra=log_extra(run.batch))
            run.fail(Code.INTERNAL, FAILED)

    def _take_answers(self) -> None:
        while (answers := self._inbox.take()) is not None:
            for answer in answers:
                run: Run = answer.token.run
                self._guard(run, partial(run.take, answer))

    def _on_end(self, run: Run) -> None:
        with self._changed:
            self._runs.discard(run)
            self._changed.notify_all()


def log_extra(batch: Batch) -> dict[str, Any]:
    """Return the `extra` of a log record about a request."""
    return {"fields": {"request_ids": list(batch.request_ids)}}
