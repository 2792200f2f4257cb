"""The cold path of ModelInfer and TensorFlow Serving's Predict, for what the queues do not support.

tensors in shared memory -> state of a sequence, or response cache -> forwarded to the server itself, like
any other request
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.cache_lookup import CacheLookup
from kerve.runtime.callers import Caller
from kerve.runtime.catalog import Catalog
from kerve.runtime.gateway import Gateway, within
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.observation.observer import current
from kerve.runtime.protocol import oip_client, oip_shared, tfs
from kerve.runtime.protocol.oip_sequences import SequenceRequest, place_in_sequence
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.shared_memory import Regions, RegionSlice
from kerve.tensorflow_serving.apis import predict_pb2

__all__ = ["ColdInferServicer"]


class ColdInferServicer:
    """Reads a request's inputs from shared memory, answers it from the cache or forwards it to the server
    itself, and writes its outputs to shared memory where requested.
    """

    def __init__(
        self,
        regions: Regions,
        gateway: Gateway,
        catalog: Catalog[ServedVersion],
        accepting: Callable[[], bool],
    ) -> None:
        self._regions = regions
        self._gateway = gateway
        self._catalog = catalog
        # Whether requests are accepted: False during shutdown.
        self._accepting = accepting

    @answers_errors
    def ModelInfer(  # noqa: N802  the protocol's name
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Answer a call."""
        return self.answer(request, context)

    def answer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        """Compute outputs or find them in the cache; inputs and outputs may be in shared memory.

        Raises ServingError.
        """
        served = self._catalog.find(request.model_name, request.model_version)
        if not (names := oip_shared.regions_of(request)):
            return self._answer(request, served, {}, context)
        with self._regions.hold(names):
            whole, places = oip_shared.expand(request, self._regions)
            return self._answer(whole, served, places, context)

    @answers_errors
    def Predict(  # noqa: N802  the protocol's name
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Compute outputs or find them in the cache, which both protocols share."""

        def predict(served: ServedVersion) -> predict_pb2.PredictResponse:
            decoded = tfs.decode_predict(request, served.signature)
            whole = oip_client.encode_request(
                *(served.name, str(served.version), served.signature),
                {
                    spec.name: decoded.inputs[spec.name]
                    for spec in served.signature.inputs
                    if spec.name in decoded.inputs
                },
                outputs=list(request.output_filter),
                parameters=None,
            )
            outputs = oip_client.decode_response(self._answer(whole, served, {}, context))
            return tfs.encode_predict(request, served.version, served.signature, outputs)

        return self._catalog.ask(*tfs.route_of(request.model_spec), predict)

    def _answer(
        self,
        request: pb.ModelInferRequest,
        served: ServedVersion,
        places: Mapping[str, RegionSlice],
        context: grpc.ServicerContext,
    ) -> pb.ModelInferResponse:
        """Answer a request that contains its inputs; `places`: the outputs that go to shared memory."""
        position = place_in_sequence(request, served.plan)
        if position is not None:
            host = served.host_of(position, request.model_version)
            return self._in_sequence(request, places, host, position, context)
        if served.cache is not None and self._accepting():
            response = self._cached(request, served, context)
        else:
            response = self._compute(request, context)
        oip_shared.place(response, places, self._regions)
        return response

    def _in_sequence(
        self,
        request: pb.ModelInferRequest,
        places: Mapping[str, RegionSlice],
        host: ServedVersion,
        position: SequencePosition,
        context: grpc.ServicerContext,
    ) -> pb.ModelInferResponse:
        assert host.plan is not None
        assert host.sequences is not None
        assert host.model is not None
        own = SequenceRequest(request, position, host.plan, host.model.signature)
        timeout = within(context.time_remaining())
        with host.sequences.turn(position, own.begin, timeout, context.add_callback) as turn:
            response = self._compute(own.encode(turn.states, host.route), context)
            states = own.take(response)
            oip_shared.place(response, places, self._regions)
            turn.states = states
        return response

    def _cached(
        self, request: pb.ModelInferRequest, served: ServedVersion, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        assert served.cache is not None
        lookup = CacheLookup(served.cache, served.statistics, request)
        if (response := lookup.found) is None:
            response = self._compute(request, context)
            # Requests without a version may now be answered by another version.
            if response.model_version == str(served.version):
                lookup.keep(response)
            return response
        response.id = request.id
        if (observation := current()) is not None:
            observation.version = str(served.version)
        return response

    def _compute(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        caller = replace(Caller.of(context), forwarded=True)
        response: pb.ModelInferResponse = self._gateway.call(
            "ModelInfer", request, caller, timeout=context.time_remaining()
        )
        return response
