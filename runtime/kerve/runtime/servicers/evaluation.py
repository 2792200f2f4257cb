"""kerve.evaluation.v1.EvaluationService: computes the metrics of model.evaluate() from labelled rows."""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakKeyDictionary

import grpc

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.errors import (
    Code,
    FailedPreconditionError,
    InvalidArgumentError,
    UnimplementedError,
    error_for,
)
from kerve.runtime.evaluation.accumulator import Metrics, identity
from kerve.runtime.evaluation.comparison import Comparison, scores_of
from kerve.runtime.evaluation.deferred import Evaluable
from kerve.runtime.evaluation.history import Finished, History
from kerve.runtime.evaluation.promotion import Labels, promote
from kerve.runtime.evaluation.runs import BatchOutput, PendingBatch, Run
from kerve.runtime.model import Model
from kerve.runtime.protocol.evaluation import decode_batch, encode_answers, encode_difference, encode_results
from kerve.runtime.servicers.edge import answers_errors, answers_stream_errors

__all__ = ["EvaluationServicer", "Models"]

log = logging.getLogger(__name__)

# Batches queued while another is computed, so that the model need not wait for the stream.
AHEAD = 1


class Models(Protocol):
    """Finds models."""

    def find(self, name: str, version: str, /) -> Evaluable:
        """Return a version ("": the default); raises NotFoundError or UnavailableError if it is not ready."""


class EvaluationServicer:
    """Evaluates served models on the sessions that serve them, when no request is waiting."""

    def __init__(
        self,
        models: Models,
        history: History,
        labels: Labels | None = None,
        *,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._history = history
        self._labels = labels
        self._threads = threads
        self._clock = clock
        self._loaded: WeakKeyDictionary[Model, Metrics] = WeakKeyDictionary()

    @answers_stream_errors
    def Evaluate(  # noqa: N802  the protocol's name
        self, requests: Iterator[pb.EvaluateRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.EvaluateResponse]:
        """Send the results of each version: intermediate ones at the requested interval, then final ones."""
        stream = self._begin(requests)
        for answers in stream.batches(requests, context):
            yield from (pb.EvaluateResponse(answers=each) for each in stream.outputs(answers))
            if stream.due():
                yield from (pb.EvaluateResponse(results=each) for each in stream.results(final=False))
        final = stream.results(final=True)
        yield from (pb.EvaluateResponse(results=each) for each in final)
        self._keep(final, stream, context)

    @answers_stream_errors
    def Compare(  # noqa: N802  the protocol's name
        self, requests: Iterator[pb.EvaluateRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.CompareResponse]:
        """Like Evaluate for several versions, with the differences of each from the first."""
        stream = self._begin(requests)
        if len(stream.runs) < 2:
            raise InvalidArgumentError("expected two versions or more to compare")
        comparisons = [Comparison() for _ in stream.runs[1:]]
        for answers in stream.batches(requests, context):
            first, *others = [
                scores_of(run.metrics.description.targets, each.computed, each.labelled.labels)
                for run, each in zip(stream.runs, answers, strict=True)
            ]
            for comparison, other in zip(comparisons, others, strict=True):
                comparison.add(other, first)
            yield from (pb.CompareResponse(answers=each) for each in stream.outputs(answers))
            if stream.due():
                yield pb.CompareResponse(results=stream.results(final=False))
        final = stream.results(final=True)
        baseline, *versions = [run.version for run in stream.runs]
        differences = [
            encode_difference(comparison, version, baseline)
            for comparison, version in zip(comparisons, versions, strict=True)
        ]
        yield pb.CompareResponse(results=final, differences=differences)
        self._keep(final, stream, context)

    @answers_errors
    def ListEvaluations(  # noqa: N802  the protocol's name
        self, request: pb.ListEvaluationsRequest, _: grpc.ServicerContext
    ) -> pb.ListEvaluationsResponse:
        """List finished evaluations, the newest first."""
        with recorded():
            return pb.ListEvaluationsResponse(records=self._history.list(request.model, limit=request.limit))

    @answers_errors
    def Promote(  # noqa: N802  the protocol's name
        self, request: pb.PromoteRequest, context: grpc.ServicerContext
    ) -> pb.PromoteResponse:
        """Move a label to a version, if its requirements hold."""
        if self._labels is None:
            raise UnimplementedError("this server keeps no labels of versions")
        # the version number, if the request has a label or none
        version = self._models.find(request.model, request.version).model.artifact.path.name
        asked = pb.PromoteRequest(
            model=request.model, version=version, label=request.label, requirements=request.requirements
        )

        def artifacts(number: str) -> str:
            return identity(self._models.find(request.model, number).model.artifact)

        with recorded():
            return promote(asked, self._labels, self._history, context.peer(), artifacts)

    def _begin(self, requests: Iterator[pb.EvaluateRequest]) -> "Stream":
        begin = opening(requests)
        if len(set(begin.versions)) < len(begin.versions):
            raise InvalidArgumentError("expected different versions, got one of them twice")
        runs = [self._run(begin, version) for version in list(begin.versions) or [""]]
        return Stream(begin, runs, self._clock)

    def _run(self, begin: pb.Begin, version: str) -> Run:
        served = self._models.find(begin.model, version)
        metrics = self._loaded.get(served.model)
        if metrics is None:
            model = served.model
            metrics = Metrics(model.artifact, threads=self._threads, place=model.place)
            self._loaded[model] = metrics
        run = Run(served, metrics, begin.batch_size)
        metrics.require(begin.metrics, run.version)
        return run

    def _keep(self, final: list[pb.Results], stream: "Stream", context: grpc.ServicerContext) -> None:
        """Record delivered results: a cancelled stream may only be noticed when the results are sent."""
        if not context.is_active():
            return
        try:
            self._history.add(
                *(
                    Finished(
                        context.peer(),
                        stream.fingerprint.hexdigest(),
                        run.served.model.hardware,
                        results,
                        identity(run.served.model.artifact),
                    )
                    for run, results in zip(stream.runs, final, strict=True)
                )
            )
        except OSError as error:  # a repository may be read-only
            log.warning("an evaluation of %r cannot be saved: %s", stream.begin.model, error)


class Stream:
    """The evaluations of one call."""

    def __init__(self, begin: pb.Begin, runs: list[Run], clock: Callable[[], float]) -> None:
        self.begin = begin
        self.runs = runs
        self.fingerprint = hashlib.sha256()
        self._clock = clock
        self._started = self._told = clock()
        # Batches that the versions have not answered yet.
        self._under_way: deque[list[PendingBatch]] = deque()

    def batches(
        self, requests: Iterator[pb.EvaluateRequest], context: grpc.ServicerContext
    ) -> Iterator[list[BatchOutput]]:
        """Yield the outputs of every version for each batch; raises InvalidArgumentError without any row."""
        try:
            context.add_callback(self._cancel)
            for request in requests:
                self._ask(batch_of(request))
                if len(self._under_way) > AHEAD:
                    yield self._answer()
                if not context.is_active():
                    break
            while self._under_way and context.is_active():
                yield self._answer()
        finally:
            self._cancel()
        if not context.is_active():  # iteration over a cancelled stream ends like over a complete one
            raise error_for(Code.CANCELLED, "the stream was cut off; its rows are discarded")
        if not self.runs[0].rows:
            raise InvalidArgumentError("the stream ended without a row; there is nothing to evaluate")

    def _ask(self, batch: pb.Batch) -> None:
        arrays, datatypes = decode_batch(batch)
        asked = [each for run in self.runs if (each := run.ask(arrays, datatypes)) is not None]
        if asked:
            self._under_way.append(asked)
        for tensor in batch.tensors:
            self.fingerprint.update(f"{tensor.name} {tensor.datatype} {list(tensor.shape)}\n".encode())
            self.fingerprint.update(tensor.contents)

    def _answer(self) -> list[BatchOutput]:
        asked = self._under_way[0]
        answers = [run.answer(each) for run, each in zip(self.runs, asked, strict=True)]
        self._under_way.popleft()
        return answers

    def _cancel(self) -> None:
        for asked in tuple(self._under_way):
            for each in asked:
                each.turn.cancel()

    def outputs(self, answers: list[BatchOutput]) -> list[pb.Answers]:
        """Return the outputs of each version for a batch, if they were requested."""
        if not self.begin.outputs:
            return []
        return [
            encode_answers(run.version, run.rows - each.labelled.rows, run.outputs(each))
            for run, each in zip(self.runs, answers, strict=True)
        ]

    def due(self) -> bool:
        """Return whether intermediate results are due."""
        if not self.begin.interval or self._clock() - self._told < self.begin.interval:
            return False
        self._told = self._clock()
        return True

    def results(self, *, final: bool) -> list[pb.Results]:
        """Return the current results of each version."""
        seconds = self._clock() - self._started
        return [
            encode_results(
                run.numbers(self.begin.metrics),
                model=self.begin.model,
                version=run.version,
                rows=run.rows,
                seconds=seconds,
                latencies=run.latencies,
                final=final,
            )
            for run in self.runs
        ]


@contextmanager
def recorded() -> Iterator[None]:
    """Convert an OSError of the evaluation history to FailedPreconditionError; the log has the details."""
    try:
        yield
    except OSError as error:
        log.error("the history of evaluations: %s", error)
        raise FailedPreconditionError(
            "the history of evaluations cannot be read or written; see the server's log"
        ) from error


def opening(requests: Iterator[pb.EvaluateRequest]) -> pb.Begin:
    """Return the `begin` message of a stream."""
    first = next(requests, None)
    if first is None or first.WhichOneof("message") != "begin":
        raise InvalidArgumentError("expected `begin` as the first message: the model, its versions, metrics")
    if not first.begin.interval >= 0:  # NaN is refused as well
        raise InvalidArgumentError(f"interval: expected seconds, 0 or more, got {first.begin.interval}")
    return first.begin


def batch_of(request: pb.EvaluateRequest) -> pb.Batch:
    """Return the batch in a later message of a stream."""
    if request.WhichOneof("message") != "batch":
        raise InvalidArgumentError("expected `batch` in every message after the first")
    return request.batch
