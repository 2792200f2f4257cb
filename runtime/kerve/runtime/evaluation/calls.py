"""What a client asks of kerve.evaluation.v1.EvaluationService."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

import grpc

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.channel import Channel
from kerve.runtime.evaluation.client import (
    Data,
    Evaluated,
    Progress,
    Promotion,
    decode,
    decode_promotion,
    requests,
)

__all__ = ["EvaluationCalls"]


class EvaluationCalls:
    """The methods of `Client` that evaluate and promote."""

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
        timeout: float | None = None,
    ) -> Evaluated:
        """Return loss and metrics on labelled rows, as `model.evaluate(x, y, sample_weight)` does.

        `x` is what the model takes: an array, or arrays by name (labels and `sample_weight` may be among
        them); or a generator or dataset of batches `(x, y)` or `(x, y, sample_weight)`. `y` and
        `sample_weight` are arrays, by output where there are several. `batch_size` matters as in Keras, for
        losses that depend on it; 0 is its 32. `progress` is called with running results every `interval`
        seconds, and with the final ones.
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
        timeout: float | None = None,
    ) -> list[Evaluated]:
        """Evaluate several versions on one stream of rows, in the order in which they are given."""
        chosen = list(versions) or [""]
        begin = pb.Begin(
            model=name, versions=chosen, metrics=metrics, batch_size=batch_size, interval=interval
        )
        channel = self._channel
        messages = Remembering(
            requests(begin, channel.signature(name, chosen[0], timeout), x, y, sample_weight)
        )
        final: list[Evaluated] = []
        stream = channel.evaluation["Evaluate"](messages, timeout=timeout, metadata=channel.metadata)
        try:
            for response in stream:
                result = decode(response.results)
                if progress is not None:
                    progress(result)
                if result.final:
                    final.append(result)
        except grpc.RpcError as error:
            if messages.failure is not None:  # the data failed, and with it the stream
                raise messages.failure from error
            raise channel.failure(error) from error
        return final

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

        A requirement compares a metric with a number, or with a metric of the version that has a label now:
        `accuracy >= 0.97`, `loss <= stable.loss * 1.01`.
        """
        request = pb.PromoteRequest(model=name, version=str(version), label=label, requirements=requirements)
        channel = self._channel
        return decode_promotion(channel.call(channel.evaluation["Promote"], request, timeout))


class Remembering:
    """An iterator that keeps what it failed with: gRPC says only that it did."""

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
