"""The inbox for answers to in-process requests of `LocalQueue`, in Python."""

import queue
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kerve.runtime.datatypes import Array

__all__ = ["LocalAnswer", "LocalInbox"]


@dataclass(frozen=True)
class LocalAnswer:
    """An `Answer`."""

    token: object
    outputs: Mapping[str, Array] | None
    code: int
    message: str
    nanoseconds: int


class LocalInbox:
    """An `Inbox`."""

    def __init__(self) -> None:
        self._answers: queue.SimpleQueue[LocalAnswer | None] = queue.SimpleQueue()

    def put(self, answer: LocalAnswer) -> None:
        """Add an answer."""
        self._answers.put(answer)

    def take(self) -> Sequence[LocalAnswer] | None:
        """Wait for answers, and take all available ones; None once closed."""
        if (answer := self._answers.get()) is None:
            return None
        answers = [answer]
        with suppress(queue.Empty):
            while (answer := self._answers.get_nowait()) is not None:
                answers.append(answer)
            self.close()  # put the end marker back for the next call
        return answers

    def close(self) -> None:
        """Let `take` return None after the available answers."""
        self._answers.put(None)
