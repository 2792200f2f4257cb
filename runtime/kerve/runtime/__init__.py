"""ONNX artifact in, gRPC service out; and the client that calls it."""

from kerve.runtime.client import Client, ModelInfo
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
