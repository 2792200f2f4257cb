"""tensorflow.serving.PredictionService/Predict in Python, for transports without a native one."""

from collections.abc import Callable

import grpc

from kerve.runtime.observation.notes import current
from kerve.runtime.protocol import tfs
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.servicers.infer import InFlight, deadline
from kerve.runtime.transport.local_queue import LocalQueue, Request
from kerve.runtime.transport.rates import Rates
from kerve.tensorflow_serving.apis import predict_pb2

__all__ = ["PredictServicer"]


class PredictServicer:
    """Decodes a request, puts it into the queue of its model version, waits, encodes the answer."""

    def __init__(self, route: Callable[[str, str], LocalQueue], in_flight: InFlight, rates: Rates) -> None:
        self._route = route
        self._rates = rates
        self._in_flight = in_flight

    @answers_errors
    def Predict(  # noqa: N802  the protocol's name
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Compute the requested outputs of a model."""
        self._in_flight.add(context)
        self._rates.check(context)
        note = current()
        waiting = self._route(*tfs.route_of(request.model_spec))
        served = waiting.served
        asked = tfs.decode_predict(request, served.signature)
        work = Request(
            asked.inputs,
            rows=asked.rows,
            requested=asked.requested,
            deadline=deadline(context.time_remaining()),
            parameters=asked.parameters,
            note=note,
        )
        if note is not None:
            note.version, note.rows = str(served.version), asked.rows
        context.add_callback(work.abandon)
        waiting.put(work)
        return tfs.encode_predict(request, served.version, served.signature, work.wait())
