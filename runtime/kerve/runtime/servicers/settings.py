"""inference.GRPCInferenceService: LogSettings and TraceSetting."""

from collections.abc import Callable

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.logs import LogControl
from kerve.runtime.observation.export import ExporterPipeline
from kerve.runtime.observation.settings import TraceSettings
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["SettingsServicer"]


class SettingsServicer:
    """Reads and changes settings of the running server."""

    def __init__(
        self,
        logs: LogControl,
        traces: TraceSettings,
        observatory: ExporterPipeline,
        check_model: Callable[[str, str], object],
    ) -> None:
        self._logs = logs
        self._traces = traces
        self._observatory = observatory
        self._check_model = check_model

    @answers_errors
    def TraceSetting(  # noqa: N802  the protocol's name
        self, request: pb.TraceSettingRequest, _: grpc.ServicerContext
    ) -> pb.TraceSettingResponse:
        """Read and change the trace settings of a model or of all; either all changes apply or none."""
        if request.model_name:
            self._check_model(request.model_name, "")
        changes = {key: list(setting.value) for key, setting in request.settings.items()}
        found = None
        if changes:
            # Requests that ended before this one are counted under the previous settings.
            self._observatory.flush()
            found = self._traces.change(request.model_name, changes)
            self._observatory.refresh()
        response = pb.TraceSettingResponse()
        for key, values in (found or self._traces.read(request.model_name)).items():
            response.settings[key].value.extend(values)
        return response

    @answers_errors
    def LogSettings(  # noqa: N802  the protocol's name
        self, request: pb.LogSettingsRequest, _: grpc.ServicerContext
    ) -> pb.LogSettingsResponse:
        """Read and change the log settings; either all changes apply or none."""
        changes = {}
        for key, setting in request.settings.items():
            choice = setting.WhichOneof("parameter_choice")
            changes[key] = None if choice is None else getattr(setting, choice)
        response = pb.LogSettingsResponse()
        for key, value in self._logs.change(changes).items():
            target = response.settings[key]
            if isinstance(value, bool):
                target.bool_param = value
            elif isinstance(value, int):
                target.uint32_param = value
            else:
                target.string_param = value
        return response
