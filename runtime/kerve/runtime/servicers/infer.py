"""inference.GRPCInferenceService's ModelInfer and ModelStreamInfer in Python, for the grpcio transport."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.callers import is_forwarded, metadata_of, peer_of
from kerve.runtime.errors import Code, ServingError
from kerve.runtime.observation.interceptor import STREAM
from kerve.runtime.observation.observer import CallObservation, Observer, current
from kerve.runtime.protocol import oip, oip_shared
from kerve.runtime.sequences.lanes import Lanes
from kerve.runtime.servicers.concurrency import ConcurrencyLimit
from kerve.runtime.servicers.edge import abort, answers_errors
from kerve.runtime.transport.base import ColdPath, ServedModel
from kerve.runtime.transport.local_queue import LocalQueue, Request
from kerve.runtime.transport.rates import RateLimiter

__all__ = ["InFlight", "InferServicer", "deadline"]

# Requests of one stream that may be in flight; further ones are not read from the client.
WINDOW = 64


class InFlight:
    """Counts the calls in progress."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self, context: grpc.ServicerContext) -> None:
        """Count a call until its response is sent."""
        with self._changed:
            self._count += 1
        if not context.add_callback(self._end):  # the call has already ended
            self._end()

    def wait_until_idle(self, timeout: float | None) -> bool:
        """Wait until the response of every call is sent; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)

    def _end(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()


@dataclass(frozen=True)
class Pending:
    """A request that waits in its queue, with what is needed for its response."""

    message: pb.ModelInferRequest
    served: ServedModel
    work: Request
    observation: CallObservation | None

    def answer(self) -> pb.ModelInferResponse:
        """Wait, and encode the response."""
        return oip.encode_response(self.message, self.served.version, self.served.signature, self.work.wait())


@dataclass(frozen=True)
class ColdRequest:
    """A request on the cold path, and the function that answers it."""

    message: pb.ModelInferRequest
    work: Callable[[], pb.ModelInferResponse]
    observation: CallObservation | None

    def answer(self) -> pb.ModelInferResponse:
        """Compute and return the response."""
        return self.work()

    def begin(self, lanes: Lanes) -> "ColdRequest":
        """Start computing it in a thread; return a request that waits for the result."""
        sequence = self.message.parameters.get("sequence_id")
        lane = None if sequence is None else oip.parameter_value(sequence)
        return replace(self, work=lanes.begin(lane, self.work).result)


class InferServicer:
    """Decodes a request, puts it into the queue of its model version, waits, encodes the response."""

    def __init__(
        self,
        route: Callable[[str, str], LocalQueue],
        in_flight: InFlight,
        observer: Observer,
        rate_limiter: RateLimiter,
        cold_limit: ConcurrencyLimit,
    ) -> None:
        self._route = route
        self._cold_limit = cold_limit
        self._in_flight = in_flight
        self._observer = observer
        self._rate_limiter = rate_limiter
        # The cold path; without it tensors in shared memory are refused.
        self.cold: ColdPath | None = None

    def ModelInfer(  # noqa: N802  the protocol's name
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Compute the requested outputs of a model."""
        self._in_flight.add(context)
        return self._infer(request, context)

    @answers_errors
    def _infer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        return self._begin(request, context, current()).answer()

    def ModelStreamInfer(  # noqa: N802  the protocol's name
        self, requests: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        """Answer requests in their order; errors are sent as messages of the stream.

        With the metadata `triton_grpc_error: true`, the first error ends the stream with its status.
        """
        self._in_flight.add(context)
        strict = ("triton_grpc_error", "true") in map(tuple, context.invocation_metadata())
        pending: queue.SimpleQueue[Pending | ColdRequest | tuple[str, ServingError] | ServingError | None]
        pending = queue.SimpleQueue()
        window, over = threading.Semaphore(WINDOW), threading.Event()
        lanes = Lanes(WINDOW, "stream")

        def end() -> None:
            over.set()
            window.release()  # `read` may wait for it, and no response will release it any more

        def read() -> None:
            try:
                for request in requests:
                    window.acquire()
                    if over.is_set():
                        return
                    observation = self._observer.begin(STREAM, peer_of(context), metadata_of(context))
                    try:
                        work = self._begin(request, context, observation, wait=True)
                        pending.put(work.begin(lanes) if isinstance(work, ColdRequest) else work)
                    except ServingError as error:
                        pending.put((request.id, error))
                        self._end(observation, error.code)
            except ServingError as error:  # the token was revoked; see `AuthorityInterceptor`
                pending.put(error)
            except grpc.RpcError:  # the client disconnected: nobody waits for the responses
                pass
            finally:
                pending.put(None)
                lanes.close()

        if not context.add_callback(end):  # the call has already ended
            end()
        threading.Thread(target=read, name="stream", daemon=True).start()
        while (item := pending.get()) is not None:
            window.release()
            if isinstance(item, ServingError):
                abort(context, item)
            try:
                if isinstance(item, tuple):
                    raise item[1]
                answer = oip.stream_response(item.answer())
                self._end(item.observation, Code.OK)
                yield answer
            except ServingError as error:
                if not isinstance(item, tuple):
                    self._end(item.observation, error.code)
                if strict:
                    abort(context, error)
                identity = item[0] if isinstance(item, tuple) else item.message.id
                yield oip.stream_error(str(error), identity)

    def _end(self, observation: CallObservation | None, code: Code) -> None:
        if observation is not None and not observation.delegated:
            self._observer.end(observation, code)

    def _begin(
        self,
        message: pb.ModelInferRequest,
        context: grpc.ServicerContext,
        observation: CallObservation | None,
        *,
        wait: bool = False,
    ) -> Pending | ColdRequest:
        """Check the client's rate limit, and put the request into its queue or prepare it for the cold path.

        `wait`: wait for a permit of the cold path instead of refusing the request.
        """
        self._rate_limiter.check(context)
        if observation is not None:
            observation.set_request(message)
        waiting = self._route(message.model_name, message.model_version)
        cold = None if is_forwarded(context) else self.cold
        if cold is not None and (waiting.served.cold or oip_shared.regions_of(message)):
            limit_options = {"wait": wait, "triton_codes": waiting.served.batching.triton_codes}
            return ColdRequest(
                message,
                partial(self._run_cold, cold, message, context, observation, limit_options),
                observation,
            )
        decoded = oip.decode_request(message, waiting.served.signature)
        work = Request(
            decoded.inputs,
            rows=decoded.rows,
            requested=decoded.requested,
            deadline=deadline(context.time_remaining()),
            parameters=decoded.parameters,
            request_id=observation.request_id if observation is not None else message.id,
            observation=observation,
        )
        if observation is not None:
            observation.version, observation.rows = str(waiting.served.version), decoded.rows
        context.add_callback(work.abandon)
        waiting.put(work, priority=decoded.priority, timeout=decoded.timeout)
        return Pending(message, waiting.served, work, observation)

    def _run_cold(
        self,
        cold: ColdPath,
        message: pb.ModelInferRequest,
        context: grpc.ServicerContext,
        observation: CallObservation | None,
        limit_options: Mapping[str, bool],
    ) -> pb.ModelInferResponse:
        """Answer a request on the cold path, subject to its concurrency limit."""
        self._cold_limit.acquire(**limit_options)
        try:
            with self._observer.serving(observation):
                response: pb.ModelInferResponse = cold.answer(message, context)
                return response
        finally:
            self._cold_limit.release()


def deadline(seconds: float | None) -> float | None:
    """Convert a remaining time to a `time.monotonic()` deadline; None if there is no limit."""
    # A call without a deadline has 292 years remaining in grpcio, more than a lock can wait.
    return None if seconds is None or seconds >= threading.TIMEOUT_MAX else time.monotonic() + seconds
