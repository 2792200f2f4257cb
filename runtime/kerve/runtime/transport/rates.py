"""Rate limits per client, as in kerve-wire: a token bucket for each client (GCRA)."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

import functools
import hashlib
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc

from kerve.runtime.callers import is_forwarded, metadata_of, peer_of
from kerve.runtime.errors import ResourceExhaustedError
from kerve.runtime.protocol import evaluation
from kerve.runtime.servicers.edge import abort

__all__ = ["RateLimit", "RateLimitInterceptor", "RateLimiter"]

# Hosted methods that count as inference: a call counts as one request of its client.
RATE_LIMITED = frozenset(f"/{evaluation.SERVICE.full_name}/{name}" for name in ("Evaluate", "Compare"))

# Number of known clients at which those with a full bucket are dropped. The next time is at twice the number
# of the remaining ones, if that is more, so that not every request scans all clients.
MIN_CAPACITY = 10_000

# An IPv6 peer: its address without the zone; the brackets may be percent-encoded.
IPV6 = re.compile(r"ipv6:(?:%5B|\[)([0-9a-fA-F:.]+)")


@dataclass(frozen=True)
class RateLimit:
    """Requests per second of each client, and the size of a burst after a pause."""

    rate: float
    burst: int


class RateLimiter:
    """Limits the rate of each client's requests with a token bucket."""

    def __init__(self, limit: RateLimit | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # The time at which each client's bucket is full again.
        self._full_at: dict[str, float] = {}
        self._capacity = MIN_CAPACITY
        # Whether clients are identified by token; if tokens are not required, a client could invent them.
        self.by_token = False

    def check(self, context: grpc.ServicerContext) -> None:
        """Count a request of a call; raises ResourceExhaustedError if its client exceeds the limit."""
        if self._limit is not None and not is_forwarded(context):
            self._count(self._limit, self._client(context), time.monotonic())

    def _client(self, context: grpc.ServicerContext) -> str:
        if self.by_token:
            token = str(metadata_of(context).get("authorization", "")).partition(" ")[2]
            return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
        return network(peer_of(context))

    def _count(self, limit: RateLimit, client: str, now: float) -> None:
        interval = 1 / limit.rate
        with self._lock:
            since = max(now, self._full_at.get(client, now))
            early = since - now - interval * (limit.burst - 1)
            if early > 0:
                raise ResourceExhaustedError(
                    f"a client may send {limit.rate:g} requests per second here, {limit.burst} at once; "
                    "try again later",
                    retry_after=max(0.001, early),
                )
            if len(self._full_at) >= self._capacity:
                self._full_at = {known: full for known, full in self._full_at.items() if full > now}
                self._capacity = max(MIN_CAPACITY, 2 * len(self._full_at))
            self._full_at[client] = since + interval


def network(peer: str) -> str:
    """Return the address whose requests are counted together: an IPv4 address, or an IPv6 /64 network.

    Subscribers are assigned at least a /64 network, and can use any of its addresses.
    """
    address, _, port = peer.rpartition(":")
    address = address if port.isdecimal() else peer
    try:
        ip = ipaddress.IPv6Address(found[1]) if (found := IPV6.match(address)) else None
    except ValueError:
        ip = None
    if ip is None:
        return address
    if ip.ipv4_mapped is not None:
        return f"ipv4:{ip.ipv4_mapped}"
    return f"ipv6:{ipaddress.IPv6Network((ip, 64), strict=False)}"


class RateLimitInterceptor(grpc.ServerInterceptor):
    """Applies the rate limit to the hosted methods that count as inference."""

    def __init__(self, rate_limiter: RateLimiter) -> None:
        self._rate_limiter = rate_limiter

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of the call."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method not in RATE_LIMITED:
            return handler
        behavior, rate_limiter = handler.stream_stream, self._rate_limiter
        assert behavior is not None  # all of RATE_LIMITED are bidirectional streams

        @functools.wraps(behavior)  # also keeps the thread pool of the method
        def rate_limited(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                rate_limiter.check(context)
            except ResourceExhaustedError as error:
                abort(context, error)
            yield from behavior(requests, context)

        made: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            rate_limited,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made
