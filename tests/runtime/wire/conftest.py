"""Real servers on the wire, with executors of a few lines of NumPy; and clients to ask them."""

import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

# The wire is optional: without cargo there is none, and nothing here to test.
if importlib.util.find_spec("kerve_wire") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import kerve_wire

Compute = Callable[[Any], Mapping[str, Any] | None]


@dataclass
class Served:
    """A running server with one model."""

    server: "kerve_wire.Server"
    queue: "kerve_wire.Queue"
    address: str
    # Rows of the batches that were computed.
    batches: list[int] = field(default_factory=list)
    # Cleared: the executor waits before it takes; batches form.
    go: threading.Event = field(default_factory=threading.Event)

    def channel(self) -> grpc.Channel:
        """A channel of its own."""
        return grpc.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])


Serve = Callable[..., AbstractContextManager[Served]]


def double(batch: Any) -> Mapping[str, Any]:
    return {"y": batch.inputs["x"] * 2}


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Serves model `m`: by default `y = 2 x` on FP32 [batch, 4]."""

    @contextmanager
    def running(
        compute: Compute = double,
        *,
        inputs: Sequence[Any] = (("x", "FP32", ("batch", 4)),),
        outputs: Sequence[Any] = (("y", "FP32", ("batch", 4)),),
        batched: bool = True,
        options: Any = None,
        server_options: Any = None,
        address: str = "127.0.0.1:0",
        credentials: Any = None,
        prepare: Callable[[Any], None] = lambda _: None,
        executors: int = 1,
        go: bool = True,
    ) -> Iterator[Served]:
        server = kerve_wire.Server(server_options)
        queue = server.attach(
            "m",
            1,
            [kerve_wire.TensorSpec(*each) for each in inputs],
            [kerve_wire.TensorSpec(*each) for each in outputs],
            batched=batched,
            options=options,
        )
        prepare(server)
        server.publish("m", {"": queue, "1": queue, "stable": queue})
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        host = address.rpartition(":")[0]
        served = Served(server, queue, address if address.startswith("unix") else f"{host}:{port}")
        if go:
            served.go.set()
        threads = [threading.Thread(target=execute, args=(served, compute)) for _ in range(executors)]
        for thread in threads:
            thread.start()
        try:
            yield served
        finally:
            served.go.set()
            queue.close()
            assert server.stop(5.0).wait(10)
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()

    return running


def execute(served: Served, compute: Compute) -> None:
    while True:
        served.go.wait()
        batch = served.queue.take()
        if batch is None:
            return
        assert not callable(batch)  # nothing is deferred here
        served.batches.append(batch.rows)
        outputs = compute(batch)
        if outputs is not None:
            batch.reply(outputs)
        # A batch that nobody answered is answered when it is dropped, not when the next one comes.
        del batch


@pytest.fixture(scope="session")
def rows() -> Callable[..., np.ndarray[Any, Any]]:
    """Rows of FP32 for the default model."""

    def make(count: int, start: float = 0.0) -> np.ndarray[Any, Any]:
        return np.arange(count * 4, dtype=np.float32).reshape(count, 4) + np.float32(start)

    return make


DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


class Oip:
    """Requests of the Open Inference Protocol, in tritonclient's generated code."""

    pb = pb

    @staticmethod
    def stub(channel: grpc.Channel) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(channel)

    @staticmethod
    def tensor(name: str, datatype: str, shape: Sequence[int]) -> Any:
        return pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=list(shape))

    @staticmethod
    def raw(array: np.ndarray[Any, Any]) -> bytes:
        if array.dtype == object and array.size:
            return bytes(serialize_byte_tensor(array).item())
        return b"" if array.dtype == object else array.tobytes()

    @staticmethod
    def request(
        array: np.ndarray[Any, Any], datatype: str = "FP32", *, name: str = "x", **fields: Any
    ) -> Any:
        """A request for model `m` with one raw input."""
        parameters = fields.pop("parameters", {})
        message = pb.ModelInferRequest(
            **{"model_name": "m", **fields},
            inputs=[Oip.tensor(name, datatype, array.shape)],
            raw_input_contents=[Oip.raw(array)],
        )
        for key, value in parameters.items():
            kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[
                type(value)
            ]
            setattr(message.parameters[key], kind, value)
        return message

    @staticmethod
    def answer(response: Any, position: int = 0) -> np.ndarray[Any, Any]:
        """An output of a response."""
        output, contents = response.outputs[position], response.raw_output_contents[position]
        if output.datatype == "BYTES":
            elements: np.ndarray[Any, Any] = deserialize_bytes_tensor(contents)
            return elements.reshape(list(output.shape))
        return np.frombuffer(contents, DTYPES[output.datatype]).reshape(list(output.shape))

    @staticmethod
    def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
        """The status with which a call fails."""
        with pytest.raises(grpc.RpcError) as refused:
            call()
        error = refused.value
        assert isinstance(error, grpc.Call)
        return error.code(), error.details() or ""


@pytest.fixture(scope="session")
def oip() -> type[Oip]:
    """Makes requests and reads answers."""
    return Oip
