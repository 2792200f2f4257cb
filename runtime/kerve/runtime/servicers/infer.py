"""inference.GRPCInferenceService/ModelInfer and ModelStreamInfer in Python, for transports without native
ones.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.callers import is_served_already, metadata_of, peer_of
from kerve.runtime.errors import Code, ServingError
from kerve.runtime.observation.interceptor import STREAM
from kerve.runtime.observation.notes import Note, Observer, current
from kerve.runtime.protocol import oip, oip_shared
from kerve.runtime.sequences.lanes import Lanes
from kerve.runtime.servicers.cold_calls import Room
from kerve.runtime.servicers.edge import abort, answers_errors
from kerve.runtime.transport.base import Cold, ServedModel
from kerve.runtime.transport.local_queue import LocalQueue, Request
from kerve.runtime.transport.rates import Rates

__all__ = ["InFlight", "InferServicer", "deadline"]

# Requests of one stream that may be under way; more are left with the client.
WINDOW = 64


class InFlight:
    """Counts the calls that have not ended."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def add(self, context: grpc.ServicerContext) -> None:
        """Count a call until its answer is sent."""
        with self._changed:
            self._count += 1
        if not context.add_callback(self._end):  # the call is over already
            self._end()

    def wait_until_idle(self, timeout: float | None) -> bool:
        """Wait until every call has been answered and its answer sent; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)

    def _end(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()


@dataclass(frozen=True)
class Pending:
    """A request that waits in its queue, and what its answer is made of."""

    message: pb.ModelInferRequest
    served: ServedModel
    work: Request
    note: Note | None

    def answer(self) -> pb.ModelInferResponse:
        """Wait, and encode the answer."""
        return oip.encode_response(self.message, self.served.version, self.served.signature, self.work.wait())


@dataclass(frozen=True)
class Handed:
    """A request that a queue cannot answer, and what does."""

    message: pb.ModelInferRequest
    work: Callable[[], pb.ModelInferResponse]
    note: Note | None

    def answer(self) -> pb.ModelInferResponse:
        """Compute the answer, and return it."""
        return self.work()

    def begin(self, lanes: Lanes) -> "Handed":
        """Compute it meanwhile; return what waits for it."""
        sequence = self.message.parameters.get("sequence_id")
        lane = None if sequence is None else oip.parameter_value(sequence)
        return replace(self, work=lanes.begin(lane, self.work).result)


class InferServicer:
    """Decodes a request, puts it into the queue of its model version, waits, encodes the answer."""

    def __init__(
        self,
        route: Callable[[str, str], LocalQueue],
        in_flight: InFlight,
        observer: Observer,
        rates: Rates,
        room: Room,
    ) -> None:
        self._route = route
        self._room = room
        self._in_flight = in_flight
        self._observer = observer
        self._rates = rates
        # What answers where a queue cannot; tensors in shared memory are refused without it.
        self.cold: Cold | None = None

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
        """Answer requests as they come, in their order; an error is a message of the stream.

        With the metadata `triton_grpc_error: true` the first error ends the stream with its status.
        """
        self._in_flight.add(context)
        strict = ("triton_grpc_error", "true") in map(tuple, context.invocation_metadata())
        begun: queue.SimpleQueue[Pending | Handed | tuple[str, ServingError] | ServingError | None]
        begun = queue.SimpleQueue()
        room, over = threading.Semaphore(WINDOW), threading.Event()
        lanes = Lanes(WINDOW, "stream")

        def end() -> None:
            over.set()
            room.release()  # whoever reads may wait for it, and nobody answers any more

        def read() -> None:
            try:
                for request in requests:
                    room.acquire()
                    if over.is_set():
                        return
                    note = self._observer.begin(STREAM, peer_of(context), metadata_of(context))
                    try:
                        work = self._begin(request, context, note, wait=True)
                        begun.put(work.begin(lanes) if isinstance(work, Handed) else work)
                    except ServingError as error:
                        begun.put((request.id, error))
                        self._end(note, error.code)
            except ServingError as error:  # it may ask no more
                begun.put(error)
            except grpc.RpcError:  # the client is gone, and so is everybody who would wait for answers
                pass
            finally:
                begun.put(None)
                lanes.close()

        if not context.add_callback(end):  # the call is over already
            end()
        threading.Thread(target=read, name="stream", daemon=True).start()
        while (item := begun.get()) is not None:
            room.release()
            if isinstance(item, ServingError):
                abort(context, item)
            try:
                if isinstance(item, tuple):
                    raise item[1]
                answer = oip.stream_response(item.answer())
                self._end(item.note, Code.OK)
                yield answer
            except ServingError as error:
                if not isinstance(item, tuple):
                    self._end(item.note, error.code)
                if strict:
                    abort(context, error)
                identity = item[0] if isinstance(item, tuple) else item.message.id
                yield oip.stream_error(str(error), identity)

    def _end(self, note: Note | None, code: Code) -> None:
        if note is not None and not note.passed_on:
            self._observer.end(note, code)

    def _begin(
        self,
        message: pb.ModelInferRequest,
        context: grpc.ServicerContext,
        note: Note | None,
        *,
        wait: bool = False,
    ) -> Pending | Handed:
        """Count a request of its client, and put it into its queue, unless a queue cannot answer it.

        `wait`: for room for those, instead of refusing the request.
        """
        self._rates.check(context)
        if note is not None:
            note.asks(message)
        waiting = self._route(message.model_name, message.model_version)
        cold = None if is_served_already(context) else self.cold
        if cold is not None and (waiting.served.cold or oip_shared.regions_of(message)):
            room = {"wait": wait, "triton_codes": waiting.served.batching.triton_codes}
            return Handed(message, partial(self._hand_over, cold, message, context, note, room), note)
        asked = oip.decode_request(message, waiting.served.signature)
        work = Request(
            asked.inputs,
            rows=asked.rows,
            requested=asked.requested,
            deadline=deadline(context.time_remaining()),
            parameters=asked.parameters,
            request_id=note.request_id if note is not None else message.id,
            note=note,
        )
        if note is not None:
            note.version, note.rows = str(waiting.served.version), asked.rows
        context.add_callback(work.abandon)
        waiting.put(work, priority=asked.priority, timeout=asked.timeout)
        return Pending(message, waiting.served, work, note)

    def _hand_over(
        self,
        cold: Cold,
        message: pb.ModelInferRequest,
        context: grpc.ServicerContext,
        note: Note | None,
        room: Mapping[str, bool],
    ) -> pb.ModelInferResponse:
        """Have a request answered where a queue cannot."""
        self._room.enter(**room)
        try:
            with self._observer.serving(note):
                response: pb.ModelInferResponse = cold.answer(message, context)
                return response
        finally:
            self._room.leave()


def deadline(seconds: float | None) -> float | None:
    """Return a time from now as a time of `time.monotonic()`; None when there is none."""
    # A call without a deadline has 292 years left in grpcio, more than a lock can wait.
    return None if seconds is None or seconds >= threading.TIMEOUT_MAX else time.monotonic() + seconds
