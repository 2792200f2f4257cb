"""One version that serves: its model or members, its queue, the threads that compute, what they counted."""

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

# Seconds that a request may need from finding its queue to entering it: a queue closes this much later than
# the last route to it is gone, so that a swap refuses nobody.
LINGER = 0.2

# Seconds that executors have to see that their queue is closed, however late it is.
LAST_WORDS = 1.0

# What is told of a version by how far its engine is.
REMARKS = {
    None: "",
    "building": "CUDA answers while TensorRT's engine is being built",
    "ready": "TensorRT answers",
    "failed": "CUDA answers, because TensorRT's engine failed; see the server's log",
}


@dataclass(frozen=True)
class Limits:
    """What the server allows every model."""

    # CPUs that the executors of one model share.
    threads: int = 1
    # Requests that may wait where a model sets no limit of its own.
    max_queue_size: int = 256
    # Sequences of a model that may be open where it sets no limit of its own.
    max_sequences: int = 1024
    # Whether overload has Triton's codes.
    triton_codes: bool = False
    # Where answers are kept of models that ask for it; None: nowhere.
    cache: ResponseCache | None = None
    # Seconds that work accepted by a version that is taken out of service has to finish.
    retire_timeout: float = 30.0
    # What models compute on that do not say it themselves.
    devices: Devices = ON_CPU


@dataclass(eq=False)
class ServedVersion:
    """A version in memory. It computes as soon as it is started, and is asked as soon as it is published."""

    name: str
    version: int
    # Changes with the files and the settings it was loaded with.
    fingerprint: str
    # None for an ensemble, which its members compute.
    model: Model | None
    # What clients see of the model.
    signature: Signature
    config: pb.ModelConfig
    queue: Queue
    executors: tuple[Worker, ...]
    # Of the model: further ones on this device, and those on others.
    copies: tuple[Model, ...] = ()
    # Its answers, where they are kept.
    cache: CachePart | None = None
    # How its sequences are computed, and those that are open.
    plan: Plan | None = None
    sequences: Sequences | None = None
    statistics: ServedStatistics = field(default_factory=ServedStatistics)
    # A route to this very load, another one for each, that nobody else can name: a sequence stays where it
    # began.
    route: str = field(default_factory=lambda: f"load-{secrets.token_hex(8)}")
    # All loads of the model that compute, this one among them.
    siblings: Callable[[], tuple["ServedVersion", ...]] = tuple
    # The versions that compute for an ensemble: they stay until it is gone, even if they are replaced before.
    members: "tuple[ServedVersion, ...]" = ()
    leases: Leases = field(default_factory=Leases)
    # Whether it is on its way out.
    retired: bool = False

    @property
    def keeps_states(self) -> bool:
        """Whether an answer depends on the requests of the same sequence before it."""
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
        """Load, prove and warm a version, and start its executors; ArtifactError when that cannot be done.

        `low_priority`: others are serving meanwhile, and go first.
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
        """Put a version together of its models; nothing of it has begun."""
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
        """What is worth knowing of it while it serves."""
        return REMARKS[self.model.engine if self.model is not None else None]

    @property
    def depth(self) -> int:
        """0 for a model; for an ensemble 1 more than for the deepest of its members."""
        return 1 + max((member.depth for member in self.members), default=-1)

    @property
    def outdated(self) -> bool:
        """Whether a version that computes for it is on its way out."""
        return any(member.retired for member in self.members)

    def host_of(self, position: SequencePosition, version: str) -> "ServedVersion":
        """Return the loaded version that has a sequence's states: this one, or another where it began before
        requests for `version` were routed here.
        """
        if position.start or self._has(position):
            return self
        named = version.isdecimal()
        others = (each for each in self.siblings() if not named or each.version == int(version))
        return next((each for each in others if each._has(position)), self)

    def _has(self, position: SequencePosition) -> bool:
        return self.sequences is not None and position.identity in self.sequences

    def drain(self) -> None:
        """Accept no more requests of clients; accepted ones go on. Sequences end, now or with the ensembles
        that have accepted requests of them.
        """
        self.queue.drain()
        if self.sequences is not None and not self.leases.held:
            self.sequences.close()

    def stop(self, end: float) -> bool:
        """Finish what was accepted until `end`, in seconds of `time.monotonic()`; return whether all of it
        was.

        What is not finished then is answered with UNAVAILABLE, if it can be interrupted.
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
        """Stop in a thread of its own, once no request can be on its way to the queue; then give the
        memory back.
        """
        self.retired = True

        def work() -> None:
            time.sleep(LINGER)
            end = time.monotonic() + timeout
            if self.sequences is not None:
                self.sequences.wait_until_over(end)
                self.sequences.close()
            self.leases.wait_until_free(max(0.0, end - time.monotonic()))
            if not self.stop(max(end, time.monotonic() + LAST_WORDS)):
                log.error("model %r version %d did not finish its work in time", self.name, self.version)
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
    """Return where the answers of a version are kept, if its configuration asks for it."""
    if not config.response_cache.enable:
        return None
    if limits.cache is None:
        log.warning("model %r asks for a response cache, which takes --cache-size; it has none", name)
        return None
    return limits.cache.part()


def start_all(executors: Sequence[Worker], queue: Queue) -> None:
    """Start the executors; what one of them cannot prepare ends all, and is raised."""
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
    # To ask the field itself for what it does not hold would add it.
    given = {key: value.string_value for key, value in config.parameters.items()}
    text = given.get("intra_op_thread_count", "")
    if text and not (text.isdecimal() and int(text) <= MOST_THREADS):
        raise ArtifactError(
            f"{folder}: intra_op_thread_count: expected a number up to {MOST_THREADS}, got {text!r}"
        )
    return int(text or 0)


def trim_heap() -> None:
    """Return what was freed to the system: glibc keeps it otherwise."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
