"""One call of a servicer: bytes to messages, the method, messages to bytes."""

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

# The attribute of a handler that holds its method, by (requests are a stream, responses are).
BEHAVIORS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}


class EndedError(Exception):
    """The call is over: nobody waits for what the servicer would say."""


def serve(handler: Handler, context: Context) -> None:
    """Run the method of a handler and end the call; what the method raises becomes the call's status."""
    behavior = getattr(handler, BEHAVIORS[handler.request_streaming, handler.response_streaming])
    pool = getattr(behavior, "experimental_thread_pool", None)
    if pool is None:
        run(behavior, handler, context)
    else:
        pool.submit(run, behavior, handler, context)


def run(behavior: Callable[..., Any], handler: Handler, context: Context) -> None:
    """Run a method on this thread."""
    send = sender(context, handler.response_serializer)
    try:
        requests = messages(context, handler.request_deserializer)
        request = requests if handler.request_streaming else single(requests, context)
        if getattr(behavior, "experimental_non_blocking", False):
            behavior(request, context, callback(send, context))
            return
        answer = behavior(request, context)
        for message in answer if handler.response_streaming else (answer,):
            if failed(context):  # as in grpcio: a method that set a code need not return a message
                break
            send(message)
    except AbortError:
        context.finish(failure="")
    except EndedError:
        log.debug("%s: the client ended the call", context.call.method)
    except Exception as error:  # the edge of a call: whatever a servicer raises is for the client
        if context.is_active():
            log.exception("%s failed", context.call.method)
            context.finish(failure=f"Exception calling application: {error}")
    else:
        context.finish()


def failed(context: Context) -> bool:
    """Return whether the method has set a code that says that it failed."""
    return context.code() not in (None, grpc.StatusCode.OK)


def messages(context: Context, deserialize: Callable[[bytes], Any] | None) -> Iterator[Any]:
    """Yield the client's messages as they come."""
    while (message := context.call.receive()) is not None:
        yield deserialized(message, context, deserialize)
    if not context.is_active():
        raise EndedError


def deserialized(message: bytes, context: Context, deserialize: Callable[[bytes], Any] | None) -> Any:
    """Return a message; INTERNAL when it cannot be read."""
    if deserialize is None:
        return message
    try:
        return deserialize(message)
    except Exception:  # whatever a deserializer raises means that the message is not one
        log.exception("%s: a request cannot be read", context.call.method)
        context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")


def single(requests: Iterator[Any], context: Context) -> Any:
    """Return the only message of a call; does not wait for a third when there are two."""
    found = list(islice(requests, 2))
    if len(found) != 1:
        got = "more than one" if found else "none"
        context.abort(grpc.StatusCode.UNIMPLEMENTED, f"expected one request message, got {got}")
    return found[0]


def sender(context: Context, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], None]:
    """Return what sends a message; EndedError when the call is over."""

    def send(message: Any) -> None:
        if serialize is not None:
            try:
                message = serialize(message)
            except Exception:  # whatever a serializer raises means that this is not a message
                log.exception("%s: an answer cannot be written", context.call.method)
                context.abort(grpc.StatusCode.INTERNAL, "Failed to serialize response!")
        if not context.send(message):
            raise EndedError

    return send


def callback(send: Callable[[Any], None], context: Context) -> Callable[[Any], None]:
    """Return what a method that does not block calls with each answer, and with None at the end."""

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
