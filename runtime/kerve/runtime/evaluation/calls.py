"""Client calls of kerve.evaluation.v1.EvaluationService."""

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Self

import grpc

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.channel import Channel
from kerve.runtime.datatypes import Array
from kerve.runtime.evaluation.client import (
    Compared,
    Data,
    Difference,
    Evaluated,
    Progress,
    Promotion,
    Recorded,
    Watch,
    batches,
    decode,
    decode_difference,
    decode_promotion,
    decode_record,
    has_batches,
    messages,
    step_of,
)
from kerve.runtime.evaluation.notebook import watched
from kerve.runtime.protocol.evaluation import decode_answers, encode_batch

__all__ = ["EvaluationCalls"]


#: Inputs, labels and weights, as `evaluate` accepts them.
Rows = tuple[Any, Data | None, Data | None]


class EvaluationCalls:
    """The methods of `Client` that evaluate, list evaluations and promote."""

    _channel: Channel

    def evaluate(
        self,
        name: str,
        x: Any,
        y: Data | None = None,
        sample_weight: Data | None = None,
        *,
        version: str = "",
        metrics: Collection[str] = (),
        batch_size: int = 0,
        interval: float = 0.0,
        progress: Progress | None = None,
        watch: Watch | None = None,
        timeout: float | None = None,
    ) -> Evaluated:
        """Return loss and metrics on labelled rows, as `model.evaluate(x, y, sample_weight)` does.

        `x`: the model's inputs as an array, or arrays by name (which may include labels and
        `sample_weight`); or a generator, `tf.data` or `keras.utils.PyDataset` dataset of batches `(x, y)` or
        `(x, y, sample_weight)`. `y` and `sample_weight` are arrays, by output if there are several.

        `batch_size` matters as in Keras, for results that depend on it, such as the losses of several
        outputs. 0 is Keras's default: 32 for arrays, and for a generator or dataset the rows of its first
        batch. `progress` is called with running results every `interval` seconds, and with the final ones
        (without it, a notebook shows them); `watch` with each batch and the version's outputs.
        """
        (result,) = self.evaluate_versions(
            name,
            x,
            y,
            sample_weight,
            versions=[version],
            metrics=metrics,
            batch_size=batch_size,
            interval=interval,
            progress=progress,
            watch=watch,
            timeout=timeout,
        )
        return result

    def evaluate_versions(
        self,
        name: str,
        x: Any,
        y: Data | None = None,
        sample_weight: Data | None = None,
        *,
        versions: Sequence[str] = (),
        metrics: Collection[str] = (),
        batch_size: int = 0,
        interval: float = 0.0,
        progress: Progress | None = None,
        watch: Watch | None = None,
        timeout: float | None = None,
    ) -> list[Evaluated]:
        """Evaluate several versions on one stream of rows; return their results in the same order."""
        interval, progress = watched(x, interval, progress)
        begin = pb.Begin(
            model=name, versions=versions or [""], metrics=metrics, batch_size=batch_size, interval=interval
        )
        final: list[Evaluated] = []
        with closing(self._evaluate("Evaluate", begin, (x, y, sample_weight), watch, timeout)) as responses:
            for response in responses:
                final += [each for each in told([response.results], progress) if each.final]
        return final

    def compare(
        self,
        name: str,
        x: Any,
        y: Data | None = None,
        sample_weight: Data | None = None,
        *,
        versions: Sequence[str],
        metrics: Collection[str] = (),
        batch_size: int = 0,
        interval: float = 0.0,
        progress: Progress | None = None,
        watch: Watch | None = None,
        timeout: float | None = None,
    ) -> Compared:
        """Evaluate two or more versions on one stream of rows, and compare each with the first.

        The data and the other arguments are those of `evaluate`.
        """
        interval, progress = watched(x, interval, progress)
        begin = pb.Begin(
            model=name, versions=versions, metrics=metrics, batch_size=batch_size, interval=interval
        )
        final: list[Evaluated] = []
        differences: list[Difference] = []
        with closing(self._evaluate("Compare", begin, (x, y, sample_weight), watch, timeout)) as responses:
            for response in responses:
                final = told(response.results, progress)
                differences += map(decode_difference, response.differences)
        return Compared(tuple(final), tuple(differences))

    def evaluations(self, name: str = "", *, limit: int = 0, timeout: float | None = None) -> list[Recorded]:
        """Return the finished evaluations of a model, or of all, newest first; `limit` 0: the newest 100."""
        request = pb.ListEvaluationsRequest(model=name, limit=limit)
        channel = self._channel
        answer = channel.call(channel.evaluation["ListEvaluations"], request, timeout)
        return [decode_record(each) for each in answer.records]

    def promote(
        self,
        name: str,
        version: str | int,
        label: str,
        requirements: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> Promotion:
        """Move a label to a version, if its last evaluation meets the requirements.

        A requirement compares a metric with a number, or with a metric of the version that currently has a
        label: `accuracy >= 0.97`, `loss <= stable.loss * 1.01`.
        """
        request = pb.PromoteRequest(model=name, version=str(version), label=label, requirements=requirements)
        channel = self._channel
        return decode_promotion(channel.call(channel.evaluation["Promote"], request, timeout))

    def _evaluate(
        self, method: str, begin: pb.Begin, data: Rows, watch: Watch | None, timeout: float | None
    ) -> Generator[Any, None, None]:
        """Send rows and yield the responses with results; other responses are passed to `watch`.

        Closing the generator cancels the call; otherwise a stored exception would keep the call alive.
        """
        channel = self._channel
        begin.outputs = watch is not None
        sent: deque[tuple[int, dict[str, Array]]] = deque()
        versions = len(begin.versions)

        def requests() -> Iterator[pb.EvaluateRequest]:
            signature, first = channel.signature(begin.model, begin.versions[0], timeout), 0
            given = batches(signature, *data)
            if has_batches(data[0]) and not begin.batch_size:
                begin.batch_size, given = step_of(given)
            yield pb.EvaluateRequest(begin=begin)
            for typed in messages(signature, given):
                if watch is not None and (rows := max(len(array) for _, array in typed.values())):
                    sent.append((first, {name: array for name, (_, array) in typed.items()}))
                    first += rows
                yield pb.EvaluateRequest(batch=encode_batch(typed))

        remembering = ErrorCapturingIterator(requests())
        stream = channel.evaluation[method](remembering, timeout=timeout, metadata=channel.metadata)
        told_of = 0
        try:
            for response in stream:
                if not response.HasField("answers"):
                    yield response
                    continue
                first, batch = sent[0]
                assert watch is not None
                assert first == response.answers.first_row
                watch(response.answers.version, first, batch, decode_answers(response.answers))
                told_of += 1
                if told_of % versions == 0:
                    sent.popleft()
        except grpc.RpcError as error:
            if remembering.failure is not None:  # reading the data failed, which ended the stream
                raise remembering.failure from error
            raise channel.failure(error) from error
        finally:
            stream.cancel()


def told(results: Iterable[pb.Results], progress: Progress | None) -> list[Evaluated]:
    """Decode results, and pass each to `progress`."""
    decoded = [decode(each) for each in results]
    for each in decoded:
        if progress is not None:
            progress(each)
    return decoded


class ErrorCapturingIterator:
    """An iterator that stores the exception it raised, which gRPC does not report."""

    def __init__(self, inner: Iterator[Any]) -> None:
        self._inner = inner
        self.failure: Exception | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise
