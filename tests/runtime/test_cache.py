"""The response cache: what is answered from it, and what it is bounded by, on both transports."""

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as memory
from hypothesis import given
from hypothesis import strategies as st

from kerve.runtime.cache import OVERHEAD, ResponseCache
from kerve.tensorflow_serving.apis import predict_pb2

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

# Ensembles whose members have a cache, and they have none.
CLASSIFIED = """
[[ensemble_scheduling.step]]
model_name = "echo_fp32"
input_map = { x = "x" }
output_map = { y = "between" }
[[ensemble_scheduling.step]]
model_name = "classifier"
input_map = { features = "between" }
output_map = { %s }
"""
ALL = 'logits = "logits", probabilities = "probabilities"'
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
ENSEMBLES = {"classified": CLASSIFIED % ALL, "best": CLASSIFIED % 'logits = "logits"', "words": WORDS}


@pytest.fixture
def client(transport: str, tmp_path: Path, publish: Publish, serve: Serve) -> Iterator[Any]:
    """Triton's client of a server with a cache, which two of its models use."""
    for model in ("classifier", "echo_fp32", "echo_bytes"):
        publish(tmp_path, model)
    (tmp_path / "classifier" / "config.pbtxt").write_text("response_cache { enable: true }\n")
    (tmp_path / "echo_bytes" / "config.toml").write_text("[response_cache]\nenable = true\n")
    for ensemble, config in ENSEMBLES.items():
        (tmp_path / ensemble / "1").mkdir(parents=True)
        (tmp_path / ensemble / "config.toml").write_text(config)
    options = ("--transport", transport, "--http-port", "-1", "--model-control-mode", "explicit")
    with (
        serve(tmp_path, *options, "--load-model", "*", "--cache-size", "100000") as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.running = running
        yield client


def features(value: float, module: Any = triton) -> Any:
    tensor = module.InferInput("features", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.full((2, 4), value, np.float32))
    return tensor


def ask(client: Any, value: float, request_id: str = "", module: Any = triton, **options: Any) -> Any:
    return client.infer("classifier", [features(value, module)], request_id=request_id, **options)


def counts(client: Any, model: str = "classifier") -> tuple[int, int, int, int]:
    """Hits, misses, successes, executions."""
    (found,) = client.get_inference_statistics(model).model_stats
    stats = found.inference_stats
    return stats.cache_hit.count, stats.cache_miss.count, stats.success.count, found.execution_count


def test_what_was_answered_before_is_answered_from_the_cache(client: Any) -> None:
    first, second = ask(client, 1, "a"), ask(client, 1, "b")
    assert (first.get_response().id, second.get_response().id) == ("a", "b")
    assert second.get_response().model_version == "1"
    np.testing.assert_array_equal(first.as_numpy("logits"), second.as_numpy("logits"))
    assert counts(client) == (1, 1, 2, 1)
    ask(client, 1, priority=1, timeout=10_000_000)
    assert counts(client) == (2, 1, 3, 1)
    assert not np.array_equal(ask(client, 2).as_numpy("logits"), first.as_numpy("logits"))
    assert counts(client) == (2, 2, 4, 2)
    stats = client.get_inference_statistics("classifier").model_stats[0].inference_stats
    assert min(stats.cache_hit.ns, stats.cache_miss.ns) > 0


def test_every_way_in_finds_what_another_has_asked(client: Any) -> None:
    first = ask(client, 3).as_numpy("logits")
    with triton_http.InferenceServerClient(client.running.http) as http:
        np.testing.assert_array_equal(ask(http, 3, module=triton_http).as_numpy("logits"), first)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "classifier"
    features = request.inputs["features"]
    features.dtype = 1  # type: ignore[assignment]  # DT_FLOAT, by its number
    for size in (2, 4):
        features.tensor_shape.dim.add(size=size)
    features.float_val.extend([3.0] * 8)
    with grpc.insecure_channel(client.running.address) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=predict_pb2.PredictRequest.SerializeToString,
            response_deserializer=predict_pb2.PredictResponse.FromString,
        )
        logits = predict(request).outputs["logits"]
    found = np.frombuffer(logits.tensor_content, np.float32) if logits.tensor_content else logits.float_val
    np.testing.assert_array_equal(np.reshape(found, (2, 3)), first)
    assert counts(client) == (2, 1, 3, 1)


def test_other_outputs_are_another_question(client: Any) -> None:
    ask(client, 1)
    logits = triton.InferRequestedOutput("logits")
    best = triton.InferRequestedOutput("logits", class_count=1)
    for outputs in ([logits], [best], [logits], [best]):
        found = ask(client, 1, outputs=outputs)
        assert [output.name for output in found.get_response().outputs] == ["logits"]
    assert ask(client, 1, outputs=[best]).as_numpy("logits").dtype == object
    assert counts(client)[:2] == (3, 3)


def test_http_streams_and_shared_memory_use_it_too(client: Any) -> None:
    ask(client, 3)
    with triton_http.InferenceServerClient(client.running.http) as http:
        ask(http, 3, module=triton_http)
    assert counts(client)[:2] == (1, 1)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    client.async_stream_infer("classifier", [features(3)], request_id="streamed")
    assert answers.get(timeout=60).get_response().id == "streamed"
    client.stop_stream()
    assert counts(client)[:2] == (2, 1)
    region = memory.create_shared_memory_region("cached", "/kerve-test-cached", 32)
    try:
        memory.set_shared_memory_region(region, [np.full((2, 4), 3, np.float32)])
        client.register_system_shared_memory("cached", "/kerve-test-cached", 32)
        tensor = triton.InferInput("features", [2, 4], "FP32")
        tensor.set_shared_memory("cached", 32)
        client.infer("classifier", [tensor])
        client.unregister_system_shared_memory("cached")
    finally:
        memory.destroy_shared_memory_region(region)
    assert counts(client)[:2] == (3, 1)


def test_strings_are_cached_and_models_that_do_not_ask_are_not(client: Any) -> None:
    words = triton.InferInput("x", [1, 2], "BYTES")
    words.set_data_from_numpy(np.array([[b"a", b"\0b"]], object))
    for _ in range(2):
        assert client.infer("echo_bytes", [words]).as_numpy("y").tolist() == [[b"a", b"\0b"]]
    assert counts(client, "echo_bytes") == (1, 1, 2, 1)
    numbers = triton.InferInput("x", [1, 2], "FP32")
    numbers.set_data_from_numpy(np.ones((1, 2), np.float32))
    for _ in range(2):
        client.infer("echo_fp32", [numbers])
    assert counts(client, "echo_fp32") == (0, 0, 2, 2)


def test_the_steps_of_an_ensemble_use_the_cache_of_their_members(client: Any) -> None:
    expected = ask(client, 1).as_numpy("logits")
    x = triton.InferInput("x", [2, 4], "FP32")
    x.set_data_from_numpy(np.ones((2, 4), np.float32))
    for hits, misses, ensemble in ((1, 1, "classified"), (1, 2, "best"), (2, 2, "best")):
        np.testing.assert_array_equal(client.infer(ensemble, [x]).as_numpy("logits"), expected)
        # The second member computes when it was asked for other outputs only.
        assert counts(client) == (hits, misses, hits + misses, misses)
    assert counts(client, "best") == (0, 0, 2, 2)
    words = triton.InferInput("words", [1, 2], "BYTES")
    words.set_data_from_numpy(np.array([[b"a", b"\0b"]], object))
    for hits in (1, 3):
        assert client.infer("words", [words]).as_numpy("same").tolist() == [[b"a", b"\0b"]]
        assert counts(client, "echo_bytes") == (hits, 1, hits + 1, 1)


def test_a_load_begins_with_nothing(client: Any) -> None:
    ask(client, 1)
    client.unload_model("classifier")
    client.load_model("classifier")
    ask(client, 1)
    assert counts(client) == (0, 1, 1, 1)


def test_health_and_metadata_answer_while_many_requests_wait(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "counter")
    (tmp_path / "counter" / "config.toml").write_text("[response_cache]\nenable = true\n")
    options = ("--transport", transport, "--http-port", "-1", "--cache-size", "100000")
    with (
        serve(tmp_path, *options) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        many = 100
        for number in range(many):
            steps = triton.InferInput("steps", [], "INT64")
            steps.set_data_from_numpy(np.array((1 << 40) + number))
            client.async_infer("counter", [steps], lambda result, error: None)
        running.wait_for("counter", arrived=many)
        assert client.is_server_live()
        assert client.get_model_metadata("counter").name == "counter"


def test_an_error_is_not_an_answer(client: Any) -> None:
    for _ in range(2):
        tensor = triton.InferInput("features", [2, 3], "FP32")
        tensor.set_data_from_numpy(np.ones((2, 3), np.float32))
        with pytest.raises(triton.InferenceServerException, match="features"):
            client.infer("classifier", [tensor])
    assert counts(client)[:2] == (0, 0)


def test_without_room_a_model_is_served_all_the_same(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "classifier")
    (tmp_path / "classifier" / "config.toml").write_text("[response_cache]\nenable = true\n")
    for options in ((), ("--cache-size", "100")):
        with (
            serve(tmp_path, "--transport", transport, *options) as running,
            triton.InferenceServerClient(running.address) as client,
        ):
            for _ in range(2):
                ask(client, 1)
            assert counts(client)[::3] == (0, 2)
            assert ("enables the response cache" in running.log.read_text()) is not bool(options)


@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "get", "close"]), st.integers(0, 1), st.integers(0, 4)),
        max_size=60,
    )
)
def test_it_holds_what_was_asked_for_last_and_no_more_than_it_may(steps: list[tuple[str, int, int]]) -> None:
    room = 3
    cache = ResponseCache(room * (OVERHEAD + 10))
    parts = [cache.part(), cache.part()]
    closed: set[int] = set()
    expected: list[tuple[int, int]] = []  # the oldest first
    for step, part, key in steps:
        entry = (part, key)
        if step == "put" and part not in closed:
            expected = [*(each for each in expected if each != entry), entry][-room:]
        if step == "put":
            parts[part].put(bytes([key]), bytes([key]) * 10)
        elif step == "close":
            parts[part].close()
            closed.add(part)
            expected = [each for each in expected if each[0] != part]
        else:
            found = parts[part].get(bytes([key]))
            assert found == (bytes([key]) * 10 if entry in expected else None)
            if entry in expected:
                expected = [*(each for each in expected if each != entry), entry]
