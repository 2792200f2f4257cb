"""Internal calls of the gRPC services, made by HTTP and Classify through a private UNIX socket."""

import threading
from pathlib import Path
from typing import Any

import grpc

from kerve.cli.scratch import Scratch
from kerve.runtime import rpc
from kerve.runtime.callers import Caller
from kerve.runtime.errors import SHUTTING_DOWN, Code, UnavailableError, error_for
from kerve.runtime.observation.observer import current
from kerve.runtime.protocol import oip
from kerve.runtime.protocol.status import decode_retry_after
from kerve.runtime.transport.base import Transport

__all__ = ["Gateway", "within"]

# No limits here: those of the gRPC server apply.
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

# Statuses of calls whose server stops; the channel's own message would mention the socket.
ENDED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Gateway:
    """Calls the server's own gRPC services, so that their validation, batching, limits and permissions apply
    to every protocol.
    """

    def __init__(self, transport: Transport, stopping: threading.Event) -> None:
        """`stopping`: set when the server stops and pending calls fail."""
        self._stopping = stopping
        self._scratch = Scratch()
        self._address = f"unix:{self.folder / 'grpc'}"
        transport.add_insecure_port(self._address)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}

    @property
    def folder(self) -> Path:
        """The folder of sockets that only this process uses."""
        return self._scratch.path

    def call(self, method: str, request: Any, caller: Caller, *, timeout: float | None = None) -> Any:
        """Call a method of GRPCInferenceService; raises the ServingError for its status.

        The forwarded call is observed instead of the original one.
        """
        if (observation := current()) is not None:
            observation.delegated = True
        with self._lock:
            if self._channel is None:
                self._channel = grpc.insecure_channel(self._address, OPTIONS)
                self._calls = rpc.calls(self._channel, oip.SERVICE)
        try:
            return self._calls[method](request, metadata=caller.metadata, timeout=within(timeout))
        except ValueError as error:  # the channel is closed
            if self._stopping.is_set():
                raise UnavailableError(SHUTTING_DOWN) from error
            raise
        except grpc.RpcError as error:
            call: Any = error  # an error of grpcio is a Call too
            if self._stopping.is_set() and call.code() in ENDED:
                raise UnavailableError(SHUTTING_DOWN) from error
            retry = decode_retry_after(call.trailing_metadata() or ())
            raise error_for(Code(call.code().value[0]), call.details() or "", retry_after=retry) from error

    def close(self) -> None:
        """Close the channel and remove the socket."""
        if self._channel is not None:
            self._channel.close()
        self._scratch.close()


def within(seconds: float | None) -> float | None:
    """Return a timeout for grpcio; None (no timeout) if it exceeds `threading.TIMEOUT_MAX`."""
    return None if seconds is None or seconds >= threading.TIMEOUT_MAX else seconds
