"""Both transports behind one seam: the same requests, answers that are equal field by field."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from kerve.runtime.signature import Signature, TensorSpec
from kerve.runtime.transport.base import DEFAULT, ServedModel, Transport
from kerve.runtime.transport.batching import Batching, QueuePolicy
from kerve.runtime.transport.grpcio import GrpcioTransport
from kerve.runtime.transport.wire import WireTransport

SIGNATURE = Signature(
    inputs=(
        TensorSpec("a", "FP32", ("batch", "width")),
        TensorSpec("b", "INT8", ("batch", 2)),
        TensorSpec("text", "BYTES", ("batch",), optional=True),
        TensorSpec("flag", "BOOL", ("batch", None), optional=True),
    ),
    outputs=(TensorSpec("sum", "FP64", ("batch",)), TensorSpec("text", "BYTES", ("batch",))),
    batched=True,
)


def compute(batch: Any) -> Mapping[str, Any]:
    inputs = batch.inputs
    text = inputs.get("text", np.full(len(inputs["a"]), b"-", object))
    flag = inputs.get("flag", np.zeros((len(inputs["a"]), 1), bool))
    total = inputs["a"].sum(1, dtype=np.float64) + inputs["b"].sum(1) + flag.sum(1)
    return {"sum": total, "text": text[::-1] if len(text) == 1 else text}


def execute(queue: Any) -> None:
    while (batch := queue.take()) is not None:
        batch.reply(compute(batch))
        del batch


@pytest.fixture(scope="module")
def channels() -> Iterator[Mapping[str, grpc.Channel]]:
    transports: list[Transport] = [WireTransport(), GrpcioTransport()]
    running = []
    for transport in transports:
        queue = transport.attach(
            ServedModel("m", 3, SIGNATURE, Batching(policies=(QueuePolicy(max_queue_size=16),)))
        )
        threading.Thread(target=execute, args=(queue,), daemon=True).start()
        transport.publish("m", {DEFAULT: queue, "3": queue, "best": queue}, {"4": "it is loading"})
        transport.publish("loading", {})
        transport.publish("gone", {DEFAULT: queue})
        transport.unpublish("gone")
        port = transport.add_insecure_port("127.0.0.1:0")
        transport.start()
        running.append((transport, queue, grpc.insecure_channel(f"127.0.0.1:{port}")))
    yield {transport.name: channel for transport, _, channel in running}
    for transport, queue, channel in running:
        channel.close()
        queue.close()
        assert transport.stop(5).wait(20)


def base(oip: Any) -> Any:
    return oip.pb.ModelInferRequest(
        model_name="m",
        id="x",
        inputs=[oip.tensor("a", "FP32", (2, 3)), oip.tensor("b", "INT8", (2, 2))],
        raw_input_contents=[np.arange(6, dtype=np.float32).tobytes(), bytes([1, 2, 255, 4])],
    )


def typed(request: Any) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4, 5, 6])
    request.inputs[1].contents.int_contents.extend([1, -2, 3, -128])


def add(request: Any, oip: Any, name: str, datatype: str, shape: tuple[int, ...], raw: bytes) -> None:
    request.inputs.append(oip.tensor(name, datatype, shape))
    request.raw_input_contents.append(raw)


def change(field: str, value: Any) -> Callable[[Any, Any], None]:
    return lambda request, _: setattr(request, field, value)


def tensor(field: str, value: Any, position: int = 0) -> Callable[[Any, Any], None]:
    def edit(request: Any, _: Any) -> None:
        if field == "shape":
            request.inputs[position].shape[:] = value
        else:
            setattr(request.inputs[position], field, value)

    return edit


def raw(position: int, value: bytes) -> Callable[[Any, Any], None]:
    return lambda request, _: request.raw_input_contents.__setitem__(position, value)


def typed_with(**contents: list[Any]) -> Callable[[Any, Any], None]:
    def edit(request: Any, _: Any) -> None:
        typed(request)
        for field, values in contents.items():
            getattr(request.inputs[1].contents, field)[:] = values

    return edit


def outputs(*names: str) -> Callable[[Any, Any], None]:
    def edit(request: Any, _: Any) -> None:
        for name in names:
            request.outputs.add(name=name)

    return edit


def classified(name: str, count: int) -> Callable[[Any, Any], None]:
    def edit(request: Any, _: Any) -> None:
        request.outputs.add(name=name).parameters["classification"].int64_param = count

    return edit


def parameter(name: str, **value: Any) -> Callable[[Any, Any], None]:
    return lambda request, _: request.parameters[name].MergeFrom(type(request.parameters[name])(**value))


TEXT = b"\1\0\0\0a\2\0\0\0bc"
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "as it is": lambda *_: None,
    "typed": lambda request, _: typed(request),
    "version": change("model_version", "3"),
    "label": change("model_version", "best"),
    "no such version": change("model_version", "4"),
    "no such model": change("model_name", "it's"),
    "no model": change("model_name", ""),
    "loading": change("model_name", "loading"),
    "loading beside another": change("model_version", "4"),
    "withdrawn": change("model_name", "gone"),
    "one output": outputs("text"),
    "outputs reversed": outputs("text", "sum"),
    "unknown output": outputs("sum", "what"),
    "best class": classified("sum", 1),
    "more classes than there are": classified("sum", 99),
    "classes of text": classified("text", 2),
    "classes in words": lambda request, _: setattr(
        request.outputs.add(name="sum").parameters["classification"], "string_param", "2"
    ),
    "a timeout in words": parameter("timeout", string_param="1 s"),
    "a timeout in parts": parameter("timeout", double_param=1.5),
    "a priority that is true": parameter("priority", bool_param=True),
    "a timeout of any sign": parameter("timeout", uint64_param=10**6),
    "classes of what is no number": lambda request, oip: (
        raw(0, np.full(6, np.nan, np.float32).tobytes())(request, oip),
        classified("sum", 1)(request, oip),
    ),
    "an output and its classes": lambda request, oip: (
        outputs("sum")(request, oip),
        classified("sum", 1)(request, oip),
    ),
    "classes and their output": lambda request, oip: (
        classified("sum", 1)(request, oip),
        outputs("sum")(request, oip),
    ),
    "optional": lambda request, oip: add(request, oip, "text", "BYTES", (2,), TEXT),
    "any byte is true": lambda request, oip: add(request, oip, "flag", "BOOL", (2, 2), b"\0\1\2\xff"),
    "no elements": lambda request, oip: add(request, oip, "flag", "BOOL", (2, 0), b""),
    "bytes cut": lambda request, oip: add(request, oip, "text", "BYTES", (2,), TEXT[:-1]),
    "bytes too few": lambda request, oip: add(request, oip, "text", "BYTES", (2,), TEXT[:5]),
    "twice": lambda request, oip: add(request, oip, "a", "FP32", (2, 3), bytes(24)),
    "unexpected": lambda request, oip: add(request, oip, "c", "FP32", (2, 3), bytes(24)),
    "rows differ": lambda request, oip: add(request, oip, "text", "BYTES", (1,), TEXT[:5]),
    "missing": lambda request, _: (request.inputs.pop(), request.raw_input_contents.pop()),
    "raw too many": lambda request, _: request.raw_input_contents.append(b""),
    "raw too few": lambda request, _: request.raw_input_contents.pop(),
    "datatype": tensor("datatype", "FP64"),
    "no datatype": tensor("datatype", ""),
    "rank": tensor("shape", [6]),
    "negative": tensor("shape", [-2, -3]),
    "fixed": tensor("shape", [2, 3], 1),
    "other rows": tensor("shape", [3, 2], 0),
    "overflow": tensor("shape", [2, 2**62]),
    "empty overflow": tensor("shape", [0, 2**62]),
    "too few bytes": raw(0, bytes(23)),
    "too many bytes": raw(1, bytes(5)),
    "typed out of range": typed_with(int_contents=[1, 2, 3, 128]),
    "typed too few": typed_with(int_contents=[1, 2, 3]),
    "typed in a wrong field": typed_with(int_contents=[], int64_contents=[1, 2, 3, 4]),
    "typed in two fields": typed_with(fp64_contents=[1.0]),
    "typed and raw": lambda request, _: request.inputs[0].contents.fp32_contents.append(1),
    "shared memory": lambda request, _: setattr(
        request.inputs[0].parameters["shared_memory_region"], "string_param", "r"
    ),
}


def ask(channel: grpc.Channel, oip: Any, request: Any) -> Any:
    try:
        return oip.stub(channel).ModelInfer(request, timeout=20)
    except grpc.RpcError as error:
        return error.code(), error.details()


@pytest.mark.parametrize("edit", [pytest.param(edit, id=name) for name, edit in CASES.items()])
def test_both_transports_answer_alike(
    channels: Mapping[str, grpc.Channel], oip: Any, edit: Callable[[Any, Any], Any]
) -> None:
    request = base(oip)
    edit(request, oip)
    answers = {name: ask(channel, oip, request) for name, channel in channels.items()}
    assert answers["wire"] == answers["grpcio"]


@pytest.mark.parametrize("body", [b"\x0a", b"\xff" * 20, b"\x0a\x01\xff", b"\x2a\x02\x0a\x7f"])
def test_both_transports_refuse_what_is_no_message_alike(
    channels: Mapping[str, grpc.Channel], oip: Any, body: bytes
) -> None:
    def code(channel: Any) -> grpc.StatusCode:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        found: grpc.StatusCode = method.future(body, timeout=20).code()
        return found

    assert code(channels["wire"]) is code(channels["grpcio"])


@pytest.mark.parametrize("strict", [False, True])
def test_both_transports_stream_alike(channels: Mapping[str, grpc.Channel], oip: Any, strict: bool) -> None:
    requests = [base(oip) for _ in range(6)]
    requests[2].model_name = "what"
    requests[3].inputs[0].datatype = "INT64"
    requests[4].id = "y"

    def answers(channel: grpc.Channel) -> list[Any]:
        metadata = (("triton_grpc_error", "true"),) if strict else ()
        found: list[Any] = []
        try:
            found += oip.stub(channel).ModelStreamInfer(iter(requests), timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            found.append((error.code(), error.details()))
        return found

    found = {name: answers(channel) for name, channel in channels.items()}
    assert found["wire"][-1] == found["grpcio"][-1]
    if not strict:
        assert found["wire"] == found["grpcio"]
        assert len(found["wire"]) == 6
