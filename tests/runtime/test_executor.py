"""The thread that computes outlives whatever goes wrong with a batch."""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from kerve.runtime.config import SettingsReader
from kerve.runtime.ensemble.executor import EnsembleExecutor
from kerve.runtime.errors import ArtifactError
from kerve.runtime.executor import Executor
from kerve.runtime.lifecycle import served
from kerve.runtime.model import Model
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.grpcio import GrpcioTransport


class Batch:
    parameters: ClassVar[dict[str, Any]] = {}
    requests = rows = 1
    requested = None
    request_ids = ()

    def __init__(self, *, broken: bool) -> None:
        self.inputs: dict[str, Any] = {}
        self.broken = broken
        self.answered = False
        self.failed = ""

    def reply(self, _: Any) -> None:
        if self.answered or self.broken:
            self.answered = True
            raise RuntimeError("kerve-wire failed; its panic is in the server's log")
        self.answered = True

    def fail(self, _code: int, message: str) -> None:
        if not self.answered:
            self.answered, self.failed = True, message
            return
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


def test_an_ensembles_thread_outlives_a_request_that_cannot_begin() -> None:
    def broken(_: Any) -> Any:
        raise ValueError("cannot reshape")

    batch, answers = Batch(broken=False), threading.Event()
    waiting = [batch, None]
    queue: Any = SimpleNamespace(take=lambda: waiting.pop(0))
    inbox: Any = SimpleNamespace(take=lambda: None if answers.wait() else (), close=answers.set)
    plan: Any = SimpleNamespace(
        steps=(), most=1, optional=frozenset(), reshapes=SimpleNamespace(inward=broken)
    )
    executor = EnsembleExecutor(plan, queue, inbox, ServedStatistics(), name="e/1")
    executor.begin()
    executor.join(30)
    assert not executor.is_alive()
    assert not waiting  # it did not end before
    assert batch.failed == "the ensemble failed; see the server's log"


def test_of_a_version_that_cannot_be_started_nothing_is_left(
    tmp_path: Path, publish: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ArtifactError("no such version")

    path = publish(tmp_path, "echo_fp32", name="m")
    closed: list[Any] = []
    monkeypatch.setattr(Model, "close", lambda model: closed.append(model))
    monkeypatch.setattr(served, "complete", refuse)
    settings = SettingsReader().read(path.parent)
    with pytest.raises(ArtifactError, match="no such version"):
        served.ServedVersion.start("m", 1, path, settings, GrpcioTransport(), served.Limits())
    assert not [each.name for each in threading.enumerate() if each.name.startswith("m/1#")]
    assert len(closed) == 1
