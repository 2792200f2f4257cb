"""Hosting of servicers written for grpcio: finds the handler of a call, and runs it in a pool of threads."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from kerve_wire._calls import Handler, serve
from kerve_wire._context import Context
from kerve_wire._native import Call
from kerve_wire._native import Server as NativeServer

__all__ = ["Pool", "Services"]

log = logging.getLogger(__name__)

Find: TypeAlias = "Callable[[grpc.HandlerCallDetails], Handler | None]"


class CallDetails(grpc.HandlerCallDetails):
    """The details of a call, for generic handlers and interceptors."""

    def __init__(self, method: str, metadata: Any) -> None:
        self.method = method
        self.invocation_metadata = metadata


class Services:
    """The handlers of all services."""

    def __init__(self, interceptors: Sequence[grpc.ServerInterceptor]) -> None:
        self._generic: tuple[grpc.GenericRpcHandler, ...] = ()
        self._registered: dict[str, Handler] = {}
        self._interceptors = tuple(interceptors)

    def add_generic(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Add generic handlers, which are consulted for all unregistered methods."""
        self._generic += tuple(handlers)

    def add_registered(self, service: str, methods: Mapping[str, Handler]) -> None:
        """Register the methods of a service."""
        self._registered |= {f"/{service}/{name}": handler for name, handler in methods.items()}

    def find(self, context: Context) -> "Handler | None":
        """Return the handler of a call, after the interceptors; None if there is none."""
        find: Find = self._find
        for interceptor in reversed(self._interceptors):
            find = intercepted(interceptor, find)
        return find(CallDetails(context.call.method, context.invocation_metadata()))

    def _find(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        if (registered := self._registered.get(details.method)) is not None:
            return registered
        found = (generic.service(details) for generic in self._generic)
        return next((handler for handler in found if handler is not None), None)


def intercepted(interceptor: grpc.ServerInterceptor, find: Find) -> Find:
    """Return `find` wrapped by an interceptor."""

    def through(details: grpc.HandlerCallDetails) -> "Handler | None":
        return interceptor.intercept_service(find, details)

    return through


class Pool:
    """A pool of threads that serve calls; another is started whenever none is idle, up to a limit."""

    def __init__(
        self, native: NativeServer, services: Services, max_threads: int, compression: str | None
    ) -> None:
        self._native = native
        self._services = services
        self._max_threads = max_threads
        self._compression = compression
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._watched: dict[int, Context] = {}
        # Calls that take one message and wait for their client to send it.
        self._parked: dict[int, tuple[Handler, Context]] = {}
        self._events: dict[str, Callable[[Call], None]] = {
            "begun": self._begin,
            "complete": self._resume,
            "ended": self._end,
        }

    def start(self) -> None:
        """Start the first thread."""
        with self._lock:
            self._keep_one_idle()

    def _keep_one_idle(self) -> None:
        if self._idle == 0 and self._threads < self._max_threads:
            name = f"kerve-wire-call-{self._threads + 1}"
            try:
                threading.Thread(target=self._work, name=name, daemon=True).start()
            except RuntimeError as error:  # the system's limit of threads; the existing ones continue
                log.warning("calls wait for %d threads: %s", self._threads, error)
                return
            self._threads += 1
            self._idle += 1

    def _work(self) -> None:
        while (event := self._native.next_event()) is not None:
            with self._lock:
                self._idle -= 1
                self._keep_one_idle()
            what, call = event
            try:
                self._events[what](call)
            except Exception:  # a failing call must not end the thread, which serves others
                log.exception("%s failed", call.method)
            with self._lock:
                self._idle += 1

    def _begin(self, call: Call) -> None:
        context = Context(call, self._watch, self._compression)
        try:
            handler = self._services.find(context)
        except Exception as error:  # any exception of an interceptor is reported to the client
            log.exception("finding %s failed", call.method)
            context.finish(failure=f"Error in service handler: {error}")
            return
        if handler is None:
            context.set_code(grpc.StatusCode.UNIMPLEMENTED)
            context.set_details("Method not found!")
            context.finish()
            return
        self._parked[call.id] = (handler, context)
        if handler.request_streaming or call.complete():
            self._resume(call)

    def _resume(self, call: Call) -> None:
        if (parked := self._parked.pop(call.id, None)) is not None:
            serve(*parked)

    def _end(self, call: Call) -> None:
        if (context := self._watched.pop(call.id, None)) is not None:
            context.run_callbacks()

    def _watch(self, context: Context) -> bool:
        self._watched[context.call.id] = context
        active = context.call.watch()
        if not active:
            self._watched.pop(context.call.id, None)
        return active
