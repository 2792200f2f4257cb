"""Errors as gRPC carries them: a code, a message, and google.rpc details in the trailing metadata."""

from collections.abc import Iterable

from kerve.google.rpc.error_details_pb2 import RetryInfo
from kerve.google.rpc.status_pb2 import Status
from kerve.runtime.errors import ServingError

__all__ = ["decode_retry_after", "encode_details", "message_of"]

DETAILS = "grpc-status-details-bin"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


# Bytes of a message that are sent, as by the wire: clients take no more than 8 or 16 KiB of trailers.
MESSAGE_LIMIT = 2048


def message_of(error: ServingError) -> str:
    """Return what a client is told of an error, cut where it is longer than trailers may be."""
    encoded = str(error).encode("utf-8", "replace")
    if len(encoded) <= MESSAGE_LIMIT:
        return encoded.decode()
    return encoded[:MESSAGE_LIMIT].decode("utf-8", "ignore") + "..."


def encode_details(error: ServingError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of an error: RetryInfo when it says when to try again, else nothing."""
    if error.retry_after is None:
        return ()
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
    status = Status(code=error.code, message=message_of(error))
    status.details.add(type_url=RETRY_INFO, value=info.SerializeToString())
    return ((DETAILS, status.SerializeToString()),)


def decode_retry_after(trailing_metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Return the seconds of the RetryInfo in an error's trailing metadata; None when there is none."""
    for key, value in trailing_metadata:
        if key == DETAILS and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                if detail.type_url == RETRY_INFO:
                    return RetryInfo.FromString(detail.value).retry_delay.ToNanoseconds() / 1e9
    return None
