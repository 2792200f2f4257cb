"""Ranges of the numbers in a configuration, mostly Triton's."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.cpus import MOST_THREADS
from kerve.runtime.errors import ArtifactError

__all__ = ["check_ranges"]

# The maximum of the field's type.
MOST_ROWS = 2**31 - 1
# Each priority has its own queue, created before the first request.
MOST_PRIORITIES = 1024

# Name, value, minimum and maximum of a number.
Bounded = tuple[str, float, int, int]


def check_ranges(config: pb.ModelConfig, where: Path) -> None:
    """Raise ArtifactError for a number out of its range, and for a tensor that is declared twice."""
    for name, value, least, most in bounded(config):
        if not least <= value <= most:
            raise ArtifactError(f"{where}: {name}: expected {least} to {most}, got {value}")
    inputs, outputs = (Counter(each.name for each in tensors) for tensors in (config.input, config.output))
    for kind, counts in (("input", inputs), ("output", outputs)):
        for name, times in counts.items():
            if times > 1:
                raise ArtifactError(f"{where}: {kind} {name!r} is declared {times} times; expected once")


def bounded(config: pb.ModelConfig) -> Iterator[Bounded]:
    """Yield the numbers of a configuration that have a range."""
    yield "max_batch_size", config.max_batch_size, 0, MOST_ROWS
    tensors: list[pb.ModelInput | pb.ModelOutput] = [*config.input, *config.output]
    for tensor in tensors:
        for size in (*tensor.dims, *tensor.reshape.shape):
            yield f"{tensor.name!r}: dims", size, -1, 2**63 - 1
    for group in config.instance_group:
        yield "instance_group.count", group.count, 0, MOST_THREADS
    dynamic, oldest = config.dynamic_batching, config.sequence_batching.oldest
    for size in (*dynamic.preferred_batch_size, *oldest.preferred_batch_size):
        yield "preferred_batch_size", size, 1, config.max_batch_size or MOST_ROWS
    for sample in config.model_warmup:
        yield "model_warmup.batch_size", sample.batch_size, 0, config.max_batch_size or MOST_ROWS
    share = config.sequence_batching.direct.minimum_slot_utilization
    yield "sequence_batching.direct.minimum_slot_utilization", share, 0, 1
    yield "dynamic_batching.priority_levels", dynamic.priority_levels, 0, MOST_PRIORITIES
    if levels := dynamic.priority_levels:
        yield "dynamic_batching.default_priority_level", dynamic.default_priority_level, 0, levels
        for level in dynamic.priority_queue_policy:
            yield "dynamic_batching.priority_queue_policy", level, 1, levels
