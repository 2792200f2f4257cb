"""The caller of a request, and the metadata of calls that the server forwards to itself."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

__all__ = ["Caller", "is_forwarded", "metadata_of", "peer_of"]

# Metadata or HTTP headers of the caller that are forwarded.
TAKEN_ALONG = ("authorization", "x-request-id", "traceparent", "tracestate")

# Metadata key of calls that the server forwards to itself through its UNIX socket: the original caller.
PEER = "kerve-peer"
# Metadata key: the request has already passed rate limits and caches.
SERVED = "kerve-served"


@dataclass(frozen=True)
class Caller:
    """The original caller of a call that the server forwards to itself."""

    peer: str
    headers: Mapping[str, Any]
    # Whether the request has already passed rate limits and caches.
    forwarded: bool = False

    @classmethod
    def of(cls, context: grpc.ServicerContext) -> Caller:
        """Return the caller of a context."""
        return cls(peer_of(context), metadata_of(context))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the forwarded call."""
        taken = tuple((key, self.headers[key]) for key in TAKEN_ALONG if is_text(self.headers.get(key)))
        served = ((SERVED, "1"),) if self.forwarded else ()
        return (*taken, (PEER, self.peer), *served)


def is_text(value: object) -> bool:
    """Return whether a value is valid in gRPC metadata: HTTP headers allow more."""
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()


def metadata_of(context: grpc.ServicerContext) -> dict[str, Any]:
    """Return the metadata of a call; of several entries with the same key, the last."""
    return {entry[0]: entry[1] for entry in context.invocation_metadata()}


def is_forwarded(context: grpc.ServicerContext) -> bool:
    """Return whether the server has forwarded this call to itself, after rate limits and caches."""
    return context.peer().startswith("unix:") and SERVED in metadata_of(context)


def peer_of(context: grpc.ServicerContext) -> str:
    """Return the caller, in gRPC's notation; for a forwarded call, the original one."""
    peer: str = context.peer()
    if peer.startswith("unix:"):
        return str(metadata_of(context).get(PEER, peer))
    return peer
