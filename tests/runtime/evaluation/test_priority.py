"""An evaluation waits behind predictions, in the model's own queue, on each transport."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime import Client, ResourceExhaustedError, UnavailableError, rpc
from kerve.runtime.artifact import read_artifact
from kerve.runtime.evaluation.deferred import DeferredComputation, Evaluable
from kerve.runtime.evaluation.history import History
from kerve.runtime.executor import Executor
from kerve.runtime.model import Model, load
from kerve.runtime.protocol.evaluation import SERVICE, encode_batch
from kerve.runtime.servicers.evaluation import EvaluationServicer
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport import create_transport
from kerve.runtime.transport.base import DEFAULT, ServedModel
from kerve.runtime.transport.batching import Batching, QueuePolicy

HERE = Path(__file__).parent
KERAS = json.loads((HERE / "keras.json").read_text())
with np.load(HERE / "rows.npz") as arrays:
    X, CLASSES = arrays["x"], arrays["classes"]
TRANSPORTS = ["grpcio", *(["wire"] if find_spec("kerve_wire") else [])]
LIMIT = 3


@dataclass
class Watched:
    """A queue, and what went through it."""

    queue: Any
    model: Model
    deferred: int = 0
    taken: list[str] = field(default_factory=list)

    def defer(self, task: Callable[[], None]) -> bool:
        kept: bool = self.queue.defer(task)
        self.deferred += kept
        return kept

    def take(self) -> Any:
        work = self.queue.take()
        if work is not None:
            self.taken += ["evaluation"] if callable(work) else ["prediction"] * work.requests
        return work

    def find(self, *_: str) -> Evaluable:
        return Evaluable(self.model, self.defer, max_rows=64)


@contextmanager
def serving(transport_name: str, folder: Path) -> Iterator[tuple[Watched, Executor, Client]]:
    """A server whose executor has not begun."""
    model = load(read_artifact(HERE / "models" / "classifier" / "2"), threads=1)
    transport = create_transport(transport_name)
    batching = Batching(policies=(QueuePolicy(max_queue_size=LIMIT),))
    queue = transport.attach(ServedModel("classifier", 2, model.signature, batching))
    watched = Watched(queue, model)
    history = History(folder / "history.sqlite")
    servicer = EvaluationServicer(watched, history, threads=1)
    rpc.add_service(transport, SERVICE, rpc.methods_of(SERVICE, servicer))
    transport.publish("classifier", {DEFAULT: queue})
    port = transport.add_insecure_port("127.0.0.1:0")
    transport.start()
    executor: Any = Executor(model, watched, ServedStatistics(), name="classifier")  # type: ignore[arg-type]  # closed elsewhere
    try:
        with Client(f"127.0.0.1:{port}") as client:
            # The metadata is of no concern here, and not hosted.
            client._channel._signatures["classifier", ""] = model.signature
            yield watched, executor, client
    finally:
        queue.close()
        if executor.ident is None:
            executor.start()
        executor.join(30)
        transport.stop(1.0).wait(30)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_predictions_are_computed_before_evaluations_that_came_first(transport: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool, serving(transport, tmp_path) as (watched, executor, client):
        evaluations = [pool.submit(client.evaluate, "classifier", X, CLASSES) for _ in range(3)]
        # Of each, one batch to be computed and one to follow, of 256 and 44 rows, 64 at a time.
        until(lambda: watched.deferred == 3 * 5)
        # The queue of requests is as empty as before: it is filled to its limit.
        predictions = [pool.submit(client.infer, "classifier", X[:1]) for _ in range(LIMIT)]
        until(lambda: watched.queue.depth == LIMIT)
        with pytest.raises(ResourceExhaustedError, match="has 3 requests waiting"):
            client.infer("classifier", X[:1])
        executor.start()
        for prediction in predictions:
            np.testing.assert_allclose(prediction.result(60)["y"].sum(), 1, rtol=1e-5)
        for evaluation in evaluations:
            found = evaluation.result(60).results
            assert found == {
                name: pytest.approx(value, rel=1e-5) for name, value in KERAS["classifier/2/plain"].items()
            }
    assert watched.taken == ["prediction"] * LIMIT + ["evaluation"] * 15


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_evaluation_ends_with_the_version_that_it_is_of(transport: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool, serving(transport, tmp_path) as (watched, executor, client):
        waiting = pool.submit(client.evaluate, "classifier", X, CLASSES)
        until(lambda: watched.deferred == 5)
        watched.queue.close()
        with pytest.raises(UnavailableError, match="version 2 is being unloaded"):
            client.evaluate("classifier", X, CLASSES)
        executor.start()  # what was accepted is computed
        assert waiting.result(60).rows == 300


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_nobody_waits_for_any_more_is_not_computed(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    cancelled: list[DeferredComputation] = []
    cancel = DeferredComputation.cancel

    def note_cancel(turn: DeferredComputation) -> None:
        cancel(turn)
        cancelled.append(turn)

    monkeypatch.setattr(DeferredComputation, "cancel", note_cancel)
    with ThreadPoolExecutor(8) as pool, serving(transport, tmp_path) as (watched, executor, client):
        keep = watched.model.keep

        def note_keep(inputs: Any, wanted: Any) -> Any:
            computed.append(1)
            return keep(inputs, wanted)

        monkeypatch.setattr(watched.model, "keep", note_keep)
        call = client._channel.evaluation["Evaluate"](messages())
        until(lambda: watched.deferred == 5)
        call.cancel()
        until(lambda: len(cancelled) >= 2)
        follower = pool.submit(client.evaluate, "classifier", X[:64], CLASSES[:64])
        until(lambda: watched.deferred == 6)
        executor.start()
        assert follower.result(60).rows == 64
        assert len(computed) == 1


def messages() -> Iterator[pb.EvaluateRequest]:
    yield pb.EvaluateRequest(begin=pb.Begin(model="classifier"))
    for part in (slice(0, 256), slice(256, 300)):
        batch = encode_batch({"x": ("FP32", X[part]), "y": ("INT64", CLASSES[part])})
        yield pb.EvaluateRequest(batch=batch)
