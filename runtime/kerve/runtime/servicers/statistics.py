"""inference.GRPCInferenceService/ModelStatistics."""

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.protocol import oip_models
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["StatisticsServicer"]


class StatisticsServicer:
    """Combines the statistics of the versions' executors and queues since they were loaded."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    @answers_errors
    def ModelStatistics(  # noqa: N802  the protocol's name
        self, request: pb.ModelStatisticsRequest, _: grpc.ServicerContext
    ) -> pb.ModelStatisticsResponse:
        """Return the statistics of one version, of all versions of a model, or of all models."""
        response = pb.ModelStatisticsResponse()
        for served in self._manager.served(request.name, request.version):
            # The queue first: its requests must not lack computations that finish meanwhile.
            queued, computed = served.queue.statistics(), served.statistics.read()
            oip_models.add_statistics(response, served.name, served.version, computed, queued)
        return response
