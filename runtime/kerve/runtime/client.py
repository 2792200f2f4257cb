"""The client for any server of the Open Inference Protocol; takes and returns NumPy arrays."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import ArrayLike

from kerve.cli.html import captioned, table
from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.channel import Channel
from kerve.runtime.datatypes import Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.evaluation.calls import EvaluationCalls
from kerve.runtime.protocol import oip_client
from kerve.runtime.protocol.oip import SERVICE
from kerve.runtime.signature import Signature, check_known, check_outputs, show_shape

__all__ = ["Client", "ModelInfo", "ModelState", "ModelStatistics"]

# A larger batch is split into several requests, of which at most this many are in flight at a time.
REQUEST_BYTES = 16 * 2**20
MAX_IN_FLIGHT = 4

Inputs = ArrayLike | Mapping[str, ArrayLike]
Parameters = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class ModelInfo:
    """A model's metadata, as reported by the server."""

    name: str
    versions: tuple[str, ...]
    platform: str
    signature: Signature

    def _repr_html_(self) -> str:
        rows = [
            (kind, spec.name, spec.datatype, show_shape(spec.shape))
            for kind, specs in (("input", self.signature.inputs), ("output", self.signature.outputs))
            for spec in specs
        ]
        tensors = table(("", "name", "datatype", "shape"), rows)
        return captioned(self.name, tensors, note=f"versions {', '.join(self.versions)}")


@dataclass(frozen=True)
class ModelState:
    """One entry of a server's model index."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class ModelStatistics:
    """Statistics of a version; times are sums over the requests that succeeded."""

    name: str
    version: str
    requests: int
    failed: int
    rows: int
    batches: int
    request_ns: int
    queue_ns: int
    compute_ns: int


@dataclass(frozen=True)
class EncodedCall:
    """A serialized unary call."""

    address: str
    path: str
    metadata: tuple[tuple[str, str], ...]
    message: bytes


class Client(EvaluationCalls):
    """A connection to a server; thread-safe.

    Every method raises the subclass of `kerve.runtime.errors.ServingError` for the server's status.
    `timeout` is in seconds; None waits without limit. Returned arrays are read-only views of the response
    where that saves a copy.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        """Connect on the first call; `token` is a bearer token, if the server requires one."""
        self.address = address
        self._channel = Channel(address, credentials, token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def live(self, *, timeout: float | None = None) -> bool:
        """Return whether the server answers."""
        return bool(self._call("ServerLive", pb.ServerLiveRequest(), timeout).live)

    def ready(self, name: str = "", *, version: str = "", timeout: float | None = None) -> bool:
        """Return whether the server is ready or, with a name, whether that model is."""
        if not name:
            return bool(self._call("ServerReady", pb.ServerReadyRequest(), timeout).ready)
        request = pb.ModelReadyRequest(name=name, version=version)
        return bool(self._call("ModelReady", request, timeout).ready)

    def metadata(self, name: str, *, version: str = "", timeout: float | None = None) -> ModelInfo:
        """Return a model's metadata."""
        message = self._channel.model(name, version, timeout)
        signature = oip_client.decode_metadata(message)
        return ModelInfo(message.name, tuple(message.versions), message.platform, signature)

    def index(self, *, ready: bool = False, timeout: float | None = None) -> list[ModelState]:
        """Return the state of every version of every model; `ready`: only of ready ones."""
        message = self._call("RepositoryIndex", pb.RepositoryIndexRequest(ready=ready), timeout)
        return [ModelState(each.name, each.version, each.state, each.reason) for each in message.models]

    def load(self, name: str, *, config: str | None = None, timeout: float | None = None) -> None:
        """Load or reload a model; `config`: JSON to use instead of its own configuration."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        if config is not None:
            request.parameters["config"].string_param = config
        self._call("RepositoryModelLoad", request, timeout)

    def unload(self, name: str, *, timeout: float | None = None) -> None:
        """Unload a model."""
        self._call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=name), timeout)

    def statistics(
        self, name: str = "", *, version: str = "", timeout: float | None = None
    ) -> list[ModelStatistics]:
        """Return the statistics of the versions of a model, or of all models, since they were loaded."""
        request = pb.ModelStatisticsRequest(name=name, version=version)
        message = self._call("ModelStatistics", request, timeout)
        return [statistics_from(each) for each in message.model_stats]

    def encoded(self, name: str, inputs: Inputs, *, version: str = "") -> EncodedCall:
        """Return a call of `infer` in serialized form, for benchmarks that send it repeatedly."""
        signature, tensors = self._prepare(name, version, inputs, None, None)
        request = oip_client.encode_request(name, version, signature, tensors, outputs=None, parameters=None)
        path = f"/{SERVICE.full_name}/ModelInfer"
        return EncodedCall(self.address, path, self._channel.metadata, request.SerializeToString())

    def sender(self, call: EncodedCall) -> Callable[[Callable[[bool], None]], None]:
        """Return a function that sends a call and, on its completion, calls back with whether it succeeded.

        The response is not decoded.
        """
        method: Any = self._channel.grpc.unary_unary(call.path)

        def send(ended: Callable[[bool], None]) -> None:
            future = method.future(call.message, metadata=call.metadata)
            future.add_done_callback(lambda answer: ended(answer.code() is grpc.StatusCode.OK))

        return send

    def infer(
        self,
        name: str,
        inputs: Inputs,
        outputs: Collection[str] | None = None,
        *,
        version: str = "",
        timeout: float | None = None,
        parameters: Parameters | None = None,
    ) -> dict[str, Array]:
        """Send one request and return the outputs by name.

        `inputs` are arrays by name, or a single array if the model has one input; they are converted to the
        model's datatypes where that loses no information. `outputs` are the requested names; None: all.
        """
        signature, tensors = self._prepare(name, version, inputs, outputs, timeout)
        request = oip_client.encode_request(
            name, version, signature, tensors, outputs=outputs, parameters=parameters
        )
        return oip_client.decode_response(self._call("ModelInfer", request, timeout))

    def predict(
        self,
        name: str,
        inputs: Inputs,
        outputs: Collection[str] | None = None,
        *,
        version: str = "",
        timeout: float | None = None,
        parameters: Parameters | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """Predict any number of rows; returns outputs by name for inputs by name.

        For a single array it returns an array if there is one output, and a dict if there are several.
        A large batch is split into several requests, of `batch_size` rows each or of about 16 MB; the
        parts are joined in order. `timeout` is for the whole call. Otherwise like `infer`.
        """
        end = None if timeout is None else time.monotonic() + timeout
        signature, tensors = self._prepare(name, version, inputs, outputs, timeout)
        messages = (
            oip_client.encode_request(name, version, signature, part, outputs=outputs, parameters=parameters)
            for part in parts(signature, tensors, batch_size)
        )
        answers = list(self._stream(messages, end))
        joined = {key: join([answer[key] for answer in answers]) for key in answers[0]}
        alone = len(joined) == 1 and not isinstance(inputs, Mapping)
        return next(iter(joined.values())) if alone else joined

    def predict_batches(
        self, name: str, batches: Iterable[Inputs], *, version: str = "", timeout: float | None = None
    ) -> Iterator[dict[str, Array]]:
        """Yield the outputs of batches in order, with several requests in flight at a time.

        A batch is what `infer` takes; `timeout` is for all of them.
        """
        end = None if timeout is None else time.monotonic() + timeout
        prepared = (self._prepare(name, version, batch, None, timeout) for batch in batches)
        messages = (
            oip_client.encode_request(name, version, signature, tensors, outputs=None, parameters=None)
            for signature, tensors in prepared
        )
        return self._stream(messages, end)

    def _prepare(
        self, name: str, version: str, inputs: Inputs, outputs: Collection[str] | None, timeout: float | None
    ) -> tuple[Signature, dict[str, Array]]:
        """Return the model's signature, and the inputs as tensors of it."""
        signature = self._channel.signature(name, version, timeout)
        if not isinstance(inputs, Mapping):
            if len(signature.inputs) != 1:
                takes = ", ".join(spec.name for spec in signature.inputs)
                raise InvalidArgumentError(f"model {name!r} has several inputs; pass a dict of: {takes}")
            inputs = {signature.inputs[0].name: inputs}
        # Missing inputs are left to the server: they may be optional, or the state of a sequence.
        check_known(signature, name, list(inputs))
        check_outputs(signature, name, outputs or ())
        return signature, {
            key: oip_client.to_tensor(signature.input(key), value) for key, value in inputs.items()
        }

    def _stream(
        self, messages: Iterator[pb.ModelInferRequest], end: float | None
    ) -> Iterator[dict[str, Array]]:
        """Send requests, several at a time, and yield their responses in order."""
        channel, call = self._channel, self._channel.inference["ModelInfer"]
        under_way: deque[Any] = deque()
        try:
            for message in messages:
                left = None if end is None else max(0.0, end - time.monotonic())
                under_way.append(call.future(message, timeout=left, metadata=channel.metadata))
                if len(under_way) == MAX_IN_FLIGHT:
                    yield oip_client.decode_response(channel.answer(under_way.popleft().result))
            while under_way:
                yield oip_client.decode_response(channel.answer(under_way.popleft().result))
        finally:
            for each in under_way:
                each.cancel()

    def _call(self, method: str, request: Any, timeout: float | None) -> Any:
        return self._channel.call(self._channel.inference[method], request, timeout)


def statistics_from(message: pb.ModelStatistics) -> ModelStatistics:
    """Return the statistics in a message."""
    stats = message.inference_stats
    return ModelStatistics(
        message.name,
        message.version,
        requests=stats.success.count,
        failed=stats.fail.count,
        rows=message.inference_count,
        batches=message.execution_count,
        request_ns=stats.success.ns,
        queue_ns=stats.queue.ns,
        compute_ns=sum(part.ns for part in (stats.compute_input, stats.compute_infer, stats.compute_output)),
    )


def parts(
    signature: Signature, tensors: dict[str, Array], batch_size: int | None
) -> Iterator[dict[str, Array]]:
    """Yield a batch in parts of several rows each; inputs of a model that is not batched are not split."""
    lengths = {len(array) if array.ndim else 0 for array in tensors.values()}
    rows = max(lengths, default=0)
    step = batch_size or max(1, REQUEST_BYTES // oip_client.row_bytes(tensors))
    if (
        not signature.batched or rows <= step or len(lengths) > 1
    ):  # in the last case the server reports the error
        yield tensors
        return
    for start in range(0, rows, step):
        yield {name: array[start : start + step] for name, array in tensors.items()}


def join(arrays: list[Array]) -> Array:
    """Concatenate the rows of all arrays."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
