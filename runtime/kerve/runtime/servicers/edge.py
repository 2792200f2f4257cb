"""Conversion of exceptions to gRPC statuses, for every servicer."""

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import grpc

from kerve.runtime.callers import metadata_of
from kerve.runtime.errors import InternalError, ServingError
from kerve.runtime.observation.observer import current
from kerve.runtime.protocol.status import encode_details, message_of

__all__ = ["answers_errors", "answers_stream_errors"]

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
Method = Callable[[Any, Request, grpc.ServicerContext], Response]
Stream = Callable[[Any, Iterator[Request], grpc.ServicerContext], Iterator[Response]]

STATUS: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def answers_errors(method: Method[Request, Response]) -> Method[Request, Response]:
    """Make a unary method answer a ServingError with its status; others are logged and become INTERNAL."""

    @functools.wraps(method)
    def answering(self: Any, request: Request, context: grpc.ServicerContext) -> Response:
        try:
            return method(self, request, context)
        except ServingError as error:
            abort(context, error)
        except Exception:  # the client receives INTERNAL, the log the traceback
            log.exception("%s failed", method.__qualname__, extra=log_extra(request, context))
            abort(context, InternalError("internal error; see the server's log"))

    return answering


def answers_stream_errors(method: Stream[Request, Response]) -> Stream[Request, Response]:
    """Make a streaming method end its stream with the status of a ServingError, as `answers_errors` does."""

    @functools.wraps(method)
    def answering(self: Any, request: Iterator[Request], context: grpc.ServicerContext) -> Iterator[Response]:
        try:
            yield from method(self, request, context)
        except ServingError as error:
            abort(context, error)
        except Exception:
            if not context.is_active():  # the client disconnected, and reading from it failed
                return
            log.exception("%s failed", method.__qualname__, extra=log_extra(None, context))
            abort(context, InternalError("internal error; see the server's log"))

    return answering


def log_extra(request: Any, context: grpc.ServicerContext) -> dict[str, Any]:
    """Return the `extra` of a log record about a call, with the id of its request."""
    observation = current()
    own = observation.request_id if observation is not None else getattr(request, "id", "")
    request_id = own or metadata_of(context).get("x-request-id", "")
    return {"fields": {"request_ids": [request_id] if request_id else []}}


def abort(context: grpc.ServicerContext, error: ServingError) -> NoReturn:
    """End a call with an error's status and details."""
    context.set_trailing_metadata(encode_details(error))
    context.abort(STATUS[error.code], message_of(error))
