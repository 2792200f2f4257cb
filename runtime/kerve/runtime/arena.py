"""Memory arena of one session on the CPU: limited by ONNX Runtime, with its exact size in bytes.

ONNX Runtime has no limit per session on the CPU, but an arena registered for the whole process has one.
Sessions with USE_ARENA take the arena that is registered while they are created: each gets its own.
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

# Session configuration entry: use the registered arena.
USE_ARENA = "session.use_env_allocators"

# Run configuration entry: release free memory at the end of the run.
SHRINK = "memory.enable_memory_arena_shrinkage"

# Only one arena is registered at a time.
REGISTERING = threading.Lock()

# ONNX Runtime's error message when an arena is full: bytes available, and bytes requested.
FULL = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")

# An ONNX model that allocates as much as its input says: ConstantOfShape(n) -> y, in opset 17.
PROBE = (
    b'\x08\x08:@\n\x17\n\x01n\x12\x01y"\x0fConstantOfShape\x12\x05probe'
    b"Z\x0f\n\x01n\x12\n\n\x08\x08\x07\x12\x04\n\x02\x08\x01"
    b"b\r\n\x01y\x12\x08\n\x06\x08\x01\x12\x02\n\x00"
    b"B\x04\n\x00\x10\x11"
)
# More elements than fit into the memory of any machine.
TOO_MANY = np.array([2**59])

# More bytes than any machine has.
NO_LIMIT = 2**60

# Limit of the arena that replaces a session's arena in the registry, so that the latter is freed together
# with its session.
PLACEHOLDER = 2**20


class Arena:
    """The arena of a session: holds weights, prepacked weights, and the memory of runs."""

    def __init__(self, limit: int) -> None:
        """Use the registered arena; raises ArtifactError unless it enforces `limit`, in bytes."""
        self.limit = limit
        #: Bytes held before the first run.
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
                f"ONNX Runtime {onnxruntime.__version__} does not support memory limits here; "
                "remove memory_limit"
            )

    @property
    def held(self) -> int | None:
        """Bytes allocated from the system; None if the weights, which are not limited, exceed the limit."""
        found = self._ask_too_much()
        return None if found is None else self.limit - int(found[1])

    def check(self, executors: int) -> None:
        """Raise ArtifactError unless each executor can allocate as much as runs have needed so far."""
        each = (self.held or self.limit) - self.weights
        needed = self.weights + executors * each
        if needed > self.limit:
            raise ArtifactError(
                f"it needs {needed} bytes, {self.weights} for weights and {each} for each of {executors} "
                f"instances; memory_limit is {self.limit}"
            )

    def shrink(self) -> None:
        """Release free memory: fragments too small for a request may add up to the limit."""
        self._ask_too_much(self._shrinking)

    def lacks(self, error: Exception) -> int | None:
        """Return the minimum limit that a run would have needed; None if it failed for another reason."""
        found = FULL.search(str(error))
        return None if found is None else self.limit - int(found[1]) + int(found[2])

    def _ask_too_much(self, how: "onnxruntime.RunOptions | None" = None) -> "re.Match[str] | None":
        """Request more memory than exists; return the match of the arena's error message, if it has one."""
        try:
            self._probe.run(None, {"n": TOO_MANY}, how)
        except Exception as error:  # noqa: BLE001  the error message is the result
            return FULL.search(str(error))
        return None


def in_arena(limit: int, make: Callable[[], T]) -> tuple[T, Arena]:
    """Return the result of `make`, which creates sessions with USE_ARENA, and their arena of `limit` bytes.

    Raises ArtifactError if their weights alone take more.
    """
    with registered(limit) as arena:
        try:
            made = make()
        except ORT_ERRORS as error:
            if (needed := arena.lacks(error)) is None:
                raise
            raise ArtifactError(
                f"loading it needs at least {needed} bytes; memory_limit is {limit}"
            ) from error
    held = arena.held
    if held is None:
        del made
        with registered(NO_LIMIT) as arena:
            made = make()
        raise ArtifactError(f"its weights need {arena.held} bytes; memory_limit is {limit}")
    arena.weights = held
    return made, arena


@contextmanager
def registered(limit: int) -> Iterator[Arena]:
    """Give sessions that are created within the block their own arena."""
    with REGISTERING:
        register(limit)
        try:
            yield Arena(limit)
        finally:
            register(PLACEHOLDER)


def register(limit: int) -> None:
    """Register a new arena, replacing the current one."""
    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    # Extend by the requested size: extending by powers of two could take up to twice as much.
    how = onnxruntime.OrtArenaCfg({"max_mem": limit, "arena_extend_strategy": 1})
    try:
        onnxruntime.create_and_register_allocator(where, how)
    except ORT_ERRORS as error:
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} has a single arena for all models; remove memory_limit"
        ) from error
