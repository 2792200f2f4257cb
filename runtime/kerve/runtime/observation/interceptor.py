"""Observes the calls of servicers, on either transport."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

import functools
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from kerve.runtime.callers import metadata_of, peer_of
from kerve.runtime.errors import Code
from kerve.runtime.observation.observer import CallObservation, Observer
from kerve.runtime.protocol.oip import SERVICE

__all__ = ["STREAM", "ObservingInterceptor"]

Handler = grpc.RpcMethodHandler

# Its requests are observed individually by the servicer; the stream itself is not.
STREAM = f"/{SERVICE.full_name}/ModelStreamInfer"

# By (client streaming, server streaming): the attribute of a handler with its method, and its constructor.
KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class ObservingInterceptor(grpc.ServerInterceptor):
    """Observes every call and its outcome."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Any, Any] | None:
        """Return the handler of the call; it is observed if an exporter currently needs it."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if not self._observer.active or method == STREAM:
            return handler
        if handler is None:
            self._refused(handler_call_details, Code.UNIMPLEMENTED)
            return None
        name, make = KINDS[handler.request_streaming, handler.response_streaming]
        behavior = getattr(handler, name)
        if getattr(behavior, "experimental_non_blocking", False):
            return handler
        observed = self._stream if handler.response_streaming else self._single
        made: Handler[Any, Any] = make(
            observed(method, behavior),
            request_deserializer=self._reading(handler_call_details, handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )
        return made

    def _reading(
        self, details: grpc.HandlerCallDetails, deserialize: Callable[[bytes], Any] | None
    ) -> Callable[[bytes], Any] | None:
        """Return a deserializer that observes invalid messages, which do not reach the servicer."""
        if deserialize is None:
            return None

        def read(message: bytes) -> Any:
            try:
                return deserialize(message)
            except Exception:  # the transport answers any exception with this code
                self._refused(details, Code.INTERNAL)
                raise

        return read

    def _refused(self, details: grpc.HandlerCallDetails, code: Code) -> None:
        # The peer is not known to interceptors.
        metadata = {entry[0]: entry[1] for entry in details.invocation_metadata or ()}
        if (observation := self._observer.begin(details.method, "", metadata)) is not None:
            self._observer.end(observation, code)

    def _single(self, method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behavior)
        def observed(request: Any, context: grpc.ServicerContext) -> Any:
            observation = self._begin(method, request, context)
            if observation is None:
                return behavior(request, context)
            try:
                with self._observer.serving(observation):
                    return behavior(request, context)
            finally:
                self._end(observation, context)

        return observed

    def _stream(self, method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(behavior)
        def observed(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            observation = self._begin(method, request, context)
            try:
                yield from behavior(request, context)
            finally:
                if observation is not None:
                    self._end(observation, context)

        return observed

    def _begin(self, method: str, request: Any, context: grpc.ServicerContext) -> CallObservation | None:
        observation = self._observer.begin(method, peer_of(context), metadata_of(context))
        if observation is not None:
            observation.set_request(request)
        return observation

    def _end(self, observation: CallObservation, context: Any) -> None:
        if not observation.delegated:
            code = context.code()
            if code is None:
                code = Code.OK if context.is_active() else Code.CANCELLED
            self._observer.end(observation, code.value[0] if isinstance(code, grpc.StatusCode) else int(code))
