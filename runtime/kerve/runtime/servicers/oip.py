"""inference.GRPCInferenceService without the call that carries tensors: liveness, readiness, descriptions."""

from collections.abc import Callable
from importlib.metadata import version

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import NotFoundError, UnavailableError
from kerve.runtime.model import Model
from kerve.runtime.protocol import oip
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["OipServicer"]


class OipServicer:
    """Answers from the catalog of what is loaded."""

    def __init__(self, catalog: Catalog[Model], *, ready: Callable[[], bool]) -> None:
        self._catalog = catalog
        self._ready = ready

    @answers_errors
    def ServerLive(self, _: pb.ServerLiveRequest, __: grpc.ServicerContext) -> pb.ServerLiveResponse:  # noqa: N802  the protocol's name
        """The process answers."""
        return oip.server_live(live=True)

    @answers_errors
    def ServerReady(self, _: pb.ServerReadyRequest, __: grpc.ServicerContext) -> pb.ServerReadyResponse:  # noqa: N802  the protocol's name
        """Everything that can be loaded is, and the server is not shutting down."""
        return oip.server_ready(ready=self._ready())

    @answers_errors
    def ModelReady(self, request: pb.ModelReadyRequest, _: grpc.ServicerContext) -> pb.ModelReadyResponse:  # noqa: N802  the protocol's name
        """The model would answer now; false, as in Triton, for one that is not served at all."""
        try:
            self._catalog.find(request.name, request.version)
        except (NotFoundError, UnavailableError):
            return oip.model_ready(ready=False)
        return oip.model_ready(ready=self._ready())

    @answers_errors
    def ServerMetadata(  # noqa: N802  the protocol's name
        self, _: pb.ServerMetadataRequest, __: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Name and version of the server."""
        return oip.server_metadata("kerve", version("kerve"))

    @answers_errors
    def ModelMetadata(  # noqa: N802  the protocol's name
        self, request: pb.ModelMetadataRequest, _: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        model = self._catalog.find(request.name, request.version)
        return oip.model_metadata(request.name, self._catalog.versions(request.name), model.signature)
