"""The client: NumPy in, NumPy out, from any server of the Open Inference Protocol."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import ArrayLike

from kerve.evaluation.v1 import evaluation_pb2
from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime import rpc
from kerve.runtime.datatypes import Array
from kerve.runtime.errors import Code, InvalidArgumentError, ServingError, error_for
from kerve.runtime.evaluation import client as evaluation_client
from kerve.runtime.evaluation.client import Data, Evaluated, Progress, Promotion
from kerve.runtime.protocol import evaluation, oip_client
from kerve.runtime.protocol.oip import SERVICE
from kerve.runtime.protocol.status import decode_retry_after
from kerve.runtime.signature import Signature, check_inputs, check_outputs

__all__ = ["Client", "ModelInfo", "ModelState", "ModelStatistics"]

# A batch larger than this goes in several requests, of which so many are under way at a time.
REQUEST_BYTES = 16 * 2**20
REQUESTS_UNDER_WAY = 4

OPTIONS = [("grpc.max_receive_message_length", 2**31 - 1), ("grpc.max_send_message_length", 2**31 - 1)]

Inputs = ArrayLike | Mapping[str, ArrayLike]
Parameters = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class ModelInfo:
    """What a server says of a model."""

    name: str
    versions: tuple[str, ...]
    platform: str
    signature: Signature


@dataclass(frozen=True)
class ModelState:
    """One line of a server's index."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class ModelStatistics:
    """What a version has done; times are sums over the requests that succeeded."""

    name: str
    version: str
    requests: int
    failed: int
    rows: int
    batches: int
    request_ns: int
    queue_ns: int
    compute_ns: int


class Client:
    """A connection to a server; threads may share it.

    Every method raises a `kerve.runtime.errors.ServingError` of the class that fits the server's status.
    `timeout` is in seconds; None waits for as long as it takes. Arrays that come back are read-only views
    of the reply where that saves a copy.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | None = None,
    ) -> None:
        """Connect when the first call is made; `token` is a bearer token, where the server asks for one."""
        self.address = address
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        if credentials is None:
            self._channel = grpc.insecure_channel(address, OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, OPTIONS)
        self._calls = rpc.calls(self._channel, SERVICE)
        self._evaluation = rpc.calls(self._channel, evaluation.SERVICE)
        self._signatures: dict[tuple[str, str], Signature] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def live(self, *, timeout: float | None = None) -> bool:
        """Return whether the server answers."""
        return bool(self._call("ServerLive", pb.ServerLiveRequest(), timeout).live)

    def ready(self, name: str = "", *, version: str = "", timeout: float | None = None) -> bool:
        """Return whether the server is ready or, with a name, whether it would answer for that model."""
        if not name:
            return bool(self._call("ServerReady", pb.ServerReadyRequest(), timeout).ready)
        request = pb.ModelReadyRequest(name=name, version=version)
        return bool(self._call("ModelReady", request, timeout).ready)

    def metadata(self, name: str, *, version: str = "", timeout: float | None = None) -> ModelInfo:
        """Return what the server says of a model."""
        request = pb.ModelMetadataRequest(name=name, version=version)
        message = self._call("ModelMetadata", request, timeout)
        signature = oip_client.decode_metadata(message)
        return ModelInfo(message.name, tuple(message.versions), message.platform, signature)

    def index(self, *, ready: bool = False, timeout: float | None = None) -> list[ModelState]:
        """Return the state of every version of every model; `ready`: only of what is."""
        message = self._call("RepositoryIndex", pb.RepositoryIndexRequest(ready=ready), timeout)
        return [ModelState(each.name, each.version, each.state, each.reason) for each in message.models]

    def load(self, name: str, *, config: str | None = None, timeout: float | None = None) -> None:
        """Load a model, or load it again; `config`: JSON to use instead of its own configuration."""
        request = pb.RepositoryModelLoadRequest(model_name=name)
        if config is not None:
            request.parameters["config"].string_param = config
        self._call("RepositoryModelLoad", request, timeout)

    def unload(self, name: str, *, timeout: float | None = None) -> None:
        """Take a model out of service."""
        self._call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=name), timeout)

    def statistics(
        self, name: str = "", *, version: str = "", timeout: float | None = None
    ) -> list[ModelStatistics]:
        """Return what the versions of a model, or of all models, have done since they were loaded."""
        request = pb.ModelStatisticsRequest(name=name, version=version)
        message = self._call("ModelStatistics", request, timeout)
        return [statistics_from(each) for each in message.model_stats]

    def caller(
        self, name: str, inputs: Inputs, *, version: str = ""
    ) -> Callable[[Callable[[bool], None]], None]:
        """Return what sends one and the same request and, when it is answered, calls back with whether it
        succeeded.

        For measurements: the request is encoded once, and its answer is not decoded.
        """
        signature, tensors = self._prepare(name, version, inputs, None, None)
        request = oip_client.encode_request(name, version, signature, tensors, outputs=None, parameters=None)
        raw = request.SerializeToString()
        call: Any = self._channel.unary_unary(f"/{SERVICE.full_name}/ModelInfer")

        def send(ended: Callable[[bool], None]) -> None:
            future = call.future(raw, metadata=self._metadata)
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

        `inputs` are arrays by name, or the array itself where the model has one input; they are converted
        to the model's datatypes where that changes no meaning. `outputs` are the names wanted, None for
        all.
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
        """Predict any number of rows and answer in kind: outputs by name for inputs by name.

        For an array the answer is an array too, where there is one output; a dict where there are several.
        A large batch goes in several requests, of `batch_size` rows each or of as many as make a request of
        some 16 MB; the parts are joined in order. `timeout` is for all of it. Otherwise as `infer`.
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

    def evaluate(
        self,
        name: str,
        x: Any,
        y: Data | None = None,
        sample_weight: Data | None = None,
        *,
        version: str = "",
        metrics: Collection[str] = (),
        batch_size: int = 0,
        interval: float = 0.0,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Evaluated:
        """Return loss and metrics on labelled rows, as `model.evaluate(x, y, sample_weight)` does.

        `x` is what the model takes: an array, or arrays by name (labels and `sample_weight` may be among
        them); or a generator or dataset of batches `(x, y)` or `(x, y, sample_weight)`. `y` and
        `sample_weight` are arrays, by output where there are several. `batch_size` matters as in Keras, for
        losses that depend on it; 0 is its 32. `progress` is called with running results every `interval`
        seconds, and with the final ones.
        """
        (result,) = self.evaluate_versions(
            name,
            x,
            y,
            sample_weight,
            versions=[version],
            metrics=metrics,
            batch_size=batch_size,
            interval=interval,
            progress=progress,
            timeout=timeout,
        )
        return result

    def evaluate_versions(
        self,
        name: str,
        x: Any,
        y: Data | None = None,
        sample_weight: Data | None = None,
        *,
        versions: Sequence[str] = (),
        metrics: Collection[str] = (),
        batch_size: int = 0,
        interval: float = 0.0,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> list[Evaluated]:
        """Evaluate several versions on one stream of rows, in the order in which they are given."""
        chosen = list(versions) or [""]
        begin = evaluation_pb2.Begin(
            model=name, versions=chosen, metrics=metrics, batch_size=batch_size, interval=interval
        )
        messages = Remembering(
            evaluation_client.requests(begin, self._signature(name, chosen[0], timeout), x, y, sample_weight)
        )
        final: list[Evaluated] = []
        stream = self._evaluation["Evaluate"](messages, timeout=timeout, metadata=self._metadata)
        try:
            for response in stream:
                result = evaluation_client.decode(response.results)
                if progress is not None:
                    progress(result)
                if result.final:
                    final.append(result)
        except grpc.RpcError as error:
            if messages.failure is not None:  # the data failed, and with it the stream
                raise messages.failure from error
            self._signatures.clear()
            raise from_rpc_error(error, self.address) from error
        return final

    def promote(
        self,
        name: str,
        version: str | int,
        label: str,
        requirements: Sequence[str] = (),
        *,
        timeout: float | None = None,
    ) -> Promotion:
        """Move a label to a version, if its last evaluation meets the requirements.

        A requirement compares a metric with a number, or with a metric of the version that has a label now:
        `accuracy >= 0.97`, `loss <= stable.loss * 1.01`.
        """
        request = evaluation_pb2.PromoteRequest(
            model=name, version=str(version), label=label, requirements=requirements
        )
        call = self._evaluation["Promote"]
        message = self._answer(lambda: call(request, timeout=timeout, metadata=self._metadata))
        return evaluation_client.decode_promotion(message)

    def _prepare(
        self, name: str, version: str, inputs: Inputs, outputs: Collection[str] | None, timeout: float | None
    ) -> tuple[Signature, dict[str, Array]]:
        """Return the model's signature, and the inputs as tensors of it."""
        signature = self._signature(name, version, timeout)
        if not isinstance(inputs, Mapping):
            if len(signature.inputs) != 1:
                takes = ", ".join(spec.name for spec in signature.inputs)
                raise InvalidArgumentError(f"model {name!r} takes several inputs, give a dict of: {takes}")
            inputs = {signature.inputs[0].name: inputs}
        check_inputs(signature, name, list(inputs))
        check_outputs(signature, name, outputs or ())
        return signature, {
            key: oip_client.to_tensor(signature.input(key), value) for key, value in inputs.items()
        }

    def _signature(self, name: str, version: str, timeout: float | None) -> Signature:
        signature = self._signatures.get((name, version))
        if signature is None:
            signature = self.metadata(name, version=version, timeout=timeout).signature
            self._signatures[name, version] = signature
        return signature

    def _stream(
        self, messages: Iterator[pb.ModelInferRequest], end: float | None
    ) -> Iterator[dict[str, Array]]:
        """Send requests, several at a time, and yield their answers in order."""
        under_way: deque[Any] = deque()
        try:
            for message in messages:
                left = None if end is None else max(0.0, end - time.monotonic())
                under_way.append(
                    self._calls["ModelInfer"].future(message, timeout=left, metadata=self._metadata)
                )
                if len(under_way) == REQUESTS_UNDER_WAY:
                    yield oip_client.decode_response(self._answer(under_way.popleft().result))
            while under_way:
                yield oip_client.decode_response(self._answer(under_way.popleft().result))
        finally:
            for call in under_way:
                call.cancel()

    def _call(self, method: str, request: Any, timeout: float | None) -> Any:
        return self._answer(lambda: self._calls[method](request, timeout=timeout, metadata=self._metadata))

    def _answer(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except grpc.RpcError as error:
            # Whatever went wrong may be that a new version has another signature.
            self._signatures.clear()
            raise from_rpc_error(error, self.address) from error


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


class Remembering:
    """An iterator that keeps what it failed with: gRPC says only that it did."""

    def __init__(self, inner: Iterator[Any]) -> None:
        self._inner = inner
        self.failure: Exception | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._inner)
        except StopIteration:
            raise
        except Exception as error:
            self.failure = error
            raise


def from_rpc_error(error: Any, address: str) -> ServingError:
    """Return the exception for a call that failed."""
    code, details = Code(error.code().value[0]), error.details() or ""
    if code is Code.UNAVAILABLE and "connect" in details.lower():
        details = f"no server answers at {address}: {details}"
    return error_for(code, details, retry_after=decode_retry_after(error.trailing_metadata() or ()))


def parts(
    signature: Signature, tensors: dict[str, Array], batch_size: int | None
) -> Iterator[dict[str, Array]]:
    """Yield a batch in parts of some rows each; a model that is not batched gets its inputs whole."""
    lengths = {len(array) if array.ndim else 0 for array in tensors.values()}
    rows = max(lengths, default=0)
    step = batch_size or max(1, REQUEST_BYTES // oip_client.row_bytes(tensors))
    if (
        not signature.batched or rows <= step or len(lengths) > 1
    ):  # the server says what is wrong with the last
        yield tensors
        return
    for start in range(0, rows, step):
        yield {name: array[start : start + step] for name, array in tensors.items()}


def join(arrays: list[Array]) -> Array:
    """Return the rows of all arrays in one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
