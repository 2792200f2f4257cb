"""The executor thread: takes batches from a queue, runs the model, replies."""

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from kerve.runtime.errors import Code, ServingError
from kerve.runtime.model import Model
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import Batch, Queue

__all__ = ["Executor", "Worker"]

log = logging.getLogger(__name__)


class Worker(Protocol):
    """A thread that serves a queue until it is closed and empty."""

    def begin(self) -> None:
        """Start, and wait until it can compute; raises ArtifactError if it cannot."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end."""

    def is_alive(self) -> bool:
        """Return whether the thread is running."""

    def terminate(self) -> None:
        """Interrupt the current computation as soon as possible, and refuse waiting requests."""


class Executor(threading.Thread):
    """Serves one queue until it is closed and empty."""

    def __init__(self, model: Model, queue: Queue, statistics: ServedStatistics, *, name: str) -> None:
        # A daemon: a model that never returns must not keep the process alive after the drain.
        super().__init__(name=name, daemon=True)
        self._model = model
        self._queue = queue
        self._statistics = statistics
        self._prepared: Future[None] = Future()

    def begin(self) -> None:
        """Start, and wait until the model is prepared; raises ArtifactError if that fails."""
        self.start()
        self._prepared.result()

    def run(self) -> None:
        """Prepare the model, then take batches, compute and reply."""
        with ExitStack() as resources:
            try:
                resources.enter_context(self._model.prepared())
            except Exception as error:  # noqa: BLE001  raised in `begin`
                self._prepared.set_exception(error)
                return
            self._prepared.set_result(None)
            while (work := self._queue.take()) is not None:
                if callable(work):
                    work()
                else:
                    self._answer(work)

    def terminate(self) -> None:
        """Interrupt the current computation as soon as the model allows, and refuse waiting requests."""
        self._model.terminate()

    def _answer(self, batch: Batch) -> None:
        begin = time.perf_counter_ns()
        try:
            outputs = self._model.run(batch.inputs, batch.requested)
            # Before the reply, so that a client that has it finds it counted.
            self._statistics.computed(batch, time.perf_counter_ns() - begin)
            batch.reply(outputs)
        except ServingError as error:
            if error.code is Code.INTERNAL:
                log.error("%s: %s", self.name, error.__cause__, extra=log_extra(batch))
            batch.fail(error.code, str(error))
        except Exception:  # one failed batch must not end the thread that serves the others
            log.exception("%s: a batch failed", self.name, extra=log_extra(batch))
            with suppress(RuntimeError):  # if the reply itself failed, the batch is already answered
                batch.fail(Code.INTERNAL, "the model failed; see the server's log")


def log_extra(batch: Batch) -> dict[str, Any]:
    """Return the `extra` of a log record about a batch."""
    return {"fields": {"request_ids": list(batch.request_ids)}}
