"""Ensembles, asked by the clients of Triton and of TensorFlow Serving, on both transports."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

PAIR = "step { model_name: 'pair' model_version: -1 %s }"
DIAMOND = """
platform: "ensemble"
max_batch_size: 64
input [ { name: "a" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "b" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [
  { name: "class" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" },
  { name: "total" data_type: TYPE_FP32 dims: [ 4 ] }
]
ensemble_scheduling {
  step { model_name: "classifier" model_version: -1
    input_map { key: "features" value: "total" } output_map { key: "probabilities" value: "class" } }
  step { model_name: "pair" model_version: -1
    input_map { key: "left" value: "a2" } input_map { key: "right" value: "b2" }
    output_map { key: "sum" value: "total" } }
  step { model_name: "echo_fp32" model_version: 1
    input_map { key: "x" value: "a" } output_map { key: "y" value: "a2" } }
  step { model_name: "echo_fp32" model_version: -1
    input_map { key: "x" value: "b" } output_map { key: "y" value: "b2" } }
}
"""
# The same chain for text, in kerve's own file, without declared tensors; and one within another.
WORDS = """
[[ensemble_scheduling.step]]
model_name = "echo_bytes"
input_map = { x = "words" }
output_map = { y = "between" }
[[ensemble_scheduling.step]]
model_name = "echo_bytes"
input_map = { x = "between" }
output_map = { y = "same" }
"""
NESTED = """
[[ensemble_scheduling.step]]
model_name = "diamond"
input_map = { a = "first", b = "second" }
output_map = { total = "features" }
[[ensemble_scheduling.step]]
model_name = "classifier"
input_map = { features = "features" }
output_map = { logits = "logits" }
"""
# A model without a batch dimension, of an ensemble without one.
COUNT = """
platform: "ensemble"
input { name: "steps" data_type: TYPE_INT64 dims: [] }
output { name: "total" data_type: TYPE_INT64 dims: [] }
ensemble_scheduling {
  step { model_name: "counter" model_version: -1
    input_map { key: "steps" value: "steps" } output_map { key: "total" value: "between" } }
  step { model_name: "counter" model_version: -1
    input_map { key: "steps" value: "between" } output_map { key: "total" value: "total" } }
}
"""

# A member whose clients see other shapes than its graph has, in an ensemble that reshapes as well.
SQUARE = """
max_batch_size: 8
input { name: "features" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
output { name: "logits" data_type: TYPE_FP32 dims: [ 3, 1 ] reshape { shape: [ 3 ] } }
"""
RESHAPED = """
max_batch_size: 8
input { name: "in" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }
output { name: "out" data_type: TYPE_FP32 dims: [ 1, 3 ] reshape { shape: [ 3, 1 ] } }
ensemble_scheduling { step { model_name: "square" model_version: -1
  input_map { key: "features" value: "in" } output_map { key: "logits" value: "out" } } }
"""
# One row without a batch, for members with one; and rows of a batch for a member without one.
ONE_ROW = """
input { name: "in" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "out" data_type: TYPE_FP32 dims: [ 3 ] }
ensemble_scheduling {
  step { model_name: "echo_fp32" model_version: -1
    input_map { key: "x" value: "in" } output_map { key: "y" value: "same" } }
  step { model_name: "classifier" model_version: -1
    input_map { key: "features" value: "same" } output_map { key: "logits" value: "out" } }
}
"""
AS_MATRIX = """
input { name: "x" data_type: TYPE_FP32 dims: [ -1, -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, -1 ] }
"""
MIXED = """
max_batch_size: 8
input { name: "in" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "out" data_type: TYPE_FP32 dims: [ 3 ] }
ensemble_scheduling {
  step { model_name: "matrix" model_version: -1
    input_map { key: "x" value: "in" } output_map { key: "y" value: "same" } }
  step { model_name: "classifier" model_version: -1
    input_map { key: "features" value: "same" } output_map { key: "logits" value: "out" } }
}
"""


def echo_step(more: str = "", *, inputs: str = "x", outputs: str = "y", model: str = "echo_fp32") -> str:
    """An ensemble of one step, in text form, with something more."""
    return (
        f"ensemble_scheduling {{ step {{ model_name: '{model}' model_version: -1 "
        f"input_map {{ key: '{inputs}' value: 'in' }} output_map {{ key: '{outputs}' value: 'out' }} }} "
        f"{more} }}"
    )


def tensor(name: str, datatype: str, dims: str) -> str:
    return f"{{ name: '{name}' data_type: TYPE_{datatype} dims: {dims} }}"


IN, OUT = f"input {tensor('in', 'FP32', '[-1]')}", f"output {tensor('out', 'FP32', '[-1]')}"
# What the index says, in part, of an ensemble that cannot be served.
BAD = {
    "no_step": ("ensemble_scheduling {}", "expected at least one step, got none"),
    "no_map": ("ensemble_scheduling { step { model_name: 'pair' } }", "input_map: expected the model's"),
    "unknown_model": (echo_step(model="nowhere"), "Request for unknown model: 'nowhere' is not found"),
    "unknown_version": (
        echo_step().replace("-1", "7"),
        "Request for unknown model: 'echo_fp32' version 7 is not found; available: 1",
    ),
    "unknown_input": (
        echo_step(inputs="q"),
        "input_map names input 'q', which the model does not have; it has: x",
    ),
    "unknown_output": (echo_step(outputs="q"), "output_map names output 'q'"),
    "left_out": (
        echo_step(model="pair", inputs="left", outputs="sum"),
        "lacks the model's input 'right'",
    ),
    "twice": (
        echo_step("step { model_name: 'echo_fp32' input_map { key: 'x' value: 'in' } "
                  "output_map { key: 'y' value: 'out' } }"),
        "tensor 'out' is produced twice",
    ),
    "unproduced": (
        f"max_batch_size: 4 {IN} output {tensor('other', 'FP32', '[-1]')} {echo_step()}",
        "output 'other': no step produces it; the steps produce: out",
    ),
    "dangling": (
        f"max_batch_size: 4 {IN} {OUT} "
        + echo_step().replace("value: 'in'", "value: 'q'"),
        "takes tensor 'q', which is neither an input of the ensemble nor the output of a step",
    ),
    "unused": (
        f"max_batch_size: 4 {IN} input {tensor('more', 'FP32', '[1]')} {OUT} {echo_step()}",
        "input 'more': no step uses it",
    ),
    "datatype": (
        f"max_batch_size: 4 input {tensor('in', 'INT8', '[-1]')} {OUT} {echo_step()}",
        "tensor 'in': the ensemble's input has datatype INT8, input 'x' of step 'echo_fp32' has FP32",
    ),
    "shape": (
        f"max_batch_size: 4 input {tensor('in', 'FP32', '[5]')} "
        + echo_step(model="classifier", inputs="features", outputs="logits"),
        "has shape [batch, 5], input 'features' of step 'classifier' has [batch, 4]",
    ),
    "rank": (
        f"input {tensor('in', 'FP32', '[-1, -1, -1]')} {OUT} {echo_step()}",
        "has shape [?, ?, ?], input 'x' of step 'echo_fp32' has [batch, width]",
    ),
    "batch": (
        f"max_batch_size: 4 {echo_step(model='counter', inputs='steps', outputs='total')}",
        "takes no batches: its max_batch_size is 0",
    ),
    "circle": (
        echo_step(
            "step { model_name: 'pair' input_map { key: 'left' value: 'out' } "
            "input_map { key: 'right' value: 'c' } output_map { key: 'sum' value: 'b' } } "
            "step { model_name: 'echo_fp32' input_map { key: 'x' value: 'b' } "
            "output_map { key: 'y' value: 'c' } }"
        ),
        "a cycle: steps 'pair' and 'echo_fp32' wait for one another's outputs",
    ),
    "within_itself": (echo_step(model="within_other"), "-> within_itself; an ensemble cannot be part of"),
    "within_other": (echo_step(model="within_itself"), "a cycle: within_other -> within_itself -> "),
    "platform": ('platform: "onnxruntime_onnx" ' + echo_step(), "expected platform 'ensemble'"),
    "instances": ("instance_group { count: 2 } " + echo_step(), "an ensemble has no instances"),
}  # fmt: skip
MEMBERS = ("pair", "classifier", "echo_fp32", "echo_bytes", "counter")


def write(repository: Path, name: str, text: str, file: str = "config.pbtxt") -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / file).write_text(text)


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, models: Path, serve: Serve
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("ensembles")
    for name in MEMBERS:
        (repository / name / "1").mkdir(parents=True)
        shutil.copy(models / f"{name}.onnx", repository / name / "1" / "model.onnx")
    write(repository, "diamond", DIAMOND)
    (repository / "diamond" / "labels.txt").write_text("cat\ndog\nowl\n")
    write(repository, "words", WORDS, "config.toml")
    write(repository, "a_nested", NESTED, "config.toml")
    write(repository, "count", COUNT)
    for name, config in {"reshaped": RESHAPED, "one_row": ONE_ROW, "mixed": MIXED}.items():
        write(repository, name, config)
    for name, model, config in (("square", "classifier", SQUARE), ("matrix", "echo_fp32", AS_MATRIX)):
        write(repository, name, config)
        shutil.copy(models / f"{model}.onnx", repository / name / "1" / "model.onnx")
    write(repository, "cached", DIAMOND.replace(", { name", ", { name") + "response_cache { enable: true }")
    (repository / "cached" / "labels.txt").write_text("cat\ndog\nowl\n")
    for name, (config, _) in BAD.items():
        write(repository, name, config)
    with serve(
        repository, "--transport", transport, "--cache-size", "1000000", "--http-port", "-1"
    ) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def client(running: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(running.address) as client:
        yield client


def inputs_of(arrays: Mapping[str, np.ndarray[Any, Any]], datatype: str = "FP32") -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        inputs.append(triton.InferInput(name, array.shape, datatype))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def ask(
    client: Any,
    model: str,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    *,
    datatype: str = "FP32",
    **options: Any,
) -> Any:
    return client.infer(model, inputs_of(arrays, datatype), **options)


def by_hand(client: Any, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> dict[str, Any]:
    total = ask(client, "pair", {"left": a, "right": b}).as_numpy("sum")
    answer = ask(client, "classifier", {"features": total})
    return {"total": total, "class": answer.as_numpy("probabilities"), "logits": answer.as_numpy("logits")}


@settings(max_examples=25)
@given(rows=st.integers(0, 70), seed=st.integers(0, 2**16), wanted=st.sampled_from(["", "class", "total"]))
def test_an_ensemble_is_its_members_called_by_hand(client: Any, rows: int, seed: int, wanted: str) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(2, rows, 4)).astype(np.float32)
    outputs = [triton.InferRequestedOutput(wanted)] if wanted else None
    answer = ask(client, "diamond", {"a": a, "b": b}, outputs=outputs)
    expected = by_hand(client, a, b)
    for name in [wanted] if wanted else ["class", "total"]:
        np.testing.assert_allclose(answer.as_numpy(name), expected[name], rtol=1e-6)
    nested = ask(client, "a_nested", {"first": a, "second": b})
    np.testing.assert_allclose(nested.as_numpy("logits"), expected["logits"], rtol=1e-5, atol=1e-6)


def test_members_batch_what_ensembles_ask(client: Any, running: Any) -> None:
    """Many clients at once: each has its own rows back."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with triton.InferenceServerClient(running.address) as own:
                for rows in range(1, 6):
                    a = np.full((rows, 4), number, np.float32)
                    total = ask(own, "diamond", {"a": a, "b": a}).as_numpy("total")
                    np.testing.assert_array_equal(total, 2 * a)
        except BaseException as error:  # noqa: BLE001  told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_text_passes_through(client: Any) -> None:
    words = np.array([[b"one", b""], [b"three", b"vier"]], object)
    answer = ask(client, "words", {"words": words}, datatype="BYTES").as_numpy("same")
    assert answer.tolist() == words.tolist()


def test_models_without_a_batch_dimension(client: Any) -> None:
    answer = ask(client, "count", {"steps": np.array(5, np.int64)}, datatype="INT64")
    assert answer.as_numpy("total") == 5


def test_a_tensor_is_reshaped_where_the_configuration_says(client: Any) -> None:
    rows = np.random.default_rng(7).normal(size=(3, 4)).astype(np.float32)
    expected = ask(client, "classifier", {"features": rows}).as_numpy("logits")
    answer = ask(client, "square", {"features": rows.reshape(3, 2, 2)}).as_numpy("logits")
    np.testing.assert_array_equal(answer, expected[:, :, None])
    answer = ask(client, "reshaped", {"in": rows}).as_numpy("out")
    np.testing.assert_array_equal(answer, expected[:, None, :])
    assert [list(each.shape) for each in client.get_model_metadata("square").inputs] == [[-1, 2, 2]]
    with pytest.raises(InferenceServerException, match=r"expected shape \[batch, 2, 2\], got \[3, 4\]"):
        ask(client, "square", {"features": rows})


def test_members_with_and_without_a_batch_make_one_ensemble(client: Any) -> None:
    rows = np.random.default_rng(8).normal(size=(3, 4)).astype(np.float32)
    expected = ask(client, "classifier", {"features": rows}).as_numpy("logits")
    np.testing.assert_array_equal(ask(client, "mixed", {"in": rows}).as_numpy("out"), expected)
    answer = ask(client, "one_row", {"in": rows[1]}).as_numpy("out")
    np.testing.assert_allclose(answer, expected[1], rtol=1e-6)


def test_classes_have_the_names_in_the_ensembles_file(client: Any) -> None:
    a = np.ones((2, 4), np.float32)
    wanted = triton.InferRequestedOutput("class", class_count=1)
    answer = ask(client, "diamond", {"a": a, "b": a}, outputs=[wanted]).as_numpy("class")
    assert answer[0, 0].decode().split(":")[2] in ("cat", "dog", "owl")


def test_metadata_and_configuration_show_the_chain(client: Any) -> None:
    metadata = client.get_model_metadata("diamond")
    assert metadata.platform == "ensemble"
    assert {each.name: list(each.shape) for each in metadata.inputs} == {"a": [-1, 4], "b": [-1, 4]}
    config = client.get_model_config("diamond").config
    assert (config.platform, config.backend, config.max_batch_size) == ("ensemble", "", 64)
    assert [step.model_name for step in config.ensemble_scheduling.step] == [
        *("classifier", "pair", "echo_fp32", "echo_fp32")
    ]
    assert not config.instance_group
    derived = client.get_model_config("a_nested").config
    assert [each.name for each in derived.input] == ["first", "second"]
    assert derived.max_batch_size == 64


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_run_is_refused_in_one_sentence(client: Any, name: str) -> None:
    (line,) = [each for each in client.get_model_repository_index().models if each.name == name]
    assert line.state == "UNAVAILABLE"
    assert BAD[name][1] in line.reason, line.reason
    assert not client.is_model_ready(name)


def counted(client: Any, model: str) -> tuple[int, int, int, int]:
    (stats,) = client.get_inference_statistics(model).model_stats
    inference = stats.inference_stats
    return (
        *(stats.inference_count, stats.execution_count),
        *(inference.success.count, inference.compute_infer.ns),
    )


def test_statistics_are_those_of_triton(client: Any) -> None:
    """Each request is one execution of the ensemble, which computes for as long as its members do."""
    names = ("diamond", "classifier", "pair", "echo_fp32")
    before = {name: counted(client, name) for name in names}
    for rows in (1, 3):
        ask(client, "diamond", {"a": np.ones((rows, 4), np.float32), "b": np.ones((rows, 4), np.float32)})
    grown = {
        name: [now - then for now, then in zip(counted(client, name), before[name], strict=True)]
        for name in names
    }
    assert grown["diamond"][:3] == [4, 2, 2]
    assert grown["classifier"][:3] == grown["pair"][:3] == [4, 2, 2]
    assert grown["echo_fp32"][2] == 4
    assert grown["echo_fp32"][0] == 8
    members = sum(grown[name][3] for name in names[1:])
    assert grown["diamond"][3] >= members > 0


def test_rest_and_streams_and_tensorflow_serving(client: Any, running: Any) -> None:
    a = np.arange(8, dtype=np.float32).reshape(2, 4)
    inputs = []
    for name in ("a", "b"):
        inputs.append(triton_http.InferInput(name, a.shape, "FP32"))
        inputs[-1].set_data_from_numpy(a)
    with triton_http.InferenceServerClient(running.http) as http:
        np.testing.assert_array_equal(http.infer("diamond", inputs).as_numpy("total"), 2 * a)
    answers: list[Any] = []
    client.start_stream(lambda result, error: answers.append(error or result))
    client.async_stream_infer("diamond", inputs_of({"a": a, "b": a}))
    client.stop_stream()
    np.testing.assert_array_equal(answers[0].as_numpy("total"), 2 * a)
    predict_pb2 = pytest.importorskip("kerve.tensorflow_serving.apis.predict_pb2")
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "diamond"
    for name in ("a", "b"):
        request.inputs[name].dtype = 1
        for size in a.shape:
            request.inputs[name].tensor_shape.dim.add(size=size)
        request.inputs[name].tensor_content = a.tobytes()
    with grpc.insecure_channel(running.address) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        total = predict(request).outputs["total"]
    content = total.tensor_content or np.array(total.float_val, np.float32).tobytes()
    np.testing.assert_array_equal(np.frombuffer(content, np.float32).reshape(2, 4), 2 * a)


def test_an_ensemble_has_a_response_cache_too(client: Any) -> None:
    a = {"a": np.ones((1, 4), np.float32), "b": np.ones((1, 4), np.float32)}
    first, second = (ask(client, "cached", a).as_numpy("total").tolist() for _ in range(2))
    assert first == second
    (stats,) = client.get_inference_statistics("cached").model_stats
    assert (stats.inference_stats.cache_hit.count, stats.execution_count) == (1, 1)


def test_a_request_that_does_not_fit_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"input 'a': expected shape \[batch, 4\], got"):
        ask(client, "diamond", {"a": np.ones((1, 5), np.float32), "b": np.ones((1, 4), np.float32)})


EXPLICIT = ("--model-control-mode", "explicit", "--http-port", "-1")


def publish_members(repository: Path, models: Path, *names: str) -> None:
    for name in names:
        (repository / name / "1").mkdir(parents=True)
        shutil.copy(models / f"{name}.onnx", repository / name / "1" / "model.onnx")


@pytest.fixture
def explicit(transport: str, tmp_path: Path, models: Path, serve: Serve) -> Iterator[Any]:
    repository = tmp_path / "models"
    publish_members(repository, models, "pair", "classifier", "echo_fp32", "counter")
    write(repository, "diamond", DIAMOND.replace(' label_filename: "labels.txt"', ""))
    write(repository, "count", COUNT)
    for name, config in {"reshaped": RESHAPED, "one_row": ONE_ROW, "mixed": MIXED}.items():
        write(repository, name, config)
    for name, model, config in (("square", "classifier", SQUARE), ("matrix", "echo_fp32", AS_MATRIX)):
        write(repository, name, config)
        shutil.copy(models / f"{model}.onnx", repository / name / "1" / "model.onnx")
    with (
        serve(repository, *EXPLICIT, "--transport", transport, "--drain-timeout", "300") as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.running, client.repository = running, repository
        yield client


def ready(client: Any) -> set[str]:
    return {line.name for line in client.get_model_repository_index().models if line.state == "READY"}


def reason(client: Any, name: str) -> str:
    (line,) = [each for each in client.get_model_repository_index().models if each.name == name]
    return str(line.reason)


def test_an_ensemble_comes_and_goes_with_its_members(explicit: Any, until: Until, models: Path) -> None:
    a = {"a": np.ones((1, 4), np.float32), "b": np.ones((1, 4), np.float32)}
    explicit.load_model("classifier")
    explicit.load_model("diamond")  # brings the others
    assert ready(explicit) == {"diamond", "classifier", "pair", "echo_fp32"}
    # Without a member it is not ready, and says why; with it, it is again.
    explicit.unload_model("pair")
    assert not explicit.is_model_ready("diamond")
    assert "Request for unknown model: 'pair' has no available versions" in reason(explicit, "diamond")
    with pytest.raises(InferenceServerException, match="has no available versions") as refused:
        ask(explicit, "diamond", a)
    assert "UNAVAILABLE" in refused.value.status()
    explicit.load_model("pair")
    assert ask(explicit, "diamond", a).as_numpy("total").tolist() == [[2.0] * 4]
    # A member's new version is picked up, where the step asks for the newest.
    shutil.copytree(explicit.repository / "pair" / "1", explicit.repository / "pair" / "2")
    explicit.load_model("pair")
    before = explicit.get_inference_statistics("pair", "2").model_stats[0].execution_count
    ask(explicit, "diamond", a)
    assert explicit.get_inference_statistics("pair", "2").model_stats[0].execution_count == before + 1
    # One that no longer fits is not.
    shutil.copytree(explicit.repository / "classifier" / "1", explicit.repository / "pair" / "3")
    explicit.load_model("pair")
    assert not explicit.is_model_ready("diamond")
    assert "which the model does not have; it has: " in reason(explicit, "diamond")
    shutil.rmtree(explicit.repository / "pair" / "3")
    explicit.load_model("pair")
    assert ask(explicit, "diamond", a).as_numpy("total").tolist() == [[2.0] * 4]
    # What it brought goes with it, if asked for; what a client has asked for stays.
    explicit.unload_model("diamond", unload_dependents=True)
    until(lambda: ready(explicit) == {"classifier", "pair"}, "only what was asked for serves")


def test_deadlines_and_cancellations_reach_the_members(explicit: Any, until: Until) -> None:
    explicit.load_model("count")
    long = inputs_of({"steps": np.array(10**7, np.int64)}, "INT64")
    short = inputs_of({"steps": np.array(1, np.int64)}, "INT64")
    first = explicit.async_infer("count", long, callback=lambda result, error: None)
    explicit.running.wait_for("counter", begun=1)
    answers: list[Any] = []
    explicit.async_infer(
        "count", short, callback=lambda result, error: answers.append((result, error)), client_timeout=0.2
    )
    cancelled = explicit.async_infer(
        "count", short, callback=lambda result, error: answers.append((result, error))
    )
    explicit.running.wait_for("counter", begun=1, arrived=3)
    cancelled.cancel()
    until(lambda: len(answers) == 2, "both are refused while the member is busy")
    assert {error.status() for _, error in answers} == {
        "StatusCode.DEADLINE_EXCEEDED",
        "StatusCode.CANCELLED",
    }
    first.cancel()  # what the member computes would take long yet: the server is killed


def test_what_was_accepted_is_answered_before_the_server_ends(explicit: Any, until: Until) -> None:
    """The second step is asked for after the signal came."""
    explicit.load_model("count")
    answers: list[Any] = []
    steps = inputs_of({"steps": np.array(10**6, np.int64)}, "INT64")
    explicit.async_infer("count", steps, callback=lambda result, error: answers.append((result, error)))
    explicit.running.wait_for("counter", begun=1)
    assert explicit.running.stop() == 0
    until(lambda: bool(answers), "the answer is there")
    ((result, error),) = answers
    assert error is None
    assert result.as_numpy("total") == 10**6


def test_members_wait_for_nobody_once_the_server_ends(explicit: Any, until: Until) -> None:
    """One waits for more requests when the signal comes, the next one is asked after it."""
    patient = "max_batch_size: 64 dynamic_batching { max_queue_delay_microseconds: 600000000 }"
    for member in ("pair", "classifier"):
        (explicit.repository / member / "config.pbtxt").write_text(patient)
    explicit.load_model("diamond")
    answers: list[Any] = []
    rows = {"a": np.ones((1, 4), np.float32), "b": np.ones((1, 4), np.float32)}
    explicit.async_infer(
        "diamond", inputs_of(rows), callback=lambda result, error: answers.append((result, error))
    )
    explicit.running.wait_for("pair", arrived=1)
    assert explicit.running.stop() == 0
    until(lambda: bool(answers), "the answer is there")
    ((result, error),) = answers
    assert error is None
    assert result.as_numpy("total").tolist() == [[2.0] * 4]


def test_a_client_may_send_an_ensembles_configuration(explicit: Any) -> None:
    """And a member that is loaded again under it goes on answering."""
    config = {
        "ensemble_scheduling": {
            "step": [
                {"model_name": "pair", "input_map": {"left": "p", "right": "q"}, "output_map": {"sum": "r"}}
            ]
        }
    }
    explicit.load_model("diamond", config=json.dumps(config))
    answer = ask(explicit, "diamond", {"p": np.ones((1, 2), np.float32), "q": np.ones((1, 2), np.float32)})
    assert answer.as_numpy("r").tolist() == [[2.0, 2.0]]
    assert ready(explicit) == {"diamond", "pair"}
