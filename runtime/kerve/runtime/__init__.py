"""Serves ONNX artifacts over gRPC; and the client."""

from typing import TYPE_CHECKING, Any

from kerve.runtime.errors import (
    ArtifactError,
    Code,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    UnimplementedError,
)

if TYPE_CHECKING:
    from kerve.runtime.client import Client, ModelInfo

__all__ = [
    "ArtifactError",
    "Client",
    "Code",
    "DeadlineExceededError",
    "InternalError",
    "InvalidArgumentError",
    "ModelInfo",
    "NotFoundError",
    "ResourceExhaustedError",
    "ServingError",
    "UnavailableError",
    "UnimplementedError",
]


def __getattr__(name: str) -> Any:
    """Import the client on first access, so that a server starts without it."""
    if name in __all__:
        from kerve.runtime import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
