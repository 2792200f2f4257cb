"""The options of a server and its queues, with their defaults."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["QueueOptions", "QueuePolicy", "ServerOptions", "TensorSpec"]


def _workers() -> int:
    """Return one worker for every two CPUs, since executors and clients need CPUs, too."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


CGROUP = Path("/sys/fs/cgroup")
# Names the cgroup of this process: the root in a container, some levels deeper in a systemd unit.
OWN = Path("/proc/self/cgroup")


def _memory(cgroup: Path = CGROUP, own: Path = OWN) -> int:
    """Return the bytes of memory that this process may use: the smallest of the machine's memory and the
    limits of its cgroup and that cgroup's ancestors.
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
    """The options of a server. Durations are in seconds; None for no limit."""

    # The number of worker threads; 0: one for every two CPUs.
    workers: int = 0
    # The maximum size of a request message, in bytes; the default is protobuf's maximum.
    max_receive_message_length: int = 2**31 - 1
    # The maximum bytes of requests until they are answered, and of responses until they are sent, across all
    # connections and models; 0: half of this process's memory.
    max_buffered_bytes: int = 0
    # The maximum number of open calls per connection.
    max_concurrent_streams: int = 4096
    # The maximum size of a request's metadata, in bytes.
    max_metadata_size: int = 16 * 1024
    # The interval of pings to clients.
    keepalive_time: float | None = 7200.0
    # The time that a client has to acknowledge a ping.
    keepalive_timeout: float | None = 20.0
    # The maximum number of open connections per gRPC port on TCP; more are closed at once. HTTP ports and
    # UNIX sockets are not limited.
    max_connections: int | None = None
    # Connections without calls are closed after this time.
    max_connection_idle: float | None = None
    # Connections are shut down gracefully at this age, plus or minus a tenth.
    max_connection_age: float | None = None
    # Connections are closed this long after `max_connection_age`.
    max_connection_age_grace: float | None = None
    # The time for the handshakes of TLS and HTTP/2, and over HTTP/1 for the headers and each piece of a body.
    handshake_timeout: float | None = 120.0
    # The encoding of gRPC responses to clients that accept it.
    compression: Literal["gzip", "deflate"] | None = None
    # Whether several processes may listen on one port.
    so_reuseport: bool = False
    # Whether a servicer serves ModelInfer requests with tensors in shared memory; if not, they are rejected.
    host_shared_memory: bool = False
    # The maximum inference requests per second of each client, identified by its token or its address.
    # None: no limit.
    rate_limit: float | None = None
    # The maximum number of requests at once, after a pause.
    rate_burst: int = 1

    def fields(self) -> dict[str, object]:
        """Return the options by name, as the native module takes them."""
        buffered = self.max_buffered_bytes or _memory() // 2
        return vars(self) | {"workers": self.workers or _workers(), "max_buffered_bytes": buffered}


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """The queue policy of one priority, named as in Triton."""

    # The maximum number of waiting requests; more are rejected with RESOURCE_EXHAUSTED. 0: no limit. A
    # request that is computed in parts counts once.
    max_queue_size: int = 1024
    # The queue timeout of requests that set none; 0: no timeout, only the deadline.
    default_timeout_microseconds: int = 0
    # Whether the `timeout` parameter of a request overrides the default.
    allow_timeout_override: bool = True
    # After the timeout a request is rejected with DEADLINE_EXCEEDED, or continues to wait behind all others
    # of its priority.
    timeout_action: Literal["REJECT", "DELAY"] = "REJECT"


@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """The options of a queue and its batching, named as in Triton where it has them.

    With a delay of 0 no request waits for others: a batch consists of the requests that arrived while the
    executor was busy. A request with more rows than `max_batch_size` is computed in parts, with one response.
    """

    # The maximum number of rows of a batch.
    max_batch_size: int = 64
    # Batch sizes to prefer, and to wait for within the delay.
    preferred_batch_size: tuple[int, ...] = ()
    # The maximum time that a request waits for others to form a batch.
    max_queue_delay_microseconds: int = 0
    # One policy for each priority, highest first.
    policies: tuple[QueuePolicy, ...] = (QueuePolicy(),)
    # The priority of requests that set none, from 1.
    default_priority_level: int = 1
    # Whether responses are sent in the order in which their batches were taken.
    preserve_ordering: bool = False
    # Sizes to which batches are padded, with copies of the last row; the padding is removed from the outputs.
    batch_buckets: tuple[int, ...] = ()
    # The maximum total bytes of waiting tensors, across all priorities; a single request may always wait.
    # 0: 1 GiB, or an eighth of this process's memory if that is less.
    max_queue_bytes: int = 0
    # Whether a full queue and a queue timeout are reported as UNAVAILABLE, as in Triton.
    triton_codes: bool = False
    # Whether requests are first passed to a servicer in Python.
    hosted: bool = False
    # Whether each request is a batch of its own.
    single_request_batches: bool = False

    def fields(self) -> dict[str, object]:
        """Return the options by name, as the native module takes them."""
        queued = self.max_queue_bytes or min(1 << 30, _memory() // 8)
        policies = [tuple(vars(policy).values()) for policy in self.policies]
        return {**vars(self), "policies": policies, "max_queue_bytes": queued}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    A dimension is a size, the name of a size that is free but equal within a request, or None for any size.
    """

    name: str
    # Named as in the Open Inference Protocol: FP32, INT64, BYTES.
    datatype: str
    shape: tuple[int | str | None, ...]
    # Class names along the last axis.
    labels: tuple[str, ...] = ()
    optional: bool = False
