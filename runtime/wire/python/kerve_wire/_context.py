"""Implements grpcio's ServicerContext."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc

from kerve_wire._native import Call

__all__ = ["AbortError", "Context", "Metadata"]

log = logging.getLogger(__name__)

Metadata = Iterable[tuple[str, str | bytes]]

COMPRESSIONS = {
    grpc.Compression.NoCompression: None,
    grpc.Compression.Deflate: "deflate",
    grpc.Compression.Gzip: "gzip",
}


class AbortError(Exception):
    """Ends a servicer's method; the status is stored in the context."""


class _Metadatum(tuple[str, str | bytes]):
    """A pair with attributes `key` and `value`, as in grpcio."""

    __slots__ = ()

    @property
    def key(self) -> str:
        return self[0]

    @property
    def value(self) -> str | bytes:
        return self[1]


class Context(grpc.ServicerContext):
    """The context of one call."""

    def __init__(self, call: Call, watch: Callable[["Context"], bool], compression: str | None) -> None:
        self.call = call
        self._call = call
        # Requests that `run_callbacks` be called at the end of the call; False if it has already ended.
        self._watch = watch
        self._metadata = tuple(_Metadatum(pair) for pair in call.metadata)
        self._code: Any = None
        self._details: str = ""
        self._trailing: Metadata = ()
        # The compression of responses if the client accepts it, and whether the next one is compressed.
        self._compression = compression
        self._compress_next = True
        self._begun = False
        self._aborted = False
        self._callbacks: list[Callable[[], None]] | None = []
        self._callbacks_lock = threading.Lock()

    def is_active(self) -> bool:
        return self._call.is_active()

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None without a deadline, unlike in the stubs
        return self._call.time_remaining()

    def cancel(self) -> bool:
        return self._call.cancel()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        with self._callbacks_lock:
            if self._callbacks is None or not self._watch(self):
                return False
            self._callbacks.append(callback)
            return True

    def run_callbacks(self) -> None:
        """Run the callbacks for the end of the call, once."""
        with self._callbacks_lock:
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # a failing callback must not affect the others
                log.exception("a callback of %s failed", self._call.method)

    def invocation_metadata(self) -> Any:
        return self._metadata

    def peer(self) -> str:
        return self._call.peer

    def peer_identities(self) -> Iterable[bytes] | None:
        key = self.peer_identity_key()
        return None if key is None else self._call.identity[key]

    def peer_identity_key(self) -> str | None:
        names = ("x509_subject_alternative_name", "x509_common_name")
        return next((name for name in names if name in self._call.identity), None)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:  # type: ignore[override]  # grpcio itself returns such a mapping
        return self._call.identity

    def set_compression(self, compression: grpc.Compression) -> None:
        self._check_not_begun("the compression")
        self._compression = COMPRESSIONS[compression]

    def disable_next_message_compression(self) -> None:
        self._compress_next = False

    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        self._check_not_begun("the initial metadata")
        self._begun = True
        self._call.begin(list(initial_metadata), self._compression)

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        self._trailing = trailing_metadata

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return tuple(self._trailing or ())

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        if code is grpc.StatusCode.OK:
            log.error("abort() was called with OK: expected an error code")
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._code, self._details, self._aborted = code, details, True
        raise AbortError

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._trailing = status.trailing_metadata
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def send(self, message: bytes) -> bool:
        """Send a message; False if the call has ended."""
        if not self._begun:
            self._begun = True
            if not self._call.begin((), self._compression):
                return False
        compression = self._compression if self._compress_next else None
        self._compress_next = True
        return self._call.send(message, compression)

    def _check_not_begun(self, what: str) -> None:
        if self._begun:
            raise ValueError(f"the response has begun; {what} can only be set before it")

    def finish(self, *, failure: str | None = None) -> None:
        """End the call with the status that was set; with UNKNOWN and `failure`, if given, when none was."""
        code, details = self._code, self._details
        if failure is not None and not self._aborted and code in (None, grpc.StatusCode.OK):
            code, details = grpc.StatusCode.UNKNOWN, failure
        number = code.value[0] if isinstance(code, grpc.StatusCode) else int(code or 0)
        try:
            self._call.finish(number, details or "", list(self._trailing or ()))
        except (TypeError, ValueError) as error:  # the call must end even if an invalid status was set
            log.exception("%s: the status that was set cannot be sent", self._call.method)
            problem = f"the servicer's status is not valid: {error}"
            self._call.finish(grpc.StatusCode.INTERNAL.value[0], problem, ())
