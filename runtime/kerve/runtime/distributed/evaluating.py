"""Evaluation on a cluster: merges the metric states of the parts; the results equal model.evaluate()'s.

If every state is a sum, a maximum or a minimum, workers accumulate their rows and send states of a few bytes.
If not, or if Keras' results depend on the grouping of rows, workers send the inputs of the evaluation graphs
(predictions, labels, weights), and one process accumulates them in the order of the rows.
"""

import getpass
import hashlib
import logging
import pickle
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.artifact import read_artifact
from kerve.runtime.data import Rows
from kerve.runtime.data.parts import Part
from kerve.runtime.datatypes import Array
from kerve.runtime.devices.device_array import all_at_host
from kerve.runtime.distributed.cluster import spread
from kerve.runtime.distributed.located import Located, computing
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.evaluation.accumulator import Accumulator, Metrics, chosen, identity
from kerve.runtime.evaluation.client import (
    Compared,
    Difference,
    Progress,
    decode,
    decode_difference,
    messages,
)
from kerve.runtime.evaluation.comparison import Comparison, scores_of
from kerve.runtime.evaluation.deferred import Evaluable
from kerve.runtime.evaluation.history import FILE, Finished, History
from kerve.runtime.evaluation.runs import BatchOutput, Run
from kerve.runtime.protocol.evaluation import encode_difference, encode_results
from kerve.runtime.signature import Signature

__all__ = ["EvaluationOptions", "evaluate"]

log = logging.getLogger(__name__)

#: Arrays and their datatypes, by name.
Batch = Mapping[str, tuple[str, Array]]


@dataclass(frozen=True)
class PartialResult:
    """A worker's result for some rows; sequences are in the order of the versions."""

    rows: int
    #: Compute time of each batch in seconds.
    latencies: tuple[list[float], ...]
    #: States to be merged, or inputs of the evaluation graphs to be accumulated.
    arrays: tuple[Mapping[str, Array], ...]
    #: Comparisons of each other version with the first.
    comparisons: tuple[Comparison, ...]
    fingerprint: bytes
    hardware: str


@dataclass
class EvaluateTask:
    """The task of a worker: evaluate versions on the rows of a part."""

    versions: tuple[Located, ...]
    #: Whether states are merged; otherwise rows are accumulated in order by the caller.
    merged: bool
    _loaded: tuple[tuple[Evaluable, Metrics], ...] = ()

    def prepare(self) -> None:
        """Load the versions."""
        served = [computing(version) for version in self.versions]
        self._loaded = tuple((each, Metrics(each.model.artifact, threads=1)) for each in served)

    def work(self, part: Part) -> Iterator[PartialResult]:
        """Yield one result for the part if states are merged, else one for each batch."""
        runs = self._runs(part)
        result = PartialResultBuilder(runs)
        try:
            for batch in batches(part, runs[0].served.model.signature):
                answers = ask(runs, batch, fold=self.merged)
                if answers is None:
                    continue
                result.add(answers, batch)
                if not self.merged:
                    yield result.finish(
                        [
                            all_at_host(run.metrics.feeds(each.labelled, each.computed))
                            for run, each in answers
                        ]
                    )
                    runs = self._runs(replace(part, first=runs[0].first + runs[0].rows))
                    result = PartialResultBuilder(runs)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{part.paths[0]}: {error}") from error
        if self.merged:
            yield result.finish([run.state for run in runs])

    def _runs(self, part: Part) -> list[Run]:
        return [Run(served, metrics, first=part.first) for served, metrics in self._loaded]


class PartialResultBuilder:
    """Builds the result of a part from batches."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._comparisons = tuple(Comparison() for _ in runs[1:])
        self._fingerprint = hashlib.sha256()

    def add(self, answers: Sequence[tuple[Run, BatchOutput]], batch: Batch) -> None:
        """Add the versions' outputs for a batch."""
        if self._comparisons:
            first, *others = [
                scores_of(run.metrics.description.targets, each.computed, each.labelled.labels)
                for run, each in answers
            ]
            for comparison, other in zip(self._comparisons, others, strict=True):
                comparison.add(other, first)
        for name, (_, array) in batch.items():
            self._fingerprint.update(f"{name} {array.dtype} {array.shape}\n".encode())
            self._fingerprint.update(
                pickle.dumps(array.tolist()) if array.dtype == object else array.tobytes()
            )

    def finish(self, arrays: Sequence[Mapping[str, Array]]) -> PartialResult:
        """Return the result."""
        return PartialResult(
            self._runs[0].rows,
            tuple(run.latencies for run in self._runs),
            tuple(arrays),
            self._comparisons,
            self._fingerprint.digest(),
            self._runs[0].served.model.hardware,
        )


def batches(part: Part, signature: Signature) -> Iterator[Batch]:
    """Yield the rows of a part in the batches that a client sends."""
    for block in Rows(part.open(), signature, labelled=True):
        yield from messages(signature, [block])


def ask(runs: Sequence[Run], batch: Batch, *, fold: bool) -> list[tuple[Run, BatchOutput]] | None:
    """Return the versions' outputs for a batch; None if it is empty."""
    arrays = {name: array for name, (_, array) in batch.items()}
    datatypes = {name: datatype for name, (datatype, _) in batch.items()}
    asked = [(run, run.ask(arrays, datatypes)) for run in runs]
    return [
        (run, run.answer(each) if fold else run.wait(each)) for run, each in asked if each is not None
    ] or None


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of an evaluation."""

    metrics: Sequence[str] = ()
    batch_size: int = 0
    progress: Progress | None = None


def evaluate(
    ray: Any, repository: Path, versions: Sequence[Located], parts: Sequence[Part], wanted: EvaluationOptions
) -> Compared:
    """Return the results of the versions and the differences from the first; record them in the history.

    Raises DataError and the errors of `Client.evaluate`, in which case nothing is recorded.
    """
    merger = Merger(versions, wanted)
    for result in spread(ray, EvaluateTask(tuple(versions), merger.merged), parts):
        merger.add(result)
        if wanted.progress is not None:
            for so_far in merger.results(final=False):
                wanted.progress(decode(so_far))
    if not merger.rows:
        raise InvalidArgumentError(f"{parts[0].paths[0]}: there are no rows to evaluate")
    results = merger.results(final=True)
    merger.keep(History(repository / FILE), results)
    return Compared(tuple(map(decode, results)), tuple(merger.differences()))


class Merger:
    """Merges the results of all workers."""

    def __init__(self, versions: Sequence[Located], wanted: EvaluationOptions) -> None:
        """Raise InvalidArgumentError if a version has no metrics, or lacks a requested one."""
        self._versions = versions
        self._wanted = wanted
        self._metrics = [Metrics(read_artifact(each.folder), threads=1) for each in versions]
        for each, metrics in zip(versions, self._metrics, strict=True):
            metrics.require(wanted.metrics, each.version)
        self.merged = all(metrics.mergeable for metrics in self._metrics)
        self._folded = [Accumulator(metrics, wanted.batch_size) for metrics in self._metrics]
        self._latencies: list[list[float]] = [[] for _ in versions]
        self._comparisons = [Comparison() for _ in versions[1:]]
        self._fingerprint = hashlib.sha256()
        self._hardware: set[str] = set()
        self._began = time.monotonic()
        self.rows = 0

    def add(self, result: PartialResult) -> None:
        """Add a worker's result, in the order of the rows."""
        for folded, arrays in zip(self._folded, result.arrays, strict=True):
            if self.merged:
                folded.merge(arrays)
            else:
                folded.add(arrays)
        for latencies, more in zip(self._latencies, result.latencies, strict=True):
            latencies += more
        for comparison, other in zip(self._comparisons, result.comparisons, strict=True):
            comparison.follow(other)
        self._fingerprint.update(result.fingerprint)
        self._hardware.add(result.hardware)
        self.rows += result.rows

    def results(self, *, final: bool) -> list[pb.Results]:
        """Return the current results of each version."""
        seconds = time.monotonic() - self._began
        return [
            encode_results(
                chosen(folded.numbers(), self._wanted.metrics),
                model=version.name,
                version=version.version,
                rows=self.rows,
                seconds=seconds,
                latencies=latencies,
                final=final,
            )
            for version, folded, latencies in zip(self._versions, self._folded, self._latencies, strict=True)
        ]

    def differences(self) -> Iterator[Difference]:
        """Yield the differences between each version and the first."""
        for comparison, version in zip(self._comparisons, self._versions[1:], strict=True):
            yield decode_difference(encode_difference(comparison, version.version, self._versions[0].version))

    def keep(self, history: History, results: Sequence[pb.Results]) -> None:
        """Record the results, for `kerve promote`."""
        who = f"ray:{getpass.getuser()}@{socket.gethostname()}"
        hardware, fingerprint = "; ".join(sorted(self._hardware)), self._fingerprint.hexdigest()
        artifacts = [identity(read_artifact(each.folder)) for each in self._versions]
        try:
            history.add(
                *(
                    Finished(who, fingerprint, hardware, each, artifact)
                    for each, artifact in zip(results, artifacts, strict=True)
                )
            )
        except OSError as error:  # a repository may be read-only
            log.warning("the evaluation cannot be saved: %s", error)
