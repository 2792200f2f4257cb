"""One version that is served: its model or members, its queue, its executors, its statistics."""

import ctypes
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.artifact import read_artifact
from kerve.runtime.cache import CachePart, ResponseCache
from kerve.runtime.config import Settings
from kerve.runtime.config.batching import batching_of
from kerve.runtime.config.complete import complete
from kerve.runtime.cpus import MOST_THREADS
from kerve.runtime.devices.choice import ON_CPU, Devices
from kerve.runtime.devices.placement import Placement, complete_groups, place
from kerve.runtime.errors import ArtifactError
from kerve.runtime.executor import Executor, Worker
from kerve.runtime.lifecycle.leases import Leases
from kerve.runtime.model import Model, load
from kerve.runtime.sequences.plan import Plan
from kerve.runtime.sequences.reading import plan_of
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.sequences.table import Sequences
from kerve.runtime.signature import Signature
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import Queue, ServedModel, Transport

__all__ = ["Limits", "ServedVersion", "cache_of"]

log = logging.getLogger(__name__)

# Seconds that a request may take from looking up its queue to entering it: a queue is closed this long after
# the last route to it was removed, so that replacing a version refuses no request.
LINGER = 0.2

# Minimum time in seconds for executors to notice that their queue is closed.
LAST_WORDS = 1.0

# Remark on a version, by the state of its TensorRT engine.
REMARKS = {
    None: "",
    "building": "runs on CUDA while TensorRT's engine is being built",
    "ready": "runs on TensorRT",
    "failed": "runs on CUDA, because TensorRT's engine failed; see the server's log",
}


@dataclass(frozen=True)
class Limits:
    """Server-wide limits and defaults for every model."""

    # CPUs that the executors of one model share.
    threads: int = 1
    # Requests that may wait, for models that set no limit.
    max_queue_size: int = 256
    # Sequences that may be open, for models that set no limit.
    max_sequences: int = 1024
    # Whether overload is reported with Triton's status codes.
    triton_codes: bool = False
    # Response cache for models that enable it; None: no cache.
    cache: ResponseCache | None = None
    # Seconds that a version has to finish its accepted requests when it is unloaded.
    retire_timeout: float = 30.0
    # Devices for models that name none.
    devices: Devices = ON_CPU


@dataclass(eq=False)
class ServedVersion:
    """A version in memory. It can compute once started, and receives requests once published."""

    name: str
    version: int
    # Identifies the files and settings with which it was loaded.
    fingerprint: str
    # None for an ensemble, which is computed by its members.
    model: Model | None
    # The signature that clients see.
    signature: Signature
    config: pb.ModelConfig
    queue: Queue
    executors: tuple[Worker, ...]
    # Further instances of the model, on this device and on others.
    copies: tuple[Model, ...] = ()
    # Its part of the response cache, if enabled.
    cache: CachePart | None = None
    # How its sequences are computed, and the open sequences.
    plan: Plan | None = None
    sequences: Sequences | None = None
    statistics: ServedStatistics = field(default_factory=ServedStatistics)
    # A unique, unguessable route to this load: a sequence stays on the load where it began.
    route: str = field(default_factory=lambda: f"load-{secrets.token_hex(8)}")
    # All active loads of the model, including this one.
    siblings: Callable[[], tuple["ServedVersion", ...]] = tuple
    # Member versions of an ensemble: they stay in memory until it is retired, even if replaced earlier.
    members: "tuple[ServedVersion, ...]" = ()
    leases: Leases = field(default_factory=Leases)
    # Whether it is being retired.
    retired: bool = False

    @property
    def keeps_states(self) -> bool:
        """Whether a response depends on earlier requests of the same sequence."""
        return self.plan is not None or any(member.keeps_states for member in self.members)

    @classmethod
    def start(
        cls,
        name: str,
        version: int,
        path: Path,
        settings: Settings,
        transport: Transport,
        limits: Limits,
        *,
        low_priority: bool = False,
    ) -> "ServedVersion":
        """Load, verify and warm up a version, and start its executors; raises ArtifactError on failure.

        `low_priority`: load at low priority, because other models are serving meanwhile.
        """
        begin = time.monotonic()
        placements = place(settings.config, limits.devices, settings.cuda, path.parent)
        threads = (
            settings.threads
            or threads_of(settings.config, path.parent)
            or max(1, limits.threads // sum(placement.executors for placement in placements))
        )
        artifact = read_artifact(path, settings.config.default_model_filename or "model.onnx")
        with ExitStack() as opened:
            models = tuple(
                opened.enter_context(
                    closing(
                        load(
                            artifact,
                            threads=threads,
                            settings=settings,
                            place=placement.place,
                            executors=placement.executors,
                            low_priority=low_priority,
                        )
                    )
                )
                for placement in placements
            )
            served = cls._of(name, version, models, placements, settings, transport, limits)
            start_all(served.executors, served.queue)
            opened.pop_all()
        where = ", ".join(dict.fromkeys(str(model.device) for model in models))
        log.info(
            "model %r version %d is ready after %.2f s, on %s",
            *(name, version, time.monotonic() - begin, where),
        )
        return served

    @classmethod
    def _of(
        cls,
        name: str,
        version: int,
        models: tuple[Model, ...],
        placements: Sequence[Placement],
        settings: Settings,
        transport: Transport,
        limits: Limits,
    ) -> "ServedVersion":
        """Assemble a version from its models, without starting it."""
        signature = models[0].signature
        batching = batching_of(
            settings, max_queue_size=limits.max_queue_size, triton_codes=limits.triton_codes
        )
        cache = cache_of(settings.config, name, limits)
        computing = [
            model
            for model, placement in zip(models, placements, strict=True)
            for _ in range(placement.executors)
        ]
        plan = plan_of(settings.config, models[0].artifact, signature, len(computing))
        public = plan.public if plan is not None else signature
        cold = cache is not None or plan is not None
        queue = transport.attach(ServedModel(name, version, signature, batching, cold=cold))
        statistics = ServedStatistics()
        return cls(
            name=name,
            version=version,
            fingerprint="",
            model=models[0],
            copies=models[1:],
            signature=public,
            config=complete(settings.config, name, public, complete_groups(placements, name)),
            queue=queue,
            executors=tuple(
                Executor(model, queue, statistics, name=f"{name}/{version}#{number}")
                for number, model in enumerate(computing)
            ),
            cache=cache,
            plan=plan,
            sequences=None if plan is None else sequences_of(plan, name, limits),
            statistics=statistics,
        )

    @property
    def remark(self) -> str:
        """Remark on the version for the index, while it is ready."""
        return REMARKS[self.model.engine if self.model is not None else None]

    @property
    def depth(self) -> int:
        """0 for a model; for an ensemble, 1 more than the depth of its deepest member."""
        return 1 + max((member.depth for member in self.members), default=-1)

    @property
    def outdated(self) -> bool:
        """Whether one of its members is being retired."""
        return any(member.retired for member in self.members)

    def host_of(self, position: SequencePosition, version: str) -> "ServedVersion":
        """Return the loaded version that holds a sequence's states: this one, or the one where the sequence
        began before requests for `version` were routed here.
        """
        if position.start or self._has(position):
            return self
        named = version.isdecimal()
        others = (each for each in self.siblings() if not named or each.version == int(version))
        return next((each for each in others if each._has(position)), self)

    def _has(self, position: SequencePosition) -> bool:
        return self.sequences is not None and position.identity in self.sequences

    def drain(self) -> None:
        """Stop accepting client requests; accepted ones continue.

        Sequences end now, or together with the ensembles that have accepted requests of them.
        """
        self.queue.drain()
        if self.sequences is not None and not self.leases.held:
            self.sequences.close()

    def stop(self, end: float) -> bool:
        """Finish accepted requests until `end` (`time.monotonic()`); return whether all finished.

        Requests unfinished by then are answered with UNAVAILABLE if they can be interrupted.
        """
        if self.sequences is not None:
            self.sequences.close()
        self.queue.close()
        for executor in self.executors:
            executor.join(max(0.0, end - time.monotonic()))
        late = [executor for executor in self.executors if executor.is_alive()]
        for executor in late:
            executor.terminate()
        for executor in late:
            executor.join(1.0)
        return not late

    def retire(self, timeout: float, gone: Callable[[], None]) -> threading.Thread:
        """Stop in a separate thread, once no request can be on its way to the queue; then free the memory."""
        self.retired = True

        def work() -> None:
            time.sleep(LINGER)
            end = time.monotonic() + timeout
            if self.sequences is not None:
                self.sequences.wait_until_over(end)
                self.sequences.close()
            self.leases.wait_until_free(max(0.0, end - time.monotonic()))
            if not self.stop(max(end, time.monotonic() + LAST_WORDS)):
                log.error("model %r version %d did not finish its requests in time", self.name, self.version)
            log.info("model %r version %d is no longer served", self.name, self.version)
            if self.cache is not None:
                self.cache.close()
            for member in self.members:
                member.leases.release()
            if self.model is not None:
                for model in (self.model, *self.copies):
                    model.close()
                trim_heap()
            gone()

        thread = threading.Thread(target=work, name=f"retire {self.name}/{self.version}", daemon=True)
        thread.start()
        return thread


def cache_of(config: pb.ModelConfig, name: str, limits: Limits) -> CachePart | None:
    """Return a part of the response cache for a version, if its configuration enables it."""
    if not config.response_cache.enable:
        return None
    if limits.cache is None:
        log.warning(
            "model %r enables the response cache, but the server has none; start it with --cache-size", name
        )
        return None
    return limits.cache.part()


def start_all(executors: Sequence[Worker], queue: Queue) -> None:
    """Start the executors; if one fails to prepare, end all and raise its exception."""
    try:
        for executor in executors:
            executor.begin()
    except BaseException:
        queue.close()
        for executor in executors:
            if executor.is_alive():
                executor.join(LAST_WORDS)
        raise


def sequences_of(plan: Plan, name: str, limits: Limits) -> Sequences:
    """Return the table of a version's open sequences."""
    most = plan.most or limits.max_sequences
    return Sequences(
        name,
        most=most,
        max_waiting=limits.max_queue_size,
        idle=plan.idle,
        triton_codes=limits.triton_codes,
    )


def threads_of(config: pb.ModelConfig, folder: Path) -> int:
    """Return the threads that a configuration of Triton's ONNX Runtime backend sets; 0 for none."""
    # Indexing the protobuf map itself with a missing key would insert it.
    given = {key: value.string_value for key, value in config.parameters.items()}
    text = given.get("intra_op_thread_count", "")
    if text and not (text.isdecimal() and int(text) <= MOST_THREADS):
        raise ArtifactError(
            f"{folder}: intra_op_thread_count: expected a number up to {MOST_THREADS}, got {text!r}"
        )
    return int(text or 0)


def trim_heap() -> None:
    """Return freed memory to the system: glibc keeps it otherwise."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
