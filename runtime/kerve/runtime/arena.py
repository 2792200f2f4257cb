"""Memory of one session on the CPU: with a limit that ONNX Runtime keeps, and known to the byte.

A session has no limit of its own there. An arena registered for the whole process has one, and sessions that
ask for it take the one that is registered while they are made: so each gets an arena that no other shares.
"""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import onnxruntime

from kerve.runtime.errors import ArtifactError
from kerve.runtime.ort_errors import ORT_ERRORS

__all__ = ["SHRINK", "USE_ARENA", "Arena", "in_arena"]

T = TypeVar("T")

# The entry of a session's configuration that has it use the registered arena.
USE_ARENA = "session.use_env_allocators"

# The entry of a run's configuration that has it give back, at its end, what is free.
SHRINK = "memory.enable_memory_arena_shrinkage"

# One is registered at a time.
REGISTERING = threading.Lock()

# What ONNX Runtime says when an arena is full: bytes that were left, and bytes that were asked for.
FULL = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")

# An ONNX model that asks its arena for as much as it is told: ConstantOfShape(n) -> y, in opset 17.
PROBE = (
    b'\x08\x08:@\n\x17\n\x01n\x12\x01y"\x0fConstantOfShape\x12\x05probe'
    b"Z\x0f\n\x01n\x12\n\n\x08\x08\x07\x12\x04\n\x02\x08\x01"
    b"b\r\n\x01y\x12\x08\n\x06\x08\x01\x12\x02\n\x00"
    b"B\x04\n\x00\x10\x11"
)
# Elements that no machine has room for.
TOO_MANY = np.array([2**59])

# More than any machine has.
NO_LIMIT = 2**60

# What the arena of nobody in particular may grow to: it stands where a session's stood, so that this one goes
# with its session.
PLACEHOLDER = 2**20


class Arena:
    """What a session allocates from: weights, what they are packed into, and what runs need."""

    def __init__(self, limit: int) -> None:
        """Take the arena that is registered; ArtifactError unless it keeps its limit, in bytes."""
        self.limit = limit
        #: What it held before the first run.
        self.weights = 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry(USE_ARENA, "1")
        self._probe = onnxruntime.InferenceSession(PROBE, options, providers=["CPUExecutionProvider"])
        self._shrinking = onnxruntime.RunOptions()
        self._shrinking.add_run_config_entry(SHRINK, "cpu:0")
        if self.held is None:
            raise ArtifactError(
                f"ONNX Runtime {onnxruntime.__version__} does not limit memory here; remove memory_limit"
            )

    @property
    def held(self) -> int | None:
        """Bytes taken from the system; None where the weights, which are always let in, exceed the limit."""
        found = self._ask_too_much()
        return None if found is None else self.limit - int(found[1])

    def check(self, executors: int) -> None:
        """Raise ArtifactError unless each executor can take what runs have taken until now."""
        each = (self.held or self.limit) - self.weights
        needed = self.weights + executors * each
        if needed > self.limit:
            raise ArtifactError(
                f"it takes {needed} bytes, {self.weights} of them for weights and {each} for each of "
                f"{executors} instances; memory_limit is {self.limit}"
            )

    def shrink(self) -> None:
        """Give back what is free: pieces too small for what is asked for may add up to the limit."""
        self._ask_too_much(self._shrinking)

    def lacks(self, error: Exception) -> int | None:
        """Return the limit that a run would have needed at least; None when it failed for another reason."""
        found = FULL.search(str(error))
        return None if found is None else self.limit - int(found[1]) + int(found[2])

    def _ask_too_much(self, how: "onnxruntime.RunOptions | None" = None) -> "re.Match[str] | None":
        """Return what the arena says to that."""
        try:
            self._probe.run(None, {"n": TOO_MANY}, how)
        except Exception as error:  # noqa: BLE001  what it says is what is asked for
            return FULL.search(str(error))
        return None


def in_arena(limit: int, make: Callable[[], T]) -> tuple[T, Arena]:
    """Return what `make` makes of sessions with USE_ARENA, and the arena of `limit` bytes that they have.

    ArtifactError when their weights alone take more.
    """
    with registered(limit) as arena:
        try:
            made = make()
        except ORT_ERRORS as error:
            if (needed := arena.lacks(error)) is None:
                raise
            raise ArtifactError(
                f"to load it takes {needed} bytes at least, memory_limit is {limit}"
            ) from error
    held = arena.held
    if held is None:
        del made
        with registered(NO_LIMIT) as arena:
            made = make()
        raise ArtifactError(f"its weights take {arena.held} bytes, memory_limit is {limit}")
    arena.weights = held
    return made, arena


@contextmanager
def registered(limit: int) -> Iterator[Arena]:
    """Let sessions that are made within the block have an arena to themselves."""
    with REGISTERING:
        register(limit)
        try:
            yield Arena(limit)
        finally:
            register(PLACEHOLDER)


def register(limit: int) -> None:
    """Have an arena in the place of the one that was registered before."""
    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # It grows by what is asked for: by powers of two it would take up to twice of that.
    how = onnxruntime.OrtArenaCfg({"max_mem": limit, "arena_extend_strategy": 1})
    try:
        onnxruntime.create_and_register_allocator(where, how)
    except ORT_ERRORS as error:
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} has one arena for all models; remove memory_limit"
        ) from error
