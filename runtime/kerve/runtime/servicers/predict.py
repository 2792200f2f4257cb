"""tensorflow.serving.PredictionService/Predict in Python, for the grpcio transport."""

from collections.abc import Callable

import grpc

from kerve.runtime.observation.observer import current
from kerve.runtime.protocol import tfs
from kerve.runtime.servicers.concurrency import ConcurrencyLimit
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.servicers.infer import InFlight, deadline
from kerve.runtime.transport.local_queue import LocalQueue, Request
from kerve.runtime.transport.rates import RateLimiter
from kerve.tensorflow_serving.apis import predict_pb2

__all__ = ["PredictServicer"]


class PredictServicer:
    """Decodes a request, puts it into the queue of its model version, waits, encodes the response."""

    def __init__(
        self,
        route: Callable[[str, str], LocalQueue],
        in_flight: InFlight,
        rate_limiter: RateLimiter,
        cold_limit: ConcurrencyLimit,
    ) -> None:
        self._route = route
        self._cold_limit = cold_limit
        self._rate_limiter = rate_limiter
        self._in_flight = in_flight
        # The cold path's Predict.
        self.cold: Callable[..., predict_pb2.PredictResponse] | None = None

    def Predict(  # noqa: N802  the protocol's name
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Compute the requested outputs of a model."""
        self._in_flight.add(context)
        if self._is_cold(request, context):
            assert self.cold is not None
            try:
                return self.cold(request, context)
            finally:
                self._cold_limit.release()
        return self._predict(request, context)

    @answers_errors
    def _is_cold(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> bool:
        """Check the client's rate limit; return whether the request takes the cold path.

        If so, a permit of the cold path has been acquired.
        """
        self._rate_limiter.check(context)
        served = self._route(*tfs.route_of(request.model_spec)).served
        if self.cold is None or not served.cold:
            return False
        self._cold_limit.acquire(triton_codes=served.batching.triton_codes)
        return True

    @answers_errors
    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        observation = current()
        waiting = self._route(*tfs.route_of(request.model_spec))
        served = waiting.served
        decoded = tfs.decode_predict(request, served.signature)
        work = Request(
            decoded.inputs,
            rows=decoded.rows,
            requested=decoded.requested,
            deadline=deadline(context.time_remaining()),
            parameters=decoded.parameters,
            observation=observation,
        )
        if observation is not None:
            observation.version, observation.rows = str(served.version), decoded.rows
        context.add_callback(work.abandon)
        waiting.put(work)
        return tfs.encode_predict(request, served.version, served.signature, work.wait())
