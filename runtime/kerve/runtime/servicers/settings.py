"""inference.GRPCInferenceService: LogSettings, and TraceSetting."""

from collections.abc import Callable

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.errors import InvalidArgumentError, UnimplementedError
from kerve.runtime.logs import LogControl
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["SettingsServicer"]

# What Triton calls its trace settings, as they are while nothing is traced.
TRACE = {
    "trace_level": ["OFF"],
    "trace_rate": ["1000"],
    "trace_count": ["-1"],
    "log_frequency": ["0"],
    "trace_file": [""],
    "trace_mode": ["triton"],
}


class SettingsServicer:
    """Reads and changes settings of the running server."""

    def __init__(self, logs: LogControl, check_model: Callable[[str, str], object]) -> None:
        self._logs = logs
        self._check_model = check_model

    @answers_errors
    def TraceSetting(  # noqa: N802  the protocol's name
        self, request: pb.TraceSettingRequest, _: grpc.ServicerContext
    ) -> pb.TraceSettingResponse:
        """The trace settings; this server writes no trace files, and says so when it is asked to."""
        if request.model_name:
            self._check_model(request.model_name, "")
        for key, setting in request.settings.items():
            if key not in TRACE:
                raise InvalidArgumentError(
                    f"unknown trace setting {key!r}; expected one of {', '.join(TRACE)}"
                )
            if setting.value and list(setting.value) != TRACE[key]:
                raise UnimplementedError(
                    f"trace setting {key!r}: this server writes no traces of this kind; "
                    "its histograms are at /metrics on the HTTP port"
                )
        response = pb.TraceSettingResponse()
        for key, values in TRACE.items():
            response.settings[key].value.extend(values)
        return response

    @answers_errors
    def LogSettings(  # noqa: N802  the protocol's name
        self, request: pb.LogSettingsRequest, _: grpc.ServicerContext
    ) -> pb.LogSettingsResponse:
        """What is logged, and how; all of the changes are made, or none."""
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
