"""How a queue makes batches, under Triton's names; a transport without batching keeps to the policies."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Batching", "QueuePolicy"]


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """What holds for the requests of one priority."""

    # Requests that may wait; one more is refused with RESOURCE_EXHAUSTED.
    max_queue_size: int = 256
    # How long a request may wait, unless it says otherwise; 0: until its deadline.
    default_timeout_microseconds: int = 0
    # Whether a request's `timeout` parameter counts.
    allow_timeout_override: bool = True
    # After that time a request is refused with DEADLINE_EXCEEDED, or waits on behind all others.
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"


# Batches that a request may be cut into, on the transport that cuts.
MAX_PARTS = 1 << 16
# Rows without elements that a request may have, or as many as make one batch.
MAX_EMPTY_ROWS = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The options of one queue."""

    max_batch_size: int = 1 << 16
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    preserve_ordering: bool = False
    # The priority of requests that name none, from 1, the most urgent.
    default_priority_level: int = 1
    policies: tuple[QueuePolicy, ...] = (QueuePolicy(),)
    # Sizes to which batches are padded; the padding is cut off from the outputs.
    batch_buckets: tuple[int, ...] = ()
    # Whether a full queue and a request that waited for too long are UNAVAILABLE, as in Triton.
    triton_codes: bool = False
    # Whether each request is a batch of its own.
    single_request_batches: bool = False

    def oversized(self, rows: int, *, empty: bool) -> str:
        """Return why a request has too many rows, or ""; those without elements cost a client nothing."""
        most = max(self.max_batch_size, MAX_EMPTY_ROWS) if empty else self.max_batch_size * MAX_PARTS
        what = "rows without elements" if empty else "rows"
        return "" if rows <= most else f"expected at most {most} {what}, got {rows}; send fewer at a time"
