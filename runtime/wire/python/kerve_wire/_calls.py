"""Runs a servicer's method for a call: deserializes requests, calls the method, serializes responses."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import grpc

from kerve_wire._context import AbortError, Context

__all__ = ["Handler", "serve"]

log = logging.getLogger(__name__)

# Generic for type checkers only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

# The attribute of a handler that holds its method, by (requests are streamed, responses are streamed).
BEHAVIORS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


class EndedError(Exception):
    """The call has ended: responses can no longer be sent."""


def serve(handler: Handler, context: Context) -> None:
    """Run the method of a handler and end the call; an exception of the method becomes the call's status."""
    behavior = getattr(handler, BEHAVIORS[handler.request_streaming, handler.response_streaming])
    pool = getattr(behavior, "experimental_thread_pool", None)
    if pool is None:
        run(behavior, handler, context)
    else:
        pool.submit(run, behavior, handler, context)


def run(behavior: Callable[..., Any], handler: Handler, context: Context) -> None:
    """Run a method on the current thread."""
    send = sender(context, handler.response_serializer)
    try:
        requests = messages(context, handler.request_deserializer)
        request = requests if handler.request_streaming else single(requests, context)
        if getattr(behavior, "experimental_non_blocking", False):
            behavior(request, context, callback(send, context))
            return
        answer = behavior(request, context)
        for message in answer if handler.response_streaming else (answer,):
            if failed(context):  # as in grpcio, a method that has set an error code need not return a message
                break
            send(message)
    except AbortError:
        context.finish(failure="")
    except EndedError:
        log.debug("%s: the client ended the call", context.call.method)
    except Exception as error:  # any exception of a servicer is reported to the client
        if context.is_active():
            log.exception("%s failed", context.call.method)
            context.finish(failure=f"Exception calling application: {error}")
    else:
        context.finish()


def failed(context: Context) -> bool:
    """Return whether the method has set an error code."""
    return context.code() not in (None, grpc.StatusCode.OK)


def messages(context: Context, deserialize: Callable[[bytes], Any] | None) -> Iterator[Any]:
    """Yield the client's messages as they arrive."""
    while (message := context.call.receive()) is not None:
        yield deserialized(message, context, deserialize)
    if not context.is_active():
        raise EndedError


def deserialized(message: bytes, context: Context, deserialize: Callable[[bytes], Any] | None) -> Any:
    """Deserialize a message; abort with INTERNAL if that fails."""
    if deserialize is None:
        return message
    try:
        return deserialize(message)
    except Exception:  # any exception of a deserializer means that the message is invalid
        log.exception("%s: a request cannot be read", context.call.method)
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def single(requests: Iterator[Any], context: Context) -> Any:
    """Return the single message of a call; abort if there is none, or a second, without waiting for more."""
    found = list(islice(requests, 2))
    if len(found) != 1:
        got = "more than one" if found else "none"
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"expected one request message, got {got}")
    return found[0]


def sender(context: Context, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], None]:
    """Return a function that sends a message; it raises EndedError if the call has ended."""

    def send(message: Any) -> None:
        if serialize is not None:
            try:
                message = serialize(message)
            except Exception:  # any exception of a serializer means that the message is invalid
                log.exception("%s: an answer cannot be written", context.call.method)
                context.abort(grpc.StatusCode.INTERNAL, "Failed to serialize response!")
        if not context.send(message):
            raise EndedError

    return send


def callback(send: Callable[[Any], None], context: Context) -> Callable[[Any], None]:
    """Return the callback that a non-blocking method calls with each response, and with None at the end."""

    def answer(message: Any) -> None:
        if message is None:
            context.finish()
            return
        try:
            send(message)
        except EndedError:
            log.debug("%s: the client ended the call", context.call.method)
        except AbortError:
            context.finish(failure="")

    return answer
