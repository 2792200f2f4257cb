"""What a server and its queues can be told; every option once, with its default."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["QueueOptions", "QueuePolicy", "ServerOptions", "TensorSpec"]


def _workers() -> int:
    """One worker for every two CPUs: the executors and the clients want theirs as well."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


CGROUP = Path("/sys/fs/cgroup")
# In which of them this process is: in a container at the top, in a unit of systemd some levels below.
OWN = Path("/proc/self/cgroup")


def _memory(cgroup: Path = CGROUP, own: Path = OWN) -> int:
    """Bytes of memory that this process may use: the machine's, or the smallest limit of its cgroup and
    those that it is part of.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    found = re.search(r"^0::/(.*)$", own.read_text(), re.MULTILINE) if own.exists() else None
    inner = Path(found[1] if found and ".." not in found[1] else "")
    files = [cgroup / folder / "memory.max" for folder in (inner, *inner.parents)]
    for file in (*files, cgroup / "memory" / "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such cgroup, or no limit ("max")
            limits.append(int(file.read_text()))
    return min(limits)


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server behaves. Durations are in seconds; None: no such limit."""

    # Threads that move bytes; 0: one for every two CPUs.
    workers: int = 0
    # Bytes of a request's message at most; the default is the most that protobuf carries.
    max_receive_message_length: int = 2**31 - 1
    # Bytes at most of requests until they are answered, and of answers until they are sent, over all
    # connections and models; 0: half of this process's memory.
    max_buffered_bytes: int = 0
    # Calls that one connection may have open.
    max_concurrent_streams: int = 4096
    # Bytes of a request's metadata at most.
    max_metadata_size: int = 16 * 1024
    # After this time without a sign of life a client is asked for one,
    keepalive_time: float | None = 7200.0
    # and has this long to answer.
    keepalive_timeout: float | None = 20.0
    # Connections that may be open, those of UNIX sockets aside; what comes beyond is closed.
    max_connections: int | None = None
    # Connections without calls are closed after this time.
    max_connection_idle: float | None = None
    # Connections are asked to end at this age, give or take a tenth,
    max_connection_age: float | None = None
    # and ended this much later.
    max_connection_age_grace: float | None = None
    # The time for the first words of TLS and HTTP/2.
    handshake_timeout: float | None = 120.0
    # How answers are compressed for clients that accept it.
    compression: Literal["gzip", "deflate"] | None = None
    # Whether several processes may listen on one port.
    so_reuseport: bool = False
    # Whether a servicer answers ModelInfer for tensors in shared memory; if not, they are refused.
    host_shared_memory: bool = False
    # Requests for inference per second that each client may send: whoever has a token, or calls from one
    # address. None: any number.
    rate_limit: float | None = None
    # How many of them may come at once, after a pause.
    rate_burst: int = 1

    def fields(self) -> dict[str, object]:
        """Return the options by name, as the native half takes them."""
        buffered = self.max_buffered_bytes or _memory() // 2
        return vars(self) | {"workers": self.workers or _workers(), "max_buffered_bytes": buffered}


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """What holds for the requests of one priority, under Triton's names."""

    # Requests that may wait; one more is refused with RESOURCE_EXHAUSTED. 0: any number. A request that is
    # computed in parts is one.
    max_queue_size: int = 1024
    # How long a request may wait, unless it says otherwise; 0: until its deadline.
    default_timeout_microseconds: int = 0
    # Whether a request's `timeout` parameter counts.
    allow_timeout_override: bool = True
    # After that time a request is refused with DEADLINE_EXCEEDED, or waits on behind all others.
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"


@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """How a queue makes batches, under Triton's names where it has any.

    With a delay of 0 nobody ever waits for company: a batch is whatever came while the executor was busy.
    A request with more rows than `max_batch_size` is computed in parts and answered as one.
    """

    # Rows of a batch at most.
    max_batch_size: int = 64
    # Sizes that are worth waiting for.
    preferred_batch_size: tuple[int, ...] = ()
    # How long a request may wait for company.
    max_queue_delay_microseconds: int = 0
    # One policy for each priority, the most urgent first.
    policies: tuple[QueuePolicy, ...] = (QueuePolicy(),)
    # The priority of requests that name none, from 1.
    default_priority_level: int = 1
    # Whether answers leave in the order in which their batches were taken.
    preserve_ordering: bool = False
    # Sizes to which batches are padded, with copies of the last row; the padding is cut off from the outputs.
    batch_buckets: tuple[int, ...] = ()
    # Bytes of tensors that may wait, over all priorities; one request may always. 0: 1 GiB, or an eighth of
    # this process's memory where that is less.
    max_queue_bytes: int = 0
    # Whether a full queue and a request that waited for too long are UNAVAILABLE, as in Triton.
    triton_codes: bool = False
    # Whether a servicer of ModelInfer sees to unary requests first.
    hosted: bool = False
    # Whether each request is a batch of its own.
    single_request_batches: bool = False

    def fields(self) -> dict[str, object]:
        """Return the options by name, as the native half takes them."""
        queued = self.max_queue_bytes or min(1 << 30, _memory() // 8)
        policies = [tuple(vars(policy).values()) for policy in self.policies]
        return {**vars(self), "policies": policies, "max_queue_bytes": queued}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    A dimension is a size, the name of a size that is free but the same throughout a request, or None: any.
    """

    name: str
    # In the names of the Open Inference Protocol: FP32, INT64, BYTES.
    datatype: str
    shape: tuple[int | str | None, ...]
    # Class names along the last axis.
    labels: tuple[str, ...] = ()
    optional: bool = False
