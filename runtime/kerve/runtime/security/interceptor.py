"""Lets calls of servicers through, or refuses them, on either transport."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

from collections.abc import Callable
from typing import Any

import grpc

from kerve.runtime.errors import ServingError
from kerve.runtime.security.permissions import permission_of
from kerve.runtime.security.tokens import Authority
from kerve.runtime.servicers.edge import abort

__all__ = ["AuthorityInterceptor"]

Handler = grpc.RpcMethodHandler


class AuthorityInterceptor(grpc.ServerInterceptor):
    """Asks the authority about every call."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Any, Any] | None:
        """Return what serves the call: the service, or a refusal."""
        metadata = {entry[0]: entry[1] for entry in handler_call_details.invocation_metadata}
        try:
            self._authority.check(permission_of(handler_call_details.method), metadata.get("authorization"))
        except ServingError as error:
            return refusal(error, continuation(handler_call_details))
        return continuation(handler_call_details)


def refusal(error: ServingError, refused: Handler[Any, Any] | None) -> Handler[Any, Any]:
    """Return a handler of the same kind that refuses its call."""

    def refuse(_: Any, context: grpc.ServicerContext) -> Any:
        abort(context, error)

    if refused is not None and (refused.request_streaming or refused.response_streaming):
        return grpc.stream_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)
