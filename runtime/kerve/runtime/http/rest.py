"""OIP REST and Triton's extensions of it, implemented by the corresponding gRPC methods."""

import base64
from typing import Any

from google.protobuf.message import Message

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.callers import Caller
from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import InvalidArgumentError, UnavailableError
from kerve.runtime.gateway import Gateway
from kerve.runtime.http import infer, raw
from kerve.runtime.http.wsgi import Request, Response, Route, json_response
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.protocol.json_tensors import from_base64
from kerve.runtime.security.permissions import Permission

__all__ = ["Rest"]

MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
REGION = r"(?:/region/(?P<region>[^/]+))?"
SYSTEM, CUDA = f"/v2/systemsharedmemory{REGION}", f"/v2/cudasharedmemory{REGION}"
TRACING = r"(?:/v2/models/(?P<name>[^/]+)|/v2)/trace/setting"


class Rest:
    """Answers REST by calling the gRPC services with the caller's authorization."""

    def __init__(self, catalog: Catalog[ServedVersion], gateway: Gateway) -> None:
        self._catalog = catalog
        self._gateway = gateway

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            Route("GET", "/v2/health/live", self.live),
            Route("GET", "/v2/health/ready", self.ready),
            Route("GET", "/v2/?", self.server),
            Route("GET", "/v2/models/stats", self.statistics),
            Route("GET", MODEL + "/ready", self.model_ready),
            Route("GET", MODEL + "/config", self.config),
            Route("GET", MODEL + "/stats", self.statistics),
            Route("GET", MODEL + "/?", self.model),
            # The gRPC services check permissions too, but only after the body is decoded.
            Route("POST", MODEL + "/infer", self.infer, Permission.INFER),
            Route("POST", "/v2/repository/index", self.index, Permission.READ),
            Route("POST", "/v2/repository/models/(?P<name>[^/]+)/load", self.load, Permission.CONTROL),
            Route("POST", "/v2/repository/models/(?P<name>[^/]+)/unload", self.unload, Permission.CONTROL),
            Route("GET", "/v2/logging", self.logging),
            Route("POST", "/v2/logging", self.logging, Permission.CONTROL),
            Route("GET", TRACING, self.tracing),
            Route("POST", TRACING, self.tracing, Permission.CONTROL),
            Route("GET", SYSTEM + "/status", self.system_status),
            Route("POST", SYSTEM + "/register", self.system_register, Permission.INFER),
            Route("POST", SYSTEM + "/unregister", self.system_unregister, Permission.INFER),
            Route("GET", CUDA + "/status", self.cuda_status),
            Route("POST", CUDA + "/register", self.cuda_register, Permission.INFER),
            Route("POST", CUDA + "/unregister", self.cuda_unregister, Permission.INFER),
        ]

    def live(self, request: Request) -> Response:
        """Report that the process answers."""
        return yes_or_no("live", self._ask("ServerLive", pb.ServerLiveRequest(), request).live)

    def ready(self, request: Request) -> Response:
        """Report whether the server is ready."""
        return yes_or_no("ready", self._ask("ServerReady", pb.ServerReadyRequest(), request).ready)

    def model_ready(self, request: Request, name: str, version: str) -> Response:
        """Report whether the model is ready."""
        message = pb.ModelReadyRequest(name=name, version=version)
        return yes_or_no("ready", self._ask("ModelReady", message, request).ready, name=name)

    def server(self, request: Request) -> Response:
        """Return the name, version and extensions of the server."""
        return json_response(plain(self._ask("ServerMetadata", pb.ServerMetadataRequest(), request)))

    def model(self, request: Request, name: str, version: str) -> Response:
        """Return the inputs and outputs of a model."""
        message = pb.ModelMetadataRequest(name=name, version=version)
        return json_response(plain(self._ask("ModelMetadata", message, request)))

    def config(self, request: Request, name: str, version: str) -> Response:
        """Return the configuration of a model."""
        message = pb.ModelConfigRequest(name=name, version=version)
        return json_response(plain(self._ask("ModelConfig", message, request).config))

    def statistics(self, request: Request, name: str = "", version: str = "") -> Response:
        """Return the statistics of one model or of all."""
        message = pb.ModelStatisticsRequest(name=name, version=version)
        return json_response(plain(self._ask("ModelStatistics", message, request)))

    def infer(self, request: Request, name: str, version: str) -> Response:
        """Compute outputs."""
        if raw.is_raw(request):
            signature = self._catalog.find(name, version).signature
            message, binary = raw.decode(request, signature, name, version), {"": True}
        else:
            message, binary = infer.decode(request, name, version)
        return infer.encode(self._ask("ModelInfer", message, request), binary)

    def index(self, request: Request) -> Response:
        """Return the state of every version."""
        message = pb.RepositoryIndexRequest()
        fill(message, request.json(), "ready")
        return json_response(plain(self._ask("RepositoryIndex", message, request))["models"])

    def load(self, request: Request, name: str) -> Response:
        """Load a model; files are in base64."""
        message = pb.RepositoryModelLoadRequest(model_name=name)
        for key, value in parameters(request).items():
            if key.startswith("file:"):
                message.parameters[key].bytes_param = from_base64(key, str(value))
            else:
                message.parameters[key].string_param = str(value)
        self._ask("RepositoryModelLoad", message, request)
        return json_response({})

    def unload(self, request: Request, name: str) -> Response:
        """Unload a model."""
        message = pb.RepositoryModelUnloadRequest(model_name=name)
        dependents = parameters(request).get("unload_dependents", False)
        put(message.parameters["unload_dependents"], "bool_param", dependents, "unload_dependents")
        self._ask("RepositoryModelUnload", message, request)
        return json_response({})

    def logging(self, request: Request) -> Response:
        """Read and change the log settings."""
        message = pb.LogSettingsRequest()
        fields = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        for key, value in request.json().items():
            if type(value) not in fields:
                raise InvalidArgumentError(
                    f"log setting {key!r}: expected a string, number or boolean, got {value!r}"
                )
            put(message.settings[key], fields[type(value)], value, f"log setting {key!r}")
        settings = self._ask("LogSettings", message, request).settings
        return json_response({key: next(iter(plain(value).values())) for key, value in settings.items()})

    def tracing(self, request: Request, name: str) -> Response:
        """Read and change the trace settings."""
        message = pb.TraceSettingRequest(model_name=name)
        for key, value in request.json().items():
            values = [] if value is None else value if isinstance(value, list) else [value]
            message.settings[key].value.extend(str(each) for each in values)
        settings = self._ask("TraceSetting", message, request).settings
        shown = {key: list(each.value) for key, each in settings.items()}
        return json_response({key: each if key == "trace_level" else each[0] for key, each in shown.items()})

    def system_status(self, request: Request, region: str) -> Response:
        """Return the registered regions."""
        found = self._ask(
            "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name=region), request
        )
        return json_response([plain(each) for _, each in sorted(found.regions.items())])

    def system_register(self, request: Request, region: str) -> Response:
        """Register a region."""
        message = pb.SystemSharedMemoryRegisterRequest(name=region)
        fill(message, request.json(), "key", "offset", "byte_size")
        self._ask("SystemSharedMemoryRegister", message, request)
        return json_response({})

    def system_unregister(self, request: Request, region: str) -> Response:
        """Unregister a region, or all."""
        self._ask(
            "SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest(name=region), request
        )
        return json_response({})

    def cuda_status(self, request: Request, region: str) -> Response:
        """Return the registered regions of GPU memory."""
        found = self._ask("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest(name=region), request)
        return json_response([plain(each) for _, each in sorted(found.regions.items())])

    def cuda_register(self, request: Request, region: str) -> Response:
        """Register a region of GPU memory."""
        given = request.json()
        message = pb.CudaSharedMemoryRegisterRequest(name=region)
        handle = given.get("raw_handle")
        coded = handle.get("b64") if isinstance(handle, dict) else handle
        message.raw_handle = from_base64("raw_handle", str(coded))
        fill(message, given, "device_id", "byte_size")
        self._ask("CudaSharedMemoryRegister", message, request)
        return json_response({})

    def cuda_unregister(self, request: Request, region: str) -> Response:
        """Unregister a region of GPU memory, or all."""
        self._ask("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest(name=region), request)
        return json_response({})

    def _ask(self, method: str, message: Message, request: Request) -> Any:
        return self._gateway.call(method, message, Caller(request.peer, request.headers))


def yes_or_no(what: str, answer: bool, **more: str) -> Response:
    """Return the protocol's JSON for a positive answer, which KServe's client expects.

    Raises UnavailableError if the answer is negative.
    """
    if not answer:
        raise UnavailableError(f"not {what}")
    return json_response({**more, what: answer})


def parameters(request: Request) -> dict[str, Any]:
    """Return the `parameters` of a body."""
    found = request.json().get("parameters", {})
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"parameters: expected an object, got {found!r}")
    return found


def fill(message: Message, given: dict[str, Any], *fields: str) -> None:
    """Copy fields of a JSON object into a message."""
    for name in fields:
        put(message, name, given.get(name, getattr(message, name)), name)


def put(message: Message, field: str, value: Any, what: str) -> None:
    """Set a field to the value that a client sent as `what`; raises InvalidArgumentError if it is invalid."""
    try:
        setattr(message, field, value)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{what}: invalid value {value!r}: {error}") from error


def plain(message: Message) -> dict[str, Any]:
    """Return a message in Triton's JSON form: all fields by their own names, 64-bit integers as numbers."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            document[field.name] = {str(key): convert(inner, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            document[field.name] = [convert(field, each) for each in value]
        else:
            document[field.name] = convert(field, value)
    return document


def convert(field: Any, value: Any) -> Any:
    """Return one value of a field in JSON form."""
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
