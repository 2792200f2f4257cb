"""One version that serves: its model, its queue, the threads that compute, what they counted."""

import ctypes
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.artifact import read_artifact
from kerve.runtime.cache import CachePart, ResponseCache
from kerve.runtime.config import Settings
from kerve.runtime.config.batching import batching_of
from kerve.runtime.config.complete import complete
from kerve.runtime.devices.choice import ON_CPU, Devices
from kerve.runtime.devices.placement import complete_groups, place
from kerve.runtime.errors import ArtifactError, ServingError
from kerve.runtime.executor import Executor
from kerve.runtime.model import Model, load
from kerve.runtime.statistics import ServedStatistics
from kerve.runtime.transport.base import Queue, ServedModel, Transport

__all__ = ["Limits", "ServedVersion"]

log = logging.getLogger(__name__)

# Seconds that a request may need from finding its queue to entering it: a queue closes this much later than
# the last route to it is gone, so that a swap refuses nobody.
LINGER = 0.2


@dataclass(frozen=True)
class Limits:
    """What the server allows every model."""

    # CPUs that the executors of one model share.
    threads: int = 1
    # Requests that may wait where a model sets no limit of its own.
    max_queue_size: int = 256
    # Whether overload has Triton's codes.
    triton_codes: bool = False
    # Where answers are kept of models that ask for it; None: nowhere.
    cache: ResponseCache | None = None
    # Seconds that work accepted by a version that is taken out of service has to finish.
    retire_timeout: float = 30.0
    # What models compute on that do not say it themselves.
    devices: Devices = ON_CPU


@dataclass
class ServedVersion:
    """A version in memory. It computes as soon as it is started, and is asked as soon as it is published."""

    name: str
    version: int
    # Changes with the files and the settings it was loaded with.
    fingerprint: str
    # One on each device for each instance there; instances on the CPU share one.
    models: tuple[Model, ...]
    config: pb.ModelConfig
    queue: Queue
    executors: tuple[Executor, ...]
    # Its answers, where they are kept.
    cache: CachePart | None = None
    statistics: ServedStatistics = field(default_factory=ServedStatistics)

    @classmethod
    def start(
        cls, name: str, version: int, path: Path, settings: Settings, transport: Transport, limits: Limits
    ) -> "ServedVersion":
        """Load, prove and warm a version, and start its executors; ArtifactError when that cannot be done."""
        begin = time.monotonic()
        placements = place(settings.config, limits.devices, settings.cuda, path.parent)
        threads = (
            settings.threads
            or threads_of(settings.config, path.parent)
            or max(1, limits.threads // sum(placement.executors for placement in placements))
        )
        artifact = read_artifact(path, settings.config.default_model_filename or "model.onnx")
        models = tuple(
            load(artifact, threads=threads, settings=settings, place=placement.place)
            for placement in placements
        )
        signature = models[0].signature
        batching = batching_of(
            settings, max_queue_size=limits.max_queue_size, triton_codes=limits.triton_codes
        )
        cache = cache_of(settings.config, name, limits)
        cold = cache is not None
        queue = transport.attach(ServedModel(name, version, signature, batching, cold=cold))
        statistics = ServedStatistics()
        computing = [
            model
            for model, placement in zip(models, placements, strict=True)
            for _ in range(placement.executors)
        ]
        executors = tuple(
            Executor(model, queue, statistics, name=f"{name}/{version}#{number}")
            for number, model in enumerate(computing)
        )
        served = cls(
            *(name, version, "", models),
            complete(settings.config, name, signature, complete_groups(placements, name)),
            *(queue, executors, cache, statistics),
        )
        served._begin()
        where = ", ".join(dict.fromkeys(str(model.device) for model in models))
        log.info(
            "model %r version %d is ready after %.2f s, on %s",
            *(name, version, time.monotonic() - begin, where),
        )
        return served

    @property
    def model(self) -> Model:
        """The first of its instances."""
        return self.models[0]

    def _begin(self) -> None:
        """Start the executors; what one of them cannot prepare ends all, and is raised."""
        try:
            for executor in self.executors:
                executor.begin()
        except ServingError:
            self.stop(time.monotonic())
            for model in self.models:
                model.close()
            raise

    def stop(self, end: float) -> bool:
        """Finish what was accepted until `end`, in seconds of `time.monotonic()`; return whether all of it
        was.

        What is not finished then is answered with UNAVAILABLE, if it can be interrupted.
        """
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

        def work() -> None:
            time.sleep(LINGER)
            if not self.stop(time.monotonic() + timeout):
                log.error("model %r version %d did not finish its work in time", self.name, self.version)
            log.info("model %r version %d is no longer served", self.name, self.version)
            if self.cache is not None:
                self.cache.close()
            for model in self.models:
                model.close()
            give_memory_back()
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


def threads_of(config: pb.ModelConfig, folder: Path) -> int:
    """Return the threads that a configuration of Triton's ONNX Runtime backend sets; 0 for none."""
    text = config.parameters["intra_op_thread_count"].string_value if config.parameters else ""
    if text and not text.isdecimal():
        raise ArtifactError(f"{folder}: intra_op_thread_count: expected a number, got {text!r}")
    return int(text or 0)


def give_memory_back() -> None:
    """Return what was freed to the system: glibc keeps it otherwise."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
