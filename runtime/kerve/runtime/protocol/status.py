"""Errors in gRPC: a code, a message, and google.rpc details in the trailing metadata."""

from collections.abc import Iterable

from kerve.google.rpc.error_details_pb2 import RetryInfo
from kerve.google.rpc.status_pb2 import Status
from kerve.runtime.errors import ServingError

__all__ = ["decode_retry_after", "encode_details", "message_of"]

DETAILS = "grpc-status-details-bin"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


# Maximum bytes of a message, as in the native transport: clients accept only 8 or 16 KiB of trailers.
MESSAGE_LIMIT = 2048


def message_of(error: ServingError) -> str:
    """Return the error message for a client, truncated to MESSAGE_LIMIT bytes."""
    encoded = str(error).encode("utf-8", "replace")
    if len(encoded) <= MESSAGE_LIMIT:
        return encoded.decode()
    return encoded[:MESSAGE_LIMIT].decode("utf-8", "ignore") + "..."


def encode_details(error: ServingError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of an error: RetryInfo if `retry_after` is set, else nothing."""
    if error.retry_after is None:
        return ()
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
    status = Status(code=error.code, message=message_of(error))
    status.details.add(type_url=RETRY_INFO, value=info.SerializeToString())
    return ((DETAILS, status.SerializeToString()),)


def decode_retry_after(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Return the seconds of the RetryInfo in an error's trailing metadata; None if there is none."""
    for key, value in trailing_metadata:
        if key == DETAILS and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                if detail.type_url == RETRY_INFO:
                    return RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9
    return None
