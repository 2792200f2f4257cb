"""ModelInfer on the wire: what goes in comes out, and what does not fit is told."""

from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBERS = {
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
}
TYPED = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


def echo(batch: Any) -> Any:
    return {"y": batch.inputs["x"]}


def extremes(datatype: str) -> np.ndarray[Any, Any]:
    dtype: Any = np.dtype(NUMBERS[datatype])
    if dtype.kind == "b":
        return np.array([[True, False, True]])
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return np.array([[info.min, 1, info.max]], dtype)


@pytest.mark.parametrize("datatype", [pytest.param(name, id=name) for name in NUMBERS])
def test_raw_numbers_of_every_datatype_come_back(serve: Any, oip: Any, datatype: str) -> None:
    spec = (("x", datatype, ("batch", 3)),), (("y", datatype, ("batch", 3)),)
    array = extremes(datatype)
    with serve(echo, inputs=spec[0], outputs=spec[1]) as served, served.channel() as channel:
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(array, datatype)))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("datatype", [pytest.param(name, id=name) for name in TYPED])
def test_typed_numbers_of_every_datatype_come_back_raw(serve: Any, oip: Any, datatype: str) -> None:
    spec = (("x", datatype, ("batch", 3)),), (("y", datatype, ("batch", 3)),)
    array = extremes(datatype)
    tensor = oip.tensor("x", datatype, array.shape)
    getattr(tensor.contents, TYPED[datatype]).extend(array.ravel().tolist())
    with serve(echo, inputs=spec[0], outputs=spec[1]) as served, served.channel() as channel:
        request = oip.pb.ModelInferRequest(model_name="m", inputs=[tensor])
        found = oip.answer(oip.stub(channel).ModelInfer(request))
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("typed", [pytest.param(True, id="typed"), pytest.param(False, id="raw")])
def test_byte_strings_come_back(serve: Any, oip: Any, *, typed: bool) -> None:
    array = np.array([[b"", b"a\0b"], ["é".encode(), b"x" * 100_000]], object)
    kinds: list[Any] = []

    def compute(batch: Any) -> Any:
        kinds.append({type(each) for each in batch.inputs["x"].ravel()})
        return echo(batch)

    spec = (("x", "BYTES", ("batch", 2)),), (("y", "BYTES", ("batch", 2)),)
    request = oip.request(array, "BYTES")
    if typed:
        del request.raw_input_contents[:]
        request.inputs[0].contents.bytes_contents.extend(array.ravel().tolist())
    with serve(compute, inputs=spec[0], outputs=spec[1]) as served, served.channel() as channel:
        found = oip.answer(oip.stub(channel).ModelInfer(request))
    assert kinds == [{bytes}]
    np.testing.assert_array_equal(found, array)


def test_outputs_of_str_are_sent_as_utf_8(serve: Any, oip: Any, rows: Any) -> None:
    def compute(batch: Any) -> Any:
        return {"y": np.array(["grün"] * batch.rows, object)}

    with serve(compute, outputs=(("y", "BYTES", ("batch",)),)) as served, served.channel() as channel:
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(rows(2))))
    assert found.tolist() == ["grün".encode()] * 2


def test_a_model_without_a_batch_dimension_gets_one_request_at_a_time(serve: Any, oip: Any) -> None:
    with (
        serve(inputs=(("x", "FP32", (2, "n")),), outputs=(("y", "FP32", (2, "n")),), batched=False) as served,
        served.channel() as channel,
    ):
        stub = oip.stub(channel)
        arrays = [np.full((2, size), size, np.float32) for size in (1, 3, 0)]
        calls = [stub.ModelInfer.future(oip.request(array)) for array in arrays]
        for call, array in zip(calls, arrays, strict=True):
            np.testing.assert_array_equal(oip.answer(call.result()), array * 2)
    assert served.batches == [1, 1, 1]


def test_a_scalar_comes_back(serve: Any, oip: Any) -> None:
    scalar = (("x", "FP32", ()),), (("y", "FP32", ()),)
    with (
        serve(echo, inputs=scalar[0], outputs=scalar[1], batched=False) as served,
        served.channel() as channel,
    ):
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(np.array(1.5, np.float32))))
    assert found.shape == ()
    assert found == 1.5


def test_inputs_are_aligned_contiguous_and_stacked_in_the_models_order(serve: Any, oip: Any) -> None:
    seen: list[Any] = []

    def compute(batch: Any) -> Any:
        seen.append(
            [(name, each.flags.c_contiguous, each.ctypes.data % 64) for name, each in batch.inputs.items()]
        )
        return {"y": batch.inputs["a"] - batch.inputs["b"]}

    specs = (("a", "FP32", ("n", "m")), ("b", "FP32", ("n", "m")))
    request = oip.pb.ModelInferRequest(
        model_name="m",
        inputs=[oip.tensor("b", "FP32", (1, 2)), oip.tensor("a", "FP32", (1, 2))],
        raw_input_contents=[np.array([1, 2], np.float32).tobytes(), np.array([10, 20], np.float32).tobytes()],
    )
    with (
        serve(compute, inputs=specs, outputs=(("y", "FP32", ("n", "m")),)) as served,
        served.channel() as channel,
    ):
        found = oip.answer(oip.stub(channel).ModelInfer(request))
    assert found.tolist() == [[9.0, 18.0]]
    assert seen == [[("a", True, 0), ("b", True, 0)]]


def test_only_requested_outputs_are_computed_and_sent_in_the_clients_order(
    serve: Any, oip: Any, rows: Any
) -> None:
    asked: list[Any] = []

    def compute(batch: Any) -> Any:
        asked.append(batch.requested)
        return dict.fromkeys(batch.requested or ("y", "z"), batch.inputs["x"])

    outputs = (("y", "FP32", ("batch", 4)), ("z", "FP32", ("batch", 4)))
    with serve(compute, outputs=outputs) as served, served.channel() as channel:
        stub = oip.stub(channel)
        for names in ([], ["z"], ["z", "y"]):
            request = oip.request(rows(1))
            for name in names:
                request.outputs.add(name=name)
            response = stub.ModelInfer(request)
            assert [each.name for each in response.outputs] == (names or ["y", "z"])
            assert len(response.raw_output_contents) == len(response.outputs)
    assert asked == [None, frozenset({"z"}), frozenset({"y", "z"})]


def test_an_output_that_is_asked_for_often_is_sent_once(serve: Any, oip: Any, rows: Any) -> None:
    request = oip.request(rows(1))
    for _ in range(1000):
        request.outputs.add(name="y")
    with serve() as served, served.channel() as channel:
        response = oip.stub(channel).ModelInfer(request)
    assert [each.name for each in response.outputs] == ["y"]
    assert len(response.raw_output_contents) == 1


def test_long_messages_are_cut(serve: Any, oip: Any, rows: Any) -> None:
    request = oip.request(rows(1), model_name="n" * 100_000)
    with serve() as served, served.channel() as channel:
        code, text = oip.refusal(lambda: oip.stub(channel).ModelInfer(request))
    assert code is grpc.StatusCode.NOT_FOUND
    assert text == f"Request for unknown model: '{'n' * 2020}..."


def test_the_answer_says_which_model_answered_and_repeats_the_id(serve: Any, oip: Any, rows: Any) -> None:
    with serve() as served, served.channel() as channel:
        response = oip.stub(channel).ModelInfer(oip.request(rows(1), id="seven", model_version="stable"))
    assert (response.model_name, response.model_version, response.id) == ("m", "1", "seven")


def test_parameters_reach_the_executor(serve: Any, oip: Any, rows: Any) -> None:
    seen: list[Any] = []

    def compute(batch: Any) -> Any:
        seen.append(batch.parameters)
        return {"y": batch.inputs["x"]}

    parameters = {"flag": True, "count": -3, "text": "ü", "share": 0.5}
    with serve(compute) as served, served.channel() as channel:
        oip.stub(channel).ModelInfer(oip.request(rows(1), parameters=parameters))
    assert seen == [parameters]


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        pytest.param(
            {"model_name": "n"},
            "NOT_FOUND",
            "Request for unknown model: 'n' is not found; available: m",
            id="model",
        ),
        pytest.param(
            {"model_version": "7"},
            "NOT_FOUND",
            "Request for unknown model: 'm' version 7 is not found; available: 1, stable",
            id="version",
        ),
        pytest.param(
            {"shape": [1, 5]},
            "INVALID_ARGUMENT",
            "input 'x': expected shape [batch, 4], got [1, 5]",
            id="shape",
        ),
        pytest.param(
            {"shape": [-1, 4]},
            "INVALID_ARGUMENT",
            "input 'x': expected shape [batch, 4], got [-1, 4]",
            id="minus",
        ),
        pytest.param(
            {"shape": [4]}, "INVALID_ARGUMENT", "input 'x': expected shape [batch, 4], got [4]", id="rank"
        ),
        pytest.param(
            {"datatype": "INT64"},
            "INVALID_ARGUMENT",
            "input 'x': expected datatype FP32, got INT64",
            id="datatype",
        ),
        pytest.param(
            {"name": "z"}, "INVALID_ARGUMENT", "unexpected input 'z'; model 'm' takes: x", id="unexpected"
        ),
        pytest.param(
            {"raw": b"123"},
            "INVALID_ARGUMENT",
            "input 'x': expected 16 bytes for FP32 [1, 4], got 3",
            id="length",
        ),
        pytest.param(
            {"output": "foo"},
            "INVALID_ARGUMENT",
            "unexpected inference output 'foo' for model 'm'; it has: y",
            id="output",
        ),
        pytest.param(
            {"no_raw": True},
            "INVALID_ARGUMENT",
            "input 'x': expected 4 elements for FP32 [1, 4], got 0",
            id="no contents",
        ),
        pytest.param(
            {"both": True},
            "INVALID_ARGUMENT",
            "input 'x': expected either raw_input_contents or fp32_contents, got both",
            id="twice",
        ),
        pytest.param(
            {"second_raw": True},
            "INVALID_ARGUMENT",
            "expected one entry of raw_input_contents for each of the 1 inputs, got 2",
            id="too many raw",
        ),
        pytest.param(
            {"no_inputs": True}, "INVALID_ARGUMENT", "input 'x' is missing; model 'm' takes: x", id="missing"
        ),
        pytest.param(
            {"shape": [2**62, 4]},
            "INVALID_ARGUMENT",
            f"input 'x': expected {2**66} bytes for FP32 [{2**62}, 4], got 16",
            id="overflow",
        ),
        pytest.param(
            {"shared_memory": True},
            "UNIMPLEMENTED",
            "tensor 'x': this server does not support shared memory; "
            "send the tensor's contents in the request",
            id="shared memory",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_told_why(
    serve: Any, oip: Any, rows: Any, change: dict[str, Any], code: str, text: str
) -> None:
    request = oip.request(rows(1))
    for name in ("model_name", "model_version"):
        setattr(request, name, change.get(name, getattr(request, name)))
    tensor = request.inputs[0]
    tensor.name = change.get("name", tensor.name)
    tensor.datatype = change.get("datatype", tensor.datatype)
    tensor.shape[:] = change.get("shape", tensor.shape)
    request.raw_input_contents[0] = change.get("raw", request.raw_input_contents[0])
    if "output" in change:
        request.outputs.add(name=change["output"])
    if "both" in change:
        tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    if "second_raw" in change:
        request.raw_input_contents.append(b"")
    if "shared_memory" in change:
        tensor.parameters["shared_memory_region"].string_param = "region"
    if "no_raw" in change or "no_inputs" in change:
        del request.raw_input_contents[:]
    if "no_inputs" in change:
        del request.inputs[:]
    with serve() as served, served.channel() as channel:
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(request))
    assert found == (grpc.StatusCode[code], text)
    assert served.batches == []


def test_dimensions_of_one_name_must_agree(serve: Any, oip: Any) -> None:
    specs = (("a", "FP32", ("n", "m")), ("b", "FP32", ("n", "m")))
    request = oip.pb.ModelInferRequest(
        model_name="m",
        inputs=[oip.tensor("a", "FP32", (1, 2)), oip.tensor("b", "FP32", (1, 3))],
        raw_input_contents=[bytes(8), bytes(12)],
    )
    with serve(inputs=specs) as served, served.channel() as channel:
        _, text = oip.refusal(lambda: oip.stub(channel).ModelInfer(request))
    assert text == "input 'b': expected shape [n, m], got [1, 3]; m is 2 in input 'a'"


def test_optional_inputs_may_be_left_out(serve: Any, oip: Any, rows: Any) -> None:
    def compute(batch: Any) -> Any:
        return {"y": batch.inputs["x"] + batch.inputs.get("bias", 0)}

    inputs = (("x", "FP32", ("batch", 4)), ("bias", "FP32", ("batch", 4), (), True))
    with serve(compute, inputs=inputs) as served, served.channel() as channel:
        stub = oip.stub(channel)
        np.testing.assert_array_equal(oip.answer(stub.ModelInfer(oip.request(rows(1)))), rows(1))
        both = oip.request(rows(1))
        both.inputs.append(oip.tensor("bias", "FP32", (1, 4)))
        both.raw_input_contents.append(rows(1).tobytes())
        np.testing.assert_array_equal(oip.answer(stub.ModelInfer(both)), rows(1) * 2)


def test_the_best_classes_are_sent_with_their_labels(serve: Any) -> None:
    def compute(batch: Any) -> Any:
        return {"y": np.array([[0.25, 1, 0.5]] * batch.rows, np.float32)}

    outputs = (("y", "FP32", ("batch", 3), ("cat", "dog", "eel")),)
    with serve(compute, outputs=outputs) as served:
        client = triton.InferenceServerClient(served.address)
        x = triton.InferInput("x", [2, 4], "FP32")
        x.set_data_from_numpy(np.zeros((2, 4), np.float32))
        result = client.infer("m", [x], outputs=[triton.InferRequestedOutput("y", class_count=2)])
        found = result.as_numpy("y")
        client.close()
    assert found.tolist() == [[b"1.000000:1:dog", b"0.500000:2:eel"]] * 2


@pytest.mark.parametrize("algorithm", [None, "gzip", "deflate"])
def test_tritonclient_is_answered_whatever_its_compression(serve: Any, algorithm: str | None) -> None:
    array = np.tile(np.arange(4, dtype=np.float32), (3000, 1))
    with serve() as served:
        client = triton.InferenceServerClient(served.address)
        x = triton.InferInput("x", array.shape, "FP32")
        x.set_data_from_numpy(array)
        result = client.infer("m", [x], compression_algorithm=algorithm)
        np.testing.assert_array_equal(result.as_numpy("y"), array * 2)
        client.close()


def test_a_batch_that_fails_answers_with_its_status(serve: Any, oip: Any, rows: Any) -> None:
    with (
        serve(lambda batch: batch.fail(3, "no such word: 50 % of 'é'")) as served,
        served.channel() as channel,
    ):
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1))))
    assert found == (grpc.StatusCode.INVALID_ARGUMENT, "no such word: 50 % of 'é'")


def test_a_batch_that_is_dropped_answers_internal(serve: Any, oip: Any, rows: Any) -> None:
    with serve(lambda _: None) as served, served.channel() as channel:
        code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1))))
    assert code is grpc.StatusCode.INTERNAL


def test_a_wrong_answer_of_the_executor_is_told_to_it(serve: Any, oip: Any, rows: Any) -> None:
    problems: list[str] = []

    def compute(batch: Any) -> Any:
        for outputs in ({}, {"y": np.zeros((2, 4))}, {"y": np.zeros((3, 4), np.float32)}, {"y": [1, 2]}):
            try:
                batch.reply(outputs)
            except (KeyError, TypeError, ValueError) as error:
                problems.append(str(error))
        return {"y": np.asfortranarray(batch.inputs["x"])}

    with serve(compute) as served, served.channel() as channel:
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(rows(2))))
    np.testing.assert_array_equal(found, rows(2))
    assert len(problems) == 4
    assert "output 'y' of model 'm' is missing" in problems[0]
    assert "expected dtype float32, got float64" in problems[1]
    assert "expected 2 rows, got shape [3, 4]" in problems[2]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=12),
    width=st.integers(0, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_request_gets_its_own_rows_back(
    serve: Any, oip: Any, sizes: list[int], width: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    arrays = [random.random((size, width), np.float32) for size in sizes]
    shape = ("batch", "width")
    with (
        serve(inputs=(("x", "FP32", shape),), outputs=(("y", "FP32", shape),), go=False) as served,
        served.channel() as channel,
    ):
        stub = oip.stub(channel)
        calls = [stub.ModelInfer.future(oip.request(array)) for array in arrays]
        served.go.set()
        for call, array in zip(calls, arrays, strict=True):
            np.testing.assert_array_equal(oip.answer(call.result(20)), array * 2)


def test_inputs_of_a_batch_have_the_same_rows_whatever_their_dimensions_are_called(
    serve: Any, oip: Any
) -> None:
    """Their memory is read as if they had: what lies behind the shorter one is somebody else's."""
    free = (("a", "FP32", (None, 2)), ("b", "FP32", (None, 2)))
    with (
        serve(
            lambda batch: {"y": batch.inputs["b"]}, inputs=free, outputs=(("y", "FP32", (None, 2)),)
        ) as served,
        served.channel() as channel,
    ):
        request = oip.pb.ModelInferRequest(model_name="m")
        for name, rows in (("a", 3), ("b", 2)):
            request.inputs.append(oip.tensor(name, "FP32", (rows, 2)))
            request.raw_input_contents.append(bytes(rows * 8))
        with pytest.raises(grpc.RpcError, match="input 'b': expected 3 rows, as in input 'a', got 2"):
            oip.stub(channel).ModelInfer(request)


def test_a_batched_model_without_an_axis_is_refused(serve: Any) -> None:
    with (
        pytest.raises(ValueError, match="x: has no axis, but axis 0 of a batched model is the batch"),
        serve(echo, inputs=(("x", "FP32", ()),)),
    ):
        pass


def test_whoever_tells_of_an_answered_batch_does_not_fail_for_it(serve: Any, oip: Any) -> None:
    """An ensemble's thread ended when it told the log of an answer that could not be sent."""
    ids: list[Any] = []

    def compute(batch: Any) -> None:
        ids.append(batch.request_ids)
        batch.reply({"y": batch.inputs["x"]})
        ids.append(batch.request_ids)

    with serve(compute) as served, served.channel() as channel:
        oip.stub(channel).ModelInfer(oip.request(np.ones((1, 4), np.float32), id="one"))
    assert ids == [["one"], []]
