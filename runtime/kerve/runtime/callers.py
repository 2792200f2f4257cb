"""Who calls, and what a call that the server makes for it takes along."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc

__all__ = ["Caller", "is_served_already", "metadata_of", "peer_of"]

# What goes along of a caller's metadata or HTTP headers.
TAKEN_ALONG = ("authorization", "x-request-id", "traceparent", "tracestate")

# By this the server tells itself, through a UNIX socket of its own, for whom it asks.
PEER = "kerve-peer"
# And by this, that it has seen to the request.
SERVED = "kerve-served"


@dataclass(frozen=True)
class Caller:
    """For whom the server calls itself."""

    peer: str
    headers: Mapping[str, Any]
    # Whether limits and caches have seen the request already, and have nothing to do with the call.
    served_already: bool = False

    @classmethod
    def of(cls, context: grpc.ServicerContext) -> Caller:
        """Return who makes the call of a context."""
        return cls(peer_of(context), metadata_of(context))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What its calls carry."""
        taken = tuple((key, self.headers[key]) for key in TAKEN_ALONG if is_text(self.headers.get(key)))
        served = ((SERVED, "1"),) if self.served_already else ()
        return (*taken, (PEER, self.peer), *served)


def is_text(value: object) -> bool:
    """Return whether a value can be that of metadata: HTTP allows headers to hold what gRPC does not."""
    return isinstance(value, str) and value != "" and value.isascii() and value.isprintable()


def metadata_of(context: grpc.ServicerContext) -> dict[str, Any]:
    """Return the metadata of a call; of several entries with one key the last."""
    return {entry[0]: entry[1] for entry in context.invocation_metadata()}


def is_served_already(context: grpc.ServicerContext) -> bool:
    """Return whether the server makes this call for a request that it has seen to already."""
    return context.peer().startswith("unix:") and SERVED in metadata_of(context)


def peer_of(context: grpc.ServicerContext) -> str:
    """Return who makes a call, in gRPC's notation; for calls that the server makes, for whom."""
    peer: str = context.peer()
    if peer.startswith("unix:"):
        return str(metadata_of(context).get(PEER, peer))
    return peer
