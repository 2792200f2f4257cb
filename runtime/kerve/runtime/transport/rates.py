"""How often each client may ask, counted as by kerve-wire: a bucket each, filled at a steady rate (GCRA)."""

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

# What is hosted and is inference all the same: a call counts as one request of its client.
RATE_LIMITED = frozenset(f"/{evaluation.SERVICE.full_name}/{name}" for name in ("Evaluate", "Compare"))

# Clients that are remembered before those are forgotten that could ask as if for the first time. Twice those
# that are left, if that is more: a look at all of them is not for every request.
MIN_CAPACITY = 10_000

# A peer that calls over IPv6: its address without the zone; the brackets are percent-encoded or not.
IPV6 = re.compile(r"ipv6:(?:%5B|\[)([0-9a-fA-F:.]+)")


@dataclass(frozen=True)
class RateLimit:
    """Requests per second of each client, and how many of them may come at once after a pause."""

    rate: float
    burst: int


class RateLimiter:
    """Limits the rate of each client's requests, with a token bucket for each."""

    def __init__(self, limit: RateLimit | None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        # When each client's bucket is full again.
        self._full_at: dict[str, float] = {}
        self._capacity = MIN_CAPACITY
        # Whether clients are told apart by their tokens; where none are required, anybody could make some up.
        self.by_token = False

    def check(self, context: grpc.ServicerContext) -> None:
        """Count a request of a call; ResourceExhaustedError when its client has sent too many."""
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
    """Return whose requests are counted together: an IPv4 address, or an IPv6 network of 64 bits.

    A subscriber is given no less than such a network, and may call from each of its addresses.
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
    """Applies the rate limit to the methods of inference that servicers serve."""

    def __init__(self, rate_limiter: RateLimiter) -> None:
        self._rate_limiter = rate_limiter

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return what serves the call."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method not in RATE_LIMITED:
            return handler
        behavior, rate_limiter = handler.stream_stream, self._rate_limiter
        assert behavior is not None  # both ways, as all that is counted here

        @functools.wraps(behavior)  # and with it, in which threads it is served
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
