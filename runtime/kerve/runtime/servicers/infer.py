"""inference.GRPCInferenceService/ModelInfer in Python, for transports without a native one."""

import threading
import time
from collections.abc import Callable

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.protocol import oip
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.transport.local_queue import LocalQueue, Request

__all__ = ["InferServicer"]


class InferServicer:
    """Decodes a request, puts it into the queue of its model version, waits, encodes the answer."""

    def __init__(self, route: Callable[[str, str], LocalQueue]) -> None:
        self._route = route
        self._in_flight = 0
        self._ended = threading.Condition()

    @answers_errors
    def ModelInfer(  # noqa: N802  the protocol's name
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Compute the requested outputs of a model."""
        self._count(context)
        queue = self._route(request.model_name, request.model_version)
        served = queue.served
        asked = oip.decode_request(request, served.signature)
        work = Request(
            asked.inputs,
            rows=asked.rows,
            requested=asked.requested,
            deadline=deadline(context.time_remaining()),
            parameters=asked.parameters,
        )
        context.add_callback(work.abandon)
        queue.put(work, priority=asked.priority, timeout=asked.timeout)
        return oip.encode_response(request, served.version, served.signature, work.wait())

    def wait_until_idle(self, timeout: float | None) -> bool:
        """Wait until every call has been answered and its answer sent; return whether that is so."""
        with self._ended:
            return self._ended.wait_for(lambda: self._in_flight == 0, timeout)

    def _count(self, context: grpc.ServicerContext) -> None:
        with self._ended:
            self._in_flight += 1
        if not context.add_callback(self._end):  # the call is over already
            self._end()

    def _end(self) -> None:
        with self._ended:
            self._in_flight -= 1
            self._ended.notify_all()


def deadline(*seconds: float | None) -> float | None:
    """Return the earliest of several times from now, as a time of `time.monotonic()`, if there is one."""
    # A call without a deadline has 292 years left in grpcio, more than a lock can wait.
    given = [each for each in seconds if each is not None and each < threading.TIMEOUT_MAX]
    return time.monotonic() + min(given) if given else None
