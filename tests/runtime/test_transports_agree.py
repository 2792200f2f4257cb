"""Whatever a request says, good or bad, both transports answer the same: code, message and tensors."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import deserialize_bytes_tensor

from kerve.runtime.protocol import tfs_tensors
from kerve.tensorflow_serving.apis import predict_pb2

pytest.importorskip("kerve_wire")

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Draw = Callable[[st.SearchStrategy[Any]], Any]
# Tensors of a message: name, datatype, shape, how many elements.
Tensor = tuple[str, str, list[int], int]

LENGTH = "Inference-Header-Content-Length"
WIDTHS = {"BOOL": 1, "INT8": 1, "UINT16": 2, "INT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8}
FIELDS = {"BOOL": "bool", "INT8": "int", "UINT16": "uint", "INT64": "int64", "FP32": "fp32", "FP64": "fp64"}
# Each model's inputs, and its outputs.
MODELS: dict[str, tuple[list[tuple[str, str]], list[str]]] = {
    **{f"echo_{each.lower()}": ([("x", each)], ["y"]) for each in (*WIDTHS, "BYTES")},
    "pair": ([("left", "FP32"), ("right", "FP32")], ["sum"]),
    "triples": ([("x", "FP32")], ["y"]),
}
NAMES = st.sampled_from(["", "x", "y", "sum", "right", "é", "a\0b", "it's", "'\"", "\u202e", "1", "-1"])
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, -1, 2**31, 2**62, 2**63 - 1, -(2**63)])
# No `timeout` that could pass.
KEYS = st.sampled_from(["priority", "classification", "sequence_id", "binary_data", "anything", ""])
DATATYPES = st.sampled_from([*WIDTHS, "BYTES", "fp32", "STRING", ""])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve) -> Iterator[list[Any]]:
    """The same models on both transports."""
    folder = tmp_path_factory.mktemp("models")
    for model in MODELS:
        publish(folder, model)
    with ExitStack() as stack:
        options = ("--http-port", "-1", "--transport")
        yield [stack.enter_context(serve(folder, *options, name)) for name in ("wire", "grpcio")]


@contextmanager
def both(servers: list[Any], method: str, answer: Any) -> Iterator[Callable[[bytes], list[Any]]]:
    """Sends the bytes of a request to both, and returns what each says."""
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(each.address)) for each in servers]
        calls: list[Any] = [each.unary_unary(method) for each in channels]

        def ask(call: Any, message: bytes) -> Any:
            try:
                return answer.FromString(call(message, timeout=60))
            except grpc.RpcError as error:
                return error.code(), error.details()

        yield lambda message: [ask(call, message) for call in calls]


@pytest.fixture(scope="module")
def over_grpc(servers: list[Any]) -> Iterator[Callable[[bytes], list[Any]]]:
    """Sends the bytes of a ModelInferRequest to both, and returns what each says."""
    with both(servers, "/inference.GRPCInferenceService/ModelInfer", pb.ModelInferResponse) as ask:
        yield ask


@pytest.fixture(scope="module")
def over_predict(servers: list[Any]) -> Iterator[Callable[[bytes], list[Any]]]:
    """Sends the bytes of a PredictRequest to both, and returns what each says."""
    with both(servers, "/tensorflow.serving.PredictionService/Predict", predict_pb2.PredictResponse) as ask:
        yield ask


@pytest.fixture(scope="module")
def over_rest(servers: list[Any]) -> Iterator[Callable[..., list[Any]]]:
    """Sends a request to both, and returns what each says."""
    with ExitStack() as stack:
        links = [
            stack.enter_context(closing(http.client.HTTPConnection(each.http, timeout=60)))
            for each in servers
        ]

        def ask(link: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> Any:
            link.request("POST", path, body, headers)
            answer = link.getresponse()
            text = answer.read()
            length = int(answer.headers.get(LENGTH, len(text)))
            # Numbers are written in more than one way.
            with np.errstate(over="ignore"):
                told = json.loads(text[:length], parse_float=lambda number: str(np.float32(number)))
            return answer.status, json.dumps(told), text[length:]

        yield lambda *request: [ask(link, *request) for link in links]


def tensors_of(draw: Draw, model: str) -> list[Tensor]:
    rows, width = draw(st.sampled_from([(1, 3), (2, 3), (3, 1), (0, 3), (2, 0)]))
    return [(name, datatype, [rows, width], rows * width) for name, datatype in MODELS[model][0]]


def raw_of(draw: Draw, datatype: str, count: int) -> bytes:
    if datatype == "BYTES":
        texts = [draw(st.sampled_from([b"", b"a", b"\xff", b"a\0b"])) for _ in range(count)]
        return b"".join(len(each).to_bytes(4, "little") + each for each in texts)
    size = WIDTHS.get(datatype, 4) * count
    return bytes(draw(st.binary(min_size=size, max_size=size)))


def values_of(draw: Draw, datatype: str, count: int) -> list[Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "BOOL": st.booleans(),
        "BYTES": st.sampled_from(["", "a", "é", "7"]),
        **dict.fromkeys(("FP32", "FP64"), st.floats(width=16)),
    }
    each = kinds.get(datatype, st.integers(0, 127))
    return list(draw(st.lists(each, min_size=count, max_size=count)))


def add_input(draw: Draw, message: pb.ModelInferRequest, tensor: Tensor, *, typed: bool) -> None:
    name, datatype, shape, count = tensor
    added = message.inputs.add(name=name, datatype=datatype, shape=shape)
    if typed and datatype in FIELDS:
        getattr(added.contents, f"{FIELDS[datatype]}_contents").extend(values_of(draw, datatype, count))
    else:
        message.raw_input_contents.append(raw_of(draw, datatype, count))


def set_parameter(draw: Draw, parameter: Any) -> None:
    kind = draw(st.sampled_from(["bool_param", "int64_param", "string_param", "double_param", ""]))
    values = {
        "bool_param": st.booleans(),
        "int64_param": NUMBERS,
        "string_param": NAMES,
        "double_param": st.floats(),
    }
    if kind:
        setattr(parameter, kind, draw(values[kind]))


def change_raw(draw: Draw, message: pb.ModelInferRequest) -> None:
    for raw in draw(st.sampled_from([[], [b""], [b"", b""], [b"\xff" * 4], [b"\0" * 11]])):
        message.raw_input_contents.append(raw)
    if draw(st.booleans()):
        del message.raw_input_contents[:1]


def change_shape(draw: Draw, message: pb.ModelInferRequest) -> None:
    for tensor in message.inputs[:1]:
        tensor.shape[:] = draw(st.lists(NUMBERS, max_size=3))


def change_contents(draw: Draw, message: pb.ModelInferRequest) -> None:
    for tensor in message.inputs[:1]:
        field = draw(st.sampled_from(["int", "uint", "int64"]))
        values = st.sampled_from([0, 255, 256, 2**31 - 1])
        getattr(tensor.contents, f"{field}_contents").extend(draw(st.lists(values, max_size=3)))


def change_datatype(draw: Draw, message: pb.ModelInferRequest) -> None:
    for tensor in message.inputs[:1]:
        tensor.datatype = draw(DATATYPES)


def ask_for_output(draw: Draw, message: pb.ModelInferRequest) -> None:
    wanted = message.outputs.add(name=draw(st.sampled_from(["y", "sum"]) | NAMES))
    if draw(st.booleans()):
        set_parameter(draw, wanted.parameters["classification"])


CHANGES: list[Callable[[Draw, pb.ModelInferRequest], object]] = [
    lambda draw, message: setattr(message, "model_name", draw(NAMES)),
    lambda draw, message: setattr(message, "model_version", draw(NAMES)),
    lambda draw, message: setattr(message, "id", draw(NAMES)),
    lambda draw, message: set_parameter(draw, message.parameters[draw(KEYS)]),
    lambda draw, message: message.inputs.add(name=draw(NAMES), datatype="FP32", shape=[1]),
    lambda _, message: message.inputs.extend(message.inputs[:1]),
    lambda draw, message: message.inputs and message.inputs.pop(),
    change_raw,
    change_shape,
    change_contents,
    change_datatype,
    ask_for_output,
]


@st.composite
def messages(draw: Draw) -> bytes:
    """A request that is right, and up to three changes of it; or twice the same, which protobuf merges."""
    model = draw(st.sampled_from([*MODELS]))
    message = pb.ModelInferRequest(model_name=model)
    typed = draw(st.booleans())
    for tensor in tensors_of(draw, model):
        add_input(draw, message, tensor, typed=typed)
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        change(draw, message)
    times: int = draw(st.sampled_from([1, 1, 1, 2]))
    return bytes(message.SerializeToString()) * times


# What JSON can say where something else is expected.
ODD = st.sampled_from(
    [
        None,
        True,
        1,
        -1,
        1.5,
        2**63,
        10**30,
        float("nan"),
        float("inf"),
        "x",
        "",
        [],
        [1],
        [[1], 2],
        {},
        {"x": 1},
    ]
)


@st.composite
def documents(draw: Draw) -> tuple[str, bytes, dict[str, str]]:
    """A request of REST that is right, and up to two values of it that are not."""
    model = draw(st.sampled_from([*MODELS]))
    document: dict[str, Any] = {"inputs": [], "outputs": [], "parameters": {}}
    tail = b""
    for name, datatype, shape, count in tensors_of(draw, model):
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if draw(st.booleans()) or datatype in ("FP16", "BF16"):
            raw = raw_of(draw, datatype, count)
            tail += raw
            tensor["parameters"] = {"binary_data_size": len(raw)}
        else:
            tensor["data"] = values_of(draw, datatype, count)
        document["inputs"].append(tensor)
    document["outputs"] = [{"name": each} for each in MODELS[model][1] if draw(st.booleans())]
    places = [(document, key) for key in ("id", "parameters", "inputs", "outputs")]
    for tensor in (*document["inputs"], *document["outputs"]):
        places += [(tensor, key) for key in ("name", "shape", "datatype", "data", "parameters")]
    for changed, key in draw(st.lists(st.sampled_from(places), max_size=2)):
        changed[key] = draw(ODD | st.dictionaries(KEYS, ODD, max_size=1))
    text = json.dumps(document).encode()
    said = len(text) + draw(st.sampled_from([0, 0, 0, 0, 1, -1, 2**40]))
    version = draw(st.sampled_from(["", "", "", "/versions/1", "/versions/2", "/versions/x"]))
    headers = {LENGTH: str(said)} if tail or said != len(text) else {}
    return f"/v2/models/{model}{version}/infer", text + tail, headers


quickly = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@quickly
@given(message=messages())
def test_messages_are_answered_alike(message: bytes, over_grpc: Callable[[bytes], list[Any]]) -> None:
    wire, portable = over_grpc(message)
    assert wire == portable


@quickly
@given(request_of=documents())
def test_documents_are_answered_alike(
    request_of: tuple[str, bytes, dict[str, str]], over_rest: Callable[..., list[Any]]
) -> None:
    wire, portable = over_rest(*request_of)
    assert wire == portable


def test_a_nan_is_the_best_class_and_zeros_are_equal(over_grpc: Callable[[bytes], list[Any]]) -> None:
    scores = np.array([[-0.0, np.inf, 0.0, -np.nan, np.nan]], np.float32)
    message = pb.ModelInferRequest(model_name="echo_fp32", raw_input_contents=[scores.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=scores.shape)
    message.outputs.add(name="y").parameters["classification"].int64_param = 5
    wire, portable = over_grpc(message.SerializeToString())
    assert wire == portable
    found = deserialize_bytes_tensor(wire.raw_output_contents[0]).tolist()
    assert found == [b"nan:3", b"nan:4", b"inf:1", b"-0.000000:0", b"0.000000:2"]


@pytest.mark.parametrize("rows", [2**16, 2**16 + 1, 2**32, 2**50])
def test_rows_of_nothing_are_bounded(rows: int, over_grpc: Callable[[bytes], list[Any]]) -> None:
    message = pb.ModelInferRequest(model_name="echo_fp16", raw_input_contents=[b""])
    message.inputs.add(name="x", datatype="FP16", shape=[rows, 0])
    wire, portable = over_grpc(message.SerializeToString())
    assert wire == portable
    if rows > 2**16:
        assert wire[0] is grpc.StatusCode.INVALID_ARGUMENT
        assert wire[1].startswith("expected at most 65536 rows without elements")
    else:
        assert [*wire.outputs[0].shape] == [rows, 0]


def test_an_output_that_is_asked_for_twice_is_as_it_was_asked_for_first(
    over_grpc: Callable[[bytes], list[Any]],
) -> None:
    message = pb.ModelInferRequest(model_name="echo_bytes", raw_input_contents=[b"\1\0\0\0a"])
    message.inputs.add(name="x", datatype="BYTES", shape=[1, 1])
    message.outputs.add(name="y")
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    wire, portable = over_grpc(message.SerializeToString())
    assert wire == portable
    assert wire.raw_output_contents == [b"\1\0\0\0a"]


# A field of each wire type, as its bytes after the tag: a varint, eight bytes, a length of two, a group of
# nothing but its end, four bytes.
WIRE_TYPES = {0: b"\1", 1: bytes(8), 2: b"\2\x08\1", 3: b"", 5: bytes(4)}


def of_type(number: int, wire: int) -> bytes:
    """A field of a message."""
    return bytes([number << 3 | wire]) + WIRE_TYPES[wire] + (bytes([number << 3 | 4]) if wire == 3 else b"")


def inside(number: int, *fields: bytes) -> bytes:
    """A message as a field of another."""
    return bytes([number << 3 | 2, len(b"".join(fields))]) + b"".join(fields)


@pytest.mark.parametrize("wire_type", [0, 1, 3, 5])
def test_fields_of_another_wire_type_are_unknown(
    wire_type: int, over_grpc: Callable[[bytes], list[Any]]
) -> None:
    def odd(*numbers: int) -> bytes:
        return b"".join(of_type(number, wire_type) for number in numbers)

    tensor = inside(
        5, inside(1, b"x"), inside(2, b"FP32"), inside(3, b"\1\1"), odd(1, 2, 4, 5), inside(5, odd(8))
    )
    value = inside(2, odd(3) if wire_type else odd(3, 4))
    output = inside(6, inside(1, b"y"), odd(1, 2), inside(2, odd(1)))
    message = inside(1, b"echo_fp32") + tensor + inside(4, inside(1, b"a"), odd(1), value) + output
    wire, portable = over_grpc(message + odd(1, 2, 3, 4, 5, 6, 7) + inside(7, bytes(4)))
    assert wire == portable
    assert [*wire.outputs[0].shape] == [1, 1]


@pytest.mark.parametrize(
    ("datatype", "field", "value", "numpy"),
    [
        ("INT8", "int_val", 128, "int8"),
        ("INT8", "int_val", -129, "int8"),
        ("UINT16", "int_val", -1, "uint16"),
        ("UINT16", "int_val", 65536, "uint16"),
        ("FP16", "half_val", 65536, "uint16"),  # its bits
    ],
)
def test_elements_of_tensorflow_beyond_their_datatype_are_refused(
    datatype: str, field: str, value: int, numpy: str, over_predict: Callable[[bytes], list[Any]]
) -> None:
    message = predict_pb2.PredictRequest()
    message.model_spec.name = f"echo_{datatype.lower()}"
    tensor = message.inputs["x"]
    tensor.dtype = tfs_tensors.NUMBERS[datatype]  # type: ignore[assignment]  # an enum's number
    for size in (1, 1):
        tensor.tensor_shape.dim.add(size=size)
    getattr(tensor, field).append(value)
    wire, portable = over_predict(message.SerializeToString())
    assert wire == portable
    what = f"a value does not fit {datatype}: Python integer {value} out of bounds for {numpy}"
    assert wire == (grpc.StatusCode.INVALID_ARGUMENT, f"input 'x': {what}")
