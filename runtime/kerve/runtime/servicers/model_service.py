"""tensorflow.serving.ModelService."""

import grpc

from kerve.runtime.catalog import show_route
from kerve.runtime.errors import NotFoundError, ServingError
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.lifecycle.states import Status
from kerve.runtime.protocol import tfs, tfs_config
from kerve.runtime.servicers.edge import answers_errors
from kerve.tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

__all__ = ["ModelServicer", "statuses_of"]


class ModelServicer:
    """Reports the states of versions, and applies a new list of models."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    @answers_errors
    def GetModelStatus(  # noqa: N802  the protocol's name
        self, request: get_model_status_pb2.GetModelStatusRequest, _: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the state of one version of a model, or of all."""
        return tfs.model_status(statuses_of(self._manager, *tfs.route_of(request.model_spec)))

    @answers_errors
    def HandleReloadConfigRequest(  # noqa: N802  the protocol's name
        self, request: model_management_pb2.ReloadConfigRequest, _: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serve exactly the models of a list; errors are reported in the response's status."""
        response = model_management_pb2.ReloadConfigResponse()
        wanted = tfs_config.decode_models(request)
        try:
            self._manager.replace(wanted)
        except ServingError as error:
            response.status.error_code = int(error.code)
            response.status.error_message = str(error)
        return response


def statuses_of(manager: ModelManager, name: str, route: str) -> list[Status]:
    """Return the state of a model's version, by number or label, or of all versions ("")."""
    wanted = str(manager.labels(name).get(route, route))
    found = [each for each in manager.statuses(name) if wanted in ("", str(each.version))]
    if not found:
        raise NotFoundError(f"model {name!r} has no {show_route(route) if route else 'versions'}")
    return found
