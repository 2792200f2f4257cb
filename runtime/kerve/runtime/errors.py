"""Errors of serving, one class per gRPC status: the server sends them, the client raises them."""

from enum import IntEnum
from typing import ClassVar

__all__ = [
    "SHUTTING_DOWN",
    "AlreadyExistsError",
    "ArtifactError",
    "Code",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "ServingError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "error_for",
]

#: Message for every request that arrives during shutdown.
SHUTTING_DOWN = "the server is shutting down; try another server, or again later"


class Code(IntEnum):
    """The status codes of gRPC (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request or a model failed; `code` is the corresponding gRPC status.

    `retry_after`: seconds after which the same request may succeed, if known.
    """

    code: Code = Code.UNKNOWN
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidArgumentError(ServingError):
    """The request does not fit the model's signature."""

    code = Code.INVALID_ARGUMENT


class NotFoundError(ServingError):
    """No such model or version."""

    code = Code.NOT_FOUND


class UnavailableError(ServingError):
    """The server or the model is starting, draining, or out of reach."""

    code = Code.UNAVAILABLE


class ResourceExhaustedError(ServingError):
    """The model has no room for the request: in its queue, or in memory."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceededError(ServingError):
    """The request's deadline expired before its response was ready."""

    code = Code.DEADLINE_EXCEEDED


class UnimplementedError(ServingError):
    """The server does not support the requested operation."""

    code = Code.UNIMPLEMENTED


class AlreadyExistsError(ServingError):
    """The resource to be created already exists."""

    code = Code.ALREADY_EXISTS


class FailedPreconditionError(ServingError):
    """The server is not configured for the requested operation."""

    code = Code.FAILED_PRECONDITION


class UnauthenticatedError(ServingError):
    """The call carries no token that the server knows."""

    code = Code.UNAUTHENTICATED


class PermissionDeniedError(ServingError):
    """The caller's token does not allow this call."""

    code = Code.PERMISSION_DENIED


class InternalError(ServingError):
    """The model failed on a valid request; the server's log has the cause."""

    code = Code.INTERNAL


class ArtifactError(ServingError):
    """A model's files are damaged or incomplete, or do not compute what they did when compiled."""

    code = Code.FAILED_PRECONDITION
    exit_code = 3


BY_CODE: dict[Code, type[ServingError]] = {
    each.code: each
    for each in (
        InvalidArgumentError,
        NotFoundError,
        UnavailableError,
        ResourceExhaustedError,
        DeadlineExceededError,
        UnimplementedError,
        AlreadyExistsError,
        FailedPreconditionError,
        UnauthenticatedError,
        PermissionDeniedError,
        InternalError,
    )
}


def error_for(code: Code, message: str, *, retry_after: float | None = None) -> ServingError:
    """Return the exception for a gRPC status."""
    error = BY_CODE.get(code, ServingError)(message, retry_after=retry_after)
    error.code = code
    return error
