"""inference.GRPCInferenceService: liveness, readiness, metadata, configuration."""

from collections.abc import Callable

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.catalog import Catalog
from kerve.runtime.devices.shared import is_supported
from kerve.runtime.errors import NotFoundError, UnavailableError
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.protocol import oip, oip_models
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["OipServicer"]


class OipServicer:
    """Answers from the catalog of loaded models."""

    def __init__(
        self,
        catalog: Catalog[ServedVersion],
        *,
        devices: str,
        ready: Callable[[], bool],
        accepting: Callable[[], bool],
    ) -> None:
        self._catalog = catalog
        self._devices = devices
        self._ready = ready
        # Whether inference is accepted: False during shutdown.
        self._accepting = accepting

    @answers_errors
    def ServerLive(self, _: pb.ServerLiveRequest, __: grpc.ServicerContext) -> pb.ServerLiveResponse:  # noqa: N802  the protocol's name
        """Report that the process answers."""
        return oip.server_live(live=True)

    @answers_errors
    def ServerReady(self, _: pb.ServerReadyRequest, __: grpc.ServicerContext) -> pb.ServerReadyResponse:  # noqa: N802  the protocol's name
        """Report whether models are loaded and the server is not shutting down."""
        return oip.server_ready(ready=self._ready())

    @answers_errors
    def ModelReady(self, request: pb.ModelReadyRequest, _: grpc.ServicerContext) -> pb.ModelReadyResponse:  # noqa: N802  the protocol's name
        """Report whether the model is ready; false, as in Triton, for an unknown model."""
        try:
            self._catalog.find(request.name, request.version)
        except (NotFoundError, UnavailableError):
            return oip.model_ready(ready=False)
        return oip.model_ready(ready=self._accepting())

    @answers_errors
    def ServerMetadata(  # noqa: N802  the protocol's name
        self, _: pb.ServerMetadataRequest, __: grpc.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Return the name and version of the server, its extensions and its devices."""
        from importlib.metadata import version  # slow to import; not needed at startup

        return oip.server_metadata(
            "kerve", version("kerve"), self._devices, cuda_shared_memory=is_supported()
        )

    @answers_errors
    def ModelMetadata(  # noqa: N802  the protocol's name
        self, request: pb.ModelMetadataRequest, _: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Return the inputs and outputs of a model."""
        served = self._catalog.find(request.name, request.version)
        return oip.model_metadata(
            request.name,
            [served.version] if request.version else self._catalog.versions(request.name),
            served.signature,
            platform=served.config.platform,
        )

    @answers_errors
    def ModelConfig(  # noqa: N802  the protocol's name
        self, request: pb.ModelConfigRequest, _: grpc.ServicerContext
    ) -> pb.ModelConfigResponse:
        """Return a model's configuration, completed with the defaults in effect."""
        return oip_models.model_config(self._catalog.find(request.name, request.version).config)
