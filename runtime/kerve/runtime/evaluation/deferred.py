"""A model's computations for an evaluation: they run in the model's own queue when no request is waiting."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import numpy as np

from kerve.runtime.datatypes import Array
from kerve.runtime.devices.device_array import DeviceArray, at_host
from kerve.runtime.errors import Code, UnavailableError, error_for
from kerve.runtime.model import Model

__all__ = ["DeferredComputation", "Evaluable"]

#: Outputs by name, and seconds.
Computed = tuple[Mapping[str, Array | DeviceArray], float]


@dataclass(frozen=True)
class Evaluable:
    """A served version, with access to its queue."""

    model: Model
    #: Defers work until no request is waiting; returns False once the queue is closed.
    defer: Callable[[Callable[[], None]], bool]
    #: Maximum rows per computation, which limits how long a request waits for an evaluation.
    max_rows: int


class DeferredComputation:
    """The deferred computation of some rows by a model."""

    def __init__(self, version: Evaluable, inputs: Mapping[str, Array], wanted: Collection[str]) -> None:
        """Enqueue the computation; raises UnavailableError if the version is being retired."""
        self._parts: list[Future[Computed]] = []
        for part in parts(inputs, version.max_rows if version.model.signature.batched else 0):
            self._parts.append(self._put(version, part, wanted))

    def cancel(self) -> None:
        """Cancel the parts that have not started."""
        for part in self._parts:
            part.cancel()

    def wait(self) -> Computed:
        """Return the outputs and the compute time in seconds; raises the model's exception, or CANCELLED
        after `cancel`.
        """
        try:
            answers = [part.result() for part in self._parts]
        except CancelledError as error:
            raise error_for(Code.CANCELLED, "the client cancelled the evaluation") from error
        if len(answers) == 1:
            return answers[0]
        arrays, seconds = zip(*answers, strict=True)
        joined = {name: np.concatenate([at_host(each[name]) for each in arrays]) for name in arrays[0]}
        return joined, sum(seconds)

    def _put(
        self, version: Evaluable, inputs: Mapping[str, Array], wanted: Collection[str]
    ) -> "Future[Computed]":
        future: Future[Computed] = Future()

        def compute() -> None:
            if not future.set_running_or_notify_cancel():
                return
            begin = time.perf_counter()
            try:
                answer = version.model.keep(inputs, wanted)
            except Exception as error:  # noqa: BLE001  raised again in `wait`
                future.set_exception(error)
                return
            future.set_result((answer, time.perf_counter() - begin))

        if not version.defer(compute):
            self.cancel()
            raise UnavailableError(
                f"version {version.model.artifact.path.name} is being unloaded; evaluate again later"
            )
        return future


def parts(arrays: Mapping[str, Array], most: int) -> Iterator[Mapping[str, Array]]:
    """Yield rows, at most `most` at a time (0: all)."""
    rows = max((len(array) for array in arrays.values()), default=0)
    if not most or rows <= most:
        yield arrays
        return
    for begin in range(0, rows, most):
        yield {name: array[begin : begin + most] for name, array in arrays.items()}
