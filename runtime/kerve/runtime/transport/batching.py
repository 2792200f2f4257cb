"""Batching options of a queue, with Triton's names; without batching, only the policies apply."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Batching", "QueuePolicy"]


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """The queue policy for requests of one priority."""

    # Requests that may wait; one more is refused with RESOURCE_EXHAUSTED.
    max_queue_size: int = 256
    # Queue timeout of requests that set none; 0: until their deadline.
    default_timeout_microseconds: int = 0
    # Whether a request's `timeout` parameter overrides it.
    allow_timeout_override: bool = True
    # After the timeout, a request is refused with DEADLINE_EXCEEDED, or continues to wait behind all others.
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"


# Maximum number of batches into which a request may be split, on the transport that splits requests.
MAX_PARTS = 1 << 16
# Maximum rows without elements of a request, if that is more than the maximum batch size.
MAX_EMPTY_ROWS = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The options of one queue."""

    max_batch_size: int = 1 << 16
    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0
    preserve_ordering: bool = False
    # The priority of requests that have none; 1 is the highest.
    default_priority_level: int = 1
    policies: tuple[QueuePolicy, ...] = (QueuePolicy(),)
    # Sizes to which batches are padded; the padding is removed from the outputs.
    batch_buckets: tuple[int, ...] = ()
    # Whether a full queue and a queue timeout are reported as UNAVAILABLE, as in Triton.
    triton_codes: bool = False
    # Whether each request is a batch of its own.
    single_request_batches: bool = False

    def oversized(self, rows: int, *, empty: bool) -> str:
        """Return why a request has too many rows, or ""; rows without elements have a lower limit, because
        they cost a client nothing.
        """
        most = max(self.max_batch_size, MAX_EMPTY_ROWS) if empty else self.max_batch_size * MAX_PARTS
        what = "rows without elements" if empty else "rows"
        return "" if rows <= most else f"expected at most {most} {what}, got {rows}; send fewer at a time"
