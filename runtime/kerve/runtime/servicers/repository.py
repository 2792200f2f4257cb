"""inference.GRPCInferenceService: the index of the repositories, loading and unloading."""

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.protocol import oip_models
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["RepositoryServicer"]


class RepositoryServicer:
    """Repository methods in Triton's and KServe's variants, implemented by the manager."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    @answers_errors
    def RepositoryIndex(  # noqa: N802  the protocol's name
        self, request: pb.RepositoryIndexRequest, _: grpc.ServicerContext
    ) -> pb.RepositoryIndexResponse:
        """List every version of every model, with its state and the reason if it is not ready."""
        oip_models.check_repository(request.repository_name)
        return oip_models.repository_index(self._manager.index(), ready=request.ready)

    @answers_errors
    def RepositoryModelLoad(  # noqa: N802  the protocol's name
        self, request: pb.RepositoryModelLoadRequest, _: grpc.ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        """Load or reload a model; returns when it is ready."""
        name, config, files = oip_models.decode_load(request)
        check_name(name)
        self._manager.load(name, config=config, files=files)
        return oip_models.loaded(name)

    @answers_errors
    def RepositoryModelUnload(  # noqa: N802  the protocol's name
        self, request: pb.RepositoryModelUnloadRequest, _: grpc.ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model; returns immediately, while accepted requests are finished."""
        name, dependents = oip_models.decode_unload(request)
        check_name(name)
        self._manager.unload(name, dependents=dependents)
        return oip_models.unloaded(name)


def check_name(name: str) -> None:
    """Raise InvalidArgumentError if a request names no model."""
    if not name:
        raise InvalidArgumentError("expected model_name, got none")
