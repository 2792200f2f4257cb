"""Authorizes the calls of servicers, on either transport."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import grpc

from kerve.runtime.errors import ServingError
from kerve.runtime.security.permissions import Permission, permission_of
from kerve.runtime.security.tokens import Authority
from kerve.runtime.servicers.edge import abort

__all__ = ["AuthorityInterceptor"]

Handler = grpc.RpcMethodHandler


class AuthorityInterceptor(grpc.ServerInterceptor):
    """Checks the authorization of every call."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Any, Any] | None:
        """Return the handler of the call, or one that refuses it."""
        given = [each[1] for each in handler_call_details.invocation_metadata if each[0] == "authorization"]
        needed = permission_of(handler_call_details.method)
        check = partial(self._authority.check, needed, given[0] if len(given) == 1 else None)
        handler = continuation(handler_call_details)
        try:
            check()
        except ServingError as error:
            return refusal(error, handler)
        if handler is None or handler.stream_stream is None or needed is not Permission.INFER:
            return handler
        return guarded(handler, check)


def guarded(handler: Handler[Any, Any], check: Callable[[], None]) -> Handler[Any, Any]:
    """Return a stream handler that checks the authorization for every message."""
    serve: Any = handler.stream_stream

    @wraps(serve)  # also keeps the thread pool of the method
    def serving(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        return serve(checked(requests, check), context)

    return grpc.stream_stream_rpc_method_handler(
        serving,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def checked(requests: Iterator[Any], check: Callable[[], None]) -> Iterator[Any]:
    """Yield the messages of a stream while its token is valid: it may be revoked meanwhile."""
    for request in requests:
        check()
        yield request


def refusal(error: ServingError, refused: Handler[Any, Any] | None) -> Handler[Any, Any]:
    """Return a handler that refuses the call without waiting for its requests or decoding them."""

    def refuse(_: Any, context: grpc.ServicerContext) -> Any:
        abort(context, error)

    if refused is not None and (refused.request_streaming or refused.response_streaming):
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.stream_unary_rpc_method_handler(refuse)
