"""Converts Triton's `dynamic_batching` or `sequence_batching` to the options of a queue."""

import math

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.settings import MOST_ROWS, Settings
from kerve.runtime.transport.batching import Batching, QueuePolicy

__all__ = ["batching_of"]


def batching_of(settings: Settings, *, max_queue_size: int, triton_codes: bool = False) -> Batching:
    """Return the options of a model's queue; `max_queue_size`: the server's limit, for models without one."""
    config = settings.config
    dynamic = batcher_of(config)
    default = queue_policy(
        dynamic.default_queue_policy, dynamic.HasField("default_queue_policy"), max_queue_size
    )
    policies = [
        queue_policy(dynamic.priority_queue_policy[level], True, max_queue_size)
        if level in dynamic.priority_queue_policy
        else default
        for level in range(1, max(1, dynamic.priority_levels) + 1)
    ]
    return Batching(
        max_batch_size=config.max_batch_size or MOST_ROWS,
        preferred_batch_size=tuple(dynamic.preferred_batch_size),
        max_queue_delay_microseconds=dynamic.max_queue_delay_microseconds,
        preserve_ordering=dynamic.preserve_ordering,
        default_priority_level=max(1, dynamic.default_priority_level),
        policies=tuple(policies),
        batch_buckets=settings.batch_buckets,
        triton_codes=triton_codes,
    )


def batcher_of(config: pb.ModelConfig) -> pb.ModelDynamicBatching:
    """Return the batching options; batches of sequences are formed like others, from waiting requests."""
    sequences = config.sequence_batching
    match sequences.WhichOneof("strategy_choice"):
        case "oldest":
            return pb.ModelDynamicBatching(
                preferred_batch_size=sequences.oldest.preferred_batch_size,
                max_queue_delay_microseconds=sequences.oldest.max_queue_delay_microseconds,
                preserve_ordering=sequences.oldest.preserve_ordering,
            )
        case "direct" if (share := sequences.direct.minimum_slot_utilization) > 0:
            return pb.ModelDynamicBatching(
                preferred_batch_size=[max(1, math.ceil(share * config.max_batch_size))],
                max_queue_delay_microseconds=sequences.direct.max_queue_delay_microseconds,
            )
        case _:
            return config.dynamic_batching


def queue_policy(policy: pb.ModelQueuePolicy, given: bool, max_queue_size: int) -> QueuePolicy:
    """Return one priority's policy; a size of 0 means the server's limit, since all queues are limited."""
    if not given:
        return QueuePolicy(max_queue_size=max_queue_size)
    return QueuePolicy(
        max_queue_size=policy.max_queue_size or max_queue_size,
        default_timeout_microseconds=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        timeout_action="DELAY" if policy.timeout_action == policy.DELAY else "REJECT",
    )
