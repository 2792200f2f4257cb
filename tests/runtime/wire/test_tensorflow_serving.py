"""tensorflow.serving.PredictionService/Predict on the wire."""

from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# The fields of TensorFlow's and its Serving's messages that clients use: number, type, repeated, of what.
INT32, INT64, STRING, BYTES, MESSAGE, BOOL, FLOAT, DOUBLE, UINT32, UINT64 = 5, 3, 9, 12, 11, 8, 2, 1, 13, 4
MESSAGES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Dim": {"size": (1, INT64)},
    "Shape": {"dim": (2, MESSAGE, True, "Dim")},
    "Tensor": {
        "dtype": (1, INT32),
        "tensor_shape": (2, MESSAGE, False, "Shape"),
        "tensor_content": (4, BYTES),
        "float_val": (5, FLOAT, True),
        "double_val": (6, DOUBLE, True),
        "int_val": (7, INT32, True),
        "string_val": (8, BYTES, True),
        "int64_val": (10, INT64, True),
        "bool_val": (11, BOOL, True),
        "half_val": (13, INT32, True),
        "uint32_val": (16, UINT32, True),
        "uint64_val": (17, UINT64, True),
    },
    "Version": {"value": (1, INT64)},
    "Spec": {
        "name": (1, STRING),
        "version": (2, MESSAGE, False, "Version"),
        "signature_name": (3, STRING),
        "version_label": (4, STRING),
    },
    "Entry": {"key": (1, STRING), "value": (2, MESSAGE, False, "Tensor")},
    "Request": {
        "model_spec": (1, MESSAGE, False, "Spec"),
        "inputs": (2, MESSAGE, True, "Entry"),
        "output_filter": (3, STRING, True),
    },
    "Response": {"outputs": (1, MESSAGE, True, "Entry"), "model_spec": (2, MESSAGE, False, "Spec")},
}
FIELDS = {
    "FP32": (1, "float_val", np.float32),
    "FP64": (2, "double_val", np.float64),
    "INT32": (3, "int_val", np.int32),
    "UINT8": (4, "int_val", np.uint8),
    "INT16": (5, "int_val", np.int16),
    "INT8": (6, "int_val", np.int8),
    "BYTES": (7, "string_val", np.object_),
    "INT64": (9, "int64_val", np.int64),
    "BOOL": (10, "bool_val", np.bool_),
    "UINT16": (17, "int_val", np.uint16),
    "FP16": (19, "half_val", np.float16),
    "UINT32": (22, "uint32_val", np.uint32),
    "UINT64": (23, "uint64_val", np.uint64),
}


def messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="tfs_test.proto", package="tfs", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, *rest) in fields.items():
            repeated, of = (*rest, False, None)[:2] if len(rest) < 2 else rest
            added = message.field.add(name=field, number=number, type=kind, label=3 if repeated else 1)
            if of:
                added.type_name = f".tfs.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName("tfs_test.proto").message_types_by_name
    return {name: message_factory.GetMessageClass(found[name]) for name in MESSAGES}


PB = messages()


def request(array: np.ndarray[Any, Any], datatype: str, *, content: bool = False, **spec: Any) -> Any:
    number, field, _ = FIELDS[datatype]
    message = PB["Request"](model_spec={"name": "m", **spec})
    tensor = message.inputs.add(key="x").value
    tensor.dtype = number
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if content:
        tensor.tensor_content = array.tobytes()
    else:
        values: Any = array.view(np.uint16) if datatype == "FP16" else array
        getattr(tensor, field).extend(values.ravel().tolist())
    return message


def answer(response: Any, datatype: str) -> np.ndarray[Any, Any]:
    number, field, dtype = FIELDS[datatype]
    (entry,) = response.outputs
    assert entry.value.dtype == number
    values: Any = np.array(list(getattr(entry.value, field)), np.uint16 if datatype == "FP16" else dtype)
    values = values.view(np.float16) if datatype == "FP16" else values
    shaped: np.ndarray[Any, Any] = values.reshape([each.size for each in entry.value.tensor_shape.dim])
    return shaped


def predict(channel: grpc.Channel, message: Any) -> Any:
    method = channel.unary_unary(
        "/tensorflow.serving.PredictionService/Predict",
        request_serializer=PB["Request"].SerializeToString,
        response_deserializer=PB["Response"].FromString,
    )
    return method(message)


def array(datatype: str) -> np.ndarray[Any, Any]:
    if datatype == "BYTES":
        return np.array([[b"a", b"", b"bc"]], object)
    if datatype == "BOOL":
        return np.array([[True, False, True]])
    dtype = FIELDS[datatype][2]
    info = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    return np.array([[info.min, 1, info.max]], dtype)


def echo(batch: Any) -> Any:
    return {"y": batch.inputs["x"]}


@pytest.mark.parametrize("content", [False, True], ids=["fields", "tensor_content"])
@pytest.mark.parametrize("datatype", list(FIELDS))
def test_tensors_of_every_datatype_come_back_in_their_field(
    serve: Any, datatype: str, *, content: bool
) -> None:
    if content and datatype == "BYTES":
        content = False  # TensorFlow has no tensor_content of strings
    spec = ("batch", 3)
    with (
        serve(echo, inputs=(("x", datatype, spec),), outputs=(("y", datatype, spec),)) as served,
        served.channel() as channel,
    ):
        found = answer(predict(channel, request(array(datatype), datatype, content=content)), datatype)
    np.testing.assert_array_equal(found, array(datatype))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([7.0], [[7, 7, 7]], id="one"),
        pytest.param([1.0, 2.0], [[1, 2, 2]], id="last"),
        pytest.param([], [[0, 0, 0]], id="none"),
    ],
)
def test_the_last_value_given_repeats(serve: Any, values: list[float], expected: Any) -> None:
    message = request(np.zeros((1, 3), np.float32), "FP32")
    message.inputs[0].value.float_val[:] = values
    message.inputs[0].value.int_val.append(9)  # which is for other datatypes
    with (
        serve(echo, inputs=(("x", "FP32", ("b", 3)),), outputs=(("y", "FP32", ("b", 3)),)) as served,
        served.channel() as channel,
    ):
        assert answer(predict(channel, message), "FP32").tolist() == expected


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="default"),
        pytest.param({"version": {"value": 1}}, id="number"),
        pytest.param({"version_label": "stable"}, id="label"),
        pytest.param({"signature_name": "serving_default"}, id="signature"),
    ],
)
def test_versions_are_found_and_named_in_the_answer(serve: Any, rows: Any, spec: dict[str, Any]) -> None:
    with serve() as served, served.channel() as channel:
        response = predict(channel, request(rows(2), "FP32", **spec))
    np.testing.assert_array_equal(answer(response, "FP32"), rows(2) * 2)
    assert (response.model_spec.name, response.model_spec.version.value) == ("m", 1)
    assert response.model_spec.signature_name == "serving_default"


def test_both_protocols_share_a_batch(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served, served.channel() as channel:
        call = oip.stub(channel).ModelInfer.future(oip.request(rows(1)))
        while served.queue.depth != 1:
            pass
        method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        other = method.future(request(rows(2), "FP32").SerializeToString())
        while served.queue.depth != 2:
            pass
        served.go.set()
        np.testing.assert_array_equal(oip.answer(call.result()), rows(1) * 2)
        np.testing.assert_array_equal(answer(PB["Response"].FromString(other.result()), "FP32"), rows(2) * 2)
    assert served.batches == [3]


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        pytest.param(
            {"name": "n"},
            "NOT_FOUND",
            "Request for unknown model: 'n' is not found; available: m",
            id="model",
        ),
        pytest.param(
            {"version": {"value": 9}},
            "NOT_FOUND",
            "Request for unknown model: 'm' version 9 is not found; available: 1, stable",
            id="version",
        ),
        pytest.param(
            {"signature_name": "foo"},
            "INVALID_ARGUMENT",
            "signature 'foo' is not known; every model has one, 'serving_default'",
            id="signature",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    serve: Any, oip: Any, rows: Any, spec: dict[str, Any], code: str, text: str
) -> None:
    with serve() as served, served.channel() as channel:
        found = oip.refusal(lambda: predict(channel, request(rows(1), "FP32", **spec)))
    assert found == (grpc.StatusCode[code], text)


def test_many_inputs_are_refused_as_fast_as_they_are_read(serve: Any, oip: Any, rows: Any) -> None:
    message = request(rows(1), "FP32")
    for number in range(200_000):
        message.inputs.add(key=str(number))
    with serve() as served, served.channel() as channel:
        code, text = oip.refusal(lambda: predict(channel, message))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("unexpected input '0'")


def test_only_filtered_outputs_are_sent(serve: Any, oip: Any, rows: Any) -> None:
    message = request(rows(1), "FP32")
    message.output_filter.append("z")
    outputs = (("y", "FP32", ("batch", 4)), ("z", "FP32", ("batch", 4)))
    with (
        serve(lambda batch: {"z": batch.inputs["x"]}, outputs=outputs) as served,
        served.channel() as channel,
    ):
        response = predict(channel, message)
    assert [entry.key for entry in response.outputs] == ["z"]
