"""Ray Data: distributes parts of the data to workers, and returns their results in the order of the rows.

A part is a task of Ray Data. If a worker or its node is lost, another worker repeats the part, and only the
completed result counts: nothing is lost, and nothing counts twice.
"""

import logging
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Protocol

from kerve.runtime.data import DataError
from kerve.runtime.data.parts import Part
from kerve.runtime.errors import InternalError, ServingError

__all__ = ["ClusterError", "Task", "cluster", "spread"]

# Timeout for connecting to a cluster, in seconds.
CONNECT_TIMEOUT = 10.0

#: Exceptions about data and models that a worker returns.
TOLD = (ServingError, DataError, OSError)


class ClusterError(Exception):
    """There is no cluster, or it failed; the message says what to do."""

    exit_code = 1


class Task(Protocol):
    """The task of the workers, to which it is sent at the start."""

    def prepare(self) -> None:
        """Load what every part needs; called once in each worker."""

    def work(self, part: Part) -> Iterator[Any]:
        """Yield the results of a part; they must be the same if it is repeated."""


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster within the block: at an address, at RAY_ADDRESS, or a temporary local one."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends usage statistics otherwise
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ClusterError(
            "--engine ray needs Ray, which is not installed: pip install 'kerve[ray]'"
        ) from error
    where = address or os.environ.get("RAY_ADDRESS")
    if where:
        reach(where)
    with quiet():
        yield from connected(ray, where)


def reach(address: str) -> None:
    """Raise ClusterError if nothing listens at an address: Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto", which Ray looks up
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error}") from error


def connected(ray: Any, where: str | None) -> Iterator[Any]:
    """Yield Ray, connected; its exceptions become a ClusterError."""
    try:
        ray.init(
            where, include_dashboard=None if where else False, log_to_driver=False, logging_level="ERROR"
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(f"no Ray cluster answers at {where or 'this machine'}: {error}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    except ray.exceptions.RayError as error:
        raise ClusterError(f"the job on the cluster failed: {error}") from error
    finally:
        ray.shutdown()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the messages that Ray's native core writes to file descriptor 2.

    Messages that Ray prints in Python, such as on workers that died, go to standard error, since standard
    output is for results.
    """
    stderr = sys.stderr
    with open(os.devnull, "w") as nothing, os.fdopen(os.dup(2), "w") as ours:  # noqa: PTH123  no path
        os.dup2(nothing.fileno(), 2)
        sys.stderr = ours
        try:
            with redirect_stdout(ours):
                yield
        finally:
            sys.stderr = stderr
            os.dup2(ours.fileno(), 2)


def spread(ray: Any, task: Task, parts: Sequence[Part]) -> Iterator[Any]:
    """Yield the workers' results of all parts, in the order of the parts.

    There is a worker for each CPU of the cluster, at most one per part. Raises the exception of a worker
    about the data or the model, of the first part that has one.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    most = max(1, min(len(parts), int(ray.cluster_resources().get("CPU", 1))))
    found = ray.data.from_items(
        [{"part": pickle.dumps(part)} for part in parts], override_num_blocks=len(parts)
    ).map_batches(
        Worker,
        fn_constructor_args=(task,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
        num_cpus=1,
    )
    waiting = iter(parts)
    part = next(waiting)
    for row in found.iter_rows():
        number, last, result = pickle.loads(row["found"])  # noqa: S301  our own workers wrote it
        if number != part.number:
            raise InternalError(f"the cluster returned part {number} instead of part {part.number}")
        if isinstance(result, Exception):
            raise result
        if last:
            part = next(waiting, Part(len(parts), ()))
        else:
            yield result
    if part.number != len(parts):
        raise InternalError(f"the cluster returned {part.number} of {len(parts)} parts")


class Worker:
    """A worker process, which computes one part after another."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._prepared = False

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield rows with results or an exception."""
        for pickled in batch["part"]:
            part: Part = pickle.loads(pickled)  # noqa: S301  `spread` wrote it
            try:
                if not self._prepared:
                    self._task.prepare()
                    self._prepared = True
                for found in self._task.work(part):
                    yield row(part.number, False, found)
                yield row(part.number, True, None)
            except TOLD as error:
                yield row(part.number, True, error)


def row(number: int, last: bool, found: Any) -> dict[str, Any]:
    return {"found": [pickle.dumps((number, last, found))]}
