"""Stateful sequences: what Triton's clients see of them, on both transports."""

import base64
import json
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, shared_memory

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

CONFIG = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [2] }
output [ { name: "total" data_type: TYPE_FP32 dims: [2] }, { name: "told" data_type: TYPE_INT64 dims: [4] } ]
sequence_batching {
  max_sequence_idle_microseconds: %d
  %s
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START bool_false_true: [false, true] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END int32_false_true: [-1, 1] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [0, 7] } },
    { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } }
  ]
  state { input_name: "sum_in" output_name: "sum_out" data_type: TYPE_FP32 dims: [2] %s }
}
"""
LONG = 600_000_000
PLAIN = """
input { name: "x" data_type: TYPE_FP32 dims: [-1, 3] }
output { name: "y" data_type: TYPE_FP32 dims: [-1, 3] }
sequence_batching {
  max_sequence_idle_microseconds: 600000000
  state { input_name: "step" output_name: "step/next" data_type: TYPE_FP32 }
}
"""
INITIAL = 'initial_state { name: "ten" data_type: TYPE_FP32 dims: [2] data_file: "ten" }'

STEPPER = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [{"symbol": "batch"}, {"size": 3}]},
        {"name": "step", "datatype": "FP32", "shape": []},
    ],
    "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [{"symbol": "batch"}, {"size": 3}]},
        {"name": "step/next", "datatype": "FP32", "shape": []},
    ],
    "batched": False,
}


def add_accumulator(
    repository: Path, publish: Publish, name: str, idle: int, strategy: str, state: str
) -> None:
    publish(repository, "accumulator", name=name)
    (repository / name / "config.pbtxt").write_text(CONFIG % (idle, strategy, state))


def add_stepper(repository: Path, publish: Publish, version: int = 1, initial: float = 2.5) -> None:
    """A model of ours with a state, which begins with a number of its own."""
    folder = publish(repository, "stepper", version=version, signature=STEPPER)
    manifest = json.loads((folder / "manifest.json").read_text())
    raw = np.float32(initial).tobytes()
    manifest["state"] = [
        {
            "input": "step",
            "output": "step/next",
            "spec": STEPPER["inputs"][1],  # type: ignore[index]  # a list, to whoever reads it above
            "initial": base64.b64encode(raw).decode(),
        }
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module", params=["wire", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "wire":
        pytest.importorskip("kerve_wire")
    return str(request.param)


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    add_accumulator(repository, publish, "sum", LONG, "direct {}", "")
    add_accumulator(repository, publish, "two", LONG, "oldest { max_candidate_sequences: 2 }", INITIAL)
    add_accumulator(repository, publish, "brief", 1000, "", "")
    (repository / "two" / "initial_state").mkdir()
    (repository / "two" / "initial_state" / "ten").write_bytes(np.array([10, 20], np.float32).tobytes())
    add_stepper(repository, publish)
    (repository / "stepper" / "config.toml").write_text(
        f"[sequence_batching]\nmax_sequence_idle_microseconds = {LONG}\n"
    )
    publish(repository, "stepper", name="plain")
    (repository / "plain" / "config.pbtxt").write_text(PLAIN)
    publish(repository, "echo_fp32")
    options = ("--transport", transport, "--http-port", "-1", "--model-control-mode", "explicit")
    with serve(repository, *options, "--load-model", "*") as server:
        yield server


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, running: Any) -> Iterator[Any]:
    module = {"grpc": triton_grpc, "http": triton_http}[request.param]
    address = running.address if request.param == "grpc" else running.http
    with module.InferenceServerClient(address) as client:
        client.module = module
        yield client


@pytest.fixture
def grpc_client(running: Any) -> Iterator[Any]:
    with triton_grpc.InferenceServerClient(running.address) as client:
        client.module = triton_grpc
        yield client


def given_x(client: Any, values: Any) -> Any:
    array = np.array(values, np.float32)
    tensor = client.module.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def ask(client: Any, model: str, values: Any, identity: Any, flags: str = "", **options: Any) -> Any:
    """`flags`: s for the first request of the sequence, e for the last one."""
    return client.infer(
        model,
        [given_x(client, values)],
        sequence_id=identity,
        sequence_start="s" in flags,
        sequence_end="e" in flags,
        **options,
    )


def total(answer: Any) -> Any:
    return answer.as_numpy("total").tolist()


def counted(client: Any, model: str) -> tuple[int, int, int]:
    """Successes, rows and failures."""
    found = client.get_inference_statistics(model).model_stats[0]
    stats = found.inference_stats
    return stats.success.count, found.inference_count, stats.fail.count


def test_a_state_is_kept_from_one_request_to_the_next(client: Any) -> None:
    assert total(ask(client, "sum", [[1, 2]], 7, "s")) == [[1, 2]]
    assert total(ask(client, "sum", [[1, 2]], 7)) == [[2, 4]]
    assert total(ask(client, "sum", [[5, 5]], 8, "se")) == [[5, 5]]
    assert total(ask(client, "sum", [[0, 1]], 7, "e")) == [[2, 5]]
    with pytest.raises(
        InferenceServerException, match="sequence 7 to model 'sum' must specify the START flag"
    ):
        ask(client, "sum", [[1, 1]], 7)


def test_a_model_is_told_where_in_its_sequence_a_request_stands(client: Any) -> None:
    told = [
        ask(client, "sum", [[0, 0]], 1 << 40, flags).as_numpy("told").tolist()
        for flags in ("s", "", "e", "se")
    ]
    assert told == [[[flag, end, 7, 1 << 40]] for flag, end in ((1, -1), (0, -1), (0, 1), (1, 1))]


def test_the_first_request_of_a_sequence_begins_it_anew(client: Any) -> None:
    assert total(ask(client, "two", [[1, 1]], 1, "s")) == [[11, 21]]
    assert total(ask(client, "two", [[1, 1]], 1)) == [[12, 22]]
    assert total(ask(client, "two", [[1, 1]], 1, "s")) == [[11, 21]]
    assert total(ask(client, "two", [[1, 1], [2, 2]], 1, "s")) == [[11, 21], [12, 22]]
    with pytest.raises(
        InferenceServerException, match="expected 2 rows, as in the first request of sequence 1"
    ):
        ask(client, "two", [[1, 1]], 1)
    assert total(ask(client, "two", [[1, 1], [0, 0]], 1, "e")) == [[12, 22], [12, 22]]


def test_a_request_that_fails_changes_nothing_and_begins_nothing(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="input 'x': expected shape"):
        ask(client, "sum", [[1, 2, 3]], 9, "s")
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        ask(client, "sum", [[1, 2]], 9)
    ask(client, "sum", [[1, 2]], 9, "s")
    for values, flags in (([[1, 2, 3]], ""), ([[1]], "e")):
        with pytest.raises(InferenceServerException, match="input 'x': expected shape"):
            ask(client, "sum", values, 9, flags)
    assert total(ask(client, "sum", [[1, 2]], 9, "e")) == [[2, 4]]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "'sum' must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": {"int64_param": 0}}, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": {"string_param": ""}}, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": {"int64_param": 3}}, "sequence 3 to model 'sum' must specify the START flag"),
        ({"sequence_id": {"string_param": "a"}, "sequence_start": {"bool_param": True}}, "expected a number"),
        ({"sequence_id": {"bool_param": True}}, "expected int64_param or string_param, got True"),
        ({"sequence_id": {"double_param": 1.5}}, "expected int64_param or string_param, got 1.5"),
        ({"sequence_id": {"string_param": "a" * 129}}, "sequence_id: expected at most 128 bytes"),
        (
            {"sequence_id": {"int64_param": 3}, "sequence_start": {"int64_param": 1}},
            "'sequence_start' parameter, expected bool_param, got 1",
        ),
    ],
)
def test_what_is_no_request_of_a_sequence_is_refused(
    parameters: Any, message: str, running: Any, grpc_client: Any
) -> None:
    request = triton_grpc.service_pb2.ModelInferRequest(
        model_name="sum",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}],
        parameters=parameters,
    )
    with grpc.insecure_channel(running.address) as channel, pytest.raises(grpc.RpcError) as caught:
        triton_grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in error.details()


def test_no_more_sequences_are_open_than_may_be(client: Any) -> None:
    for identity in (1, 2):
        ask(client, "two", [[0, 0]], identity, "s")
    with pytest.raises(InferenceServerException, match="has 2 sequences open, which is its limit") as caught:
        ask(client, "two", [[0, 0]], 3, "s")
    assert caught.value.status() in ("StatusCode.RESOURCE_EXHAUSTED", "429")
    ask(client, "two", [[0, 0]], 1, "e")
    ask(client, "two", [[0, 0]], 3, "s")
    for identity in (2, 3):
        ask(client, "two", [[0, 0]], identity, "e")


def test_a_sequence_that_nobody_asks_is_forgotten(running: Any, client: Any, until: Until) -> None:
    ask(client, "brief", [[1, 1]], 4, "s")
    until(lambda: running.metric("kerve_sequences", "brief") == 0, "the sequence is forgotten")
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        ask(client, "brief", [[1, 1]], 4)
    ask(client, "sum", [[1, 1]], 4, "s")
    assert running.metric("kerve_sequences", "sum") == 1
    ask(client, "sum", [[1, 1]], 4, "e")
    assert running.metric("kerve_sequences", "sum") == 0


def test_clients_see_nothing_of_what_the_server_feeds(grpc_client: Any) -> None:
    found = grpc_client.get_model_metadata("sum")
    assert [tensor.name for tensor in found.inputs] == ["x"]
    assert [tensor.name for tensor in found.outputs] == ["total", "told"]
    config = grpc_client.get_model_config("two").config
    assert config.sequence_batching.oldest.max_candidate_sequences == 2
    assert [tensor.name for tensor in config.input] == ["x"]
    assert grpc_client.get_model_config("brief").config.sequence_batching.HasField("direct")
    tensor = triton_grpc.InferInput("sum_in", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    with pytest.raises(InferenceServerException, match="unexpected input 'sum_in'; model 'sum' takes: x"):
        grpc_client.infer("sum", [given_x(grpc_client, [[1, 2]]), tensor], sequence_id=1, sequence_start=True)
    with pytest.raises(InferenceServerException, match="'sum_out' is not an output of model 'sum'"):
        ask(grpc_client, "sum", [[1, 2]], 1, "s", outputs=[triton_grpc.InferRequestedOutput("sum_out")])


def test_outputs_can_be_chosen_and_classified(client: Any) -> None:
    best = client.module.InferRequestedOutput("total", class_count=1)
    answer = ask(client, "sum", [[1, 2]], 6, "s", outputs=[best])
    assert answer.as_numpy("total").tolist() == [[b"2.000000:1"]]
    assert answer.as_numpy("told") is None
    assert total(ask(client, "sum", [[1, 2]], 6, "e")) == [[2, 4]]


def test_a_model_without_a_batch_keeps_its_state_too(client: Any) -> None:
    found = [
        ask(client, "plain", np.zeros((rows, 3)), "p", flags).as_numpy("y").tolist()
        for rows, flags in ((1, "s"), (2, ""), (1, "e"))
    ]
    assert found == [[[0] * 3], [[1] * 3] * 2, [[2] * 3]]


def test_an_answer_that_cannot_be_placed_leaves_the_state_as_it_was(grpc_client: Any) -> None:
    handle = shared_memory.create_shared_memory_region("small", "/kerve_sequences", 8)
    try:
        grpc_client.register_system_shared_memory("small", "/kerve_sequences", 8)
        ask(grpc_client, "sum", [[1, 2]], 12, "s")
        output = triton_grpc.InferRequestedOutput("total")
        output.set_shared_memory("small", 4)
        with pytest.raises(InferenceServerException, match="at least 8, got 4"):
            ask(grpc_client, "sum", [[1, 2]], 12, outputs=[output])
        output.set_shared_memory("small", 8)
        ask(grpc_client, "sum", [[1, 2]], 12, "e", outputs=[output])
        assert shared_memory.get_contents_as_numpy(handle, np.float32, [2]).tolist() == [2, 4]
    finally:
        grpc_client.unregister_system_shared_memory("small")
        shared_memory.destroy_shared_memory_region(handle)


def test_a_state_of_ours_is_kept_for_who_names_a_sequence(client: Any) -> None:
    steps = [ask(client, "stepper", [[0, 1, 2]], "mine", flags) for flags in ("s", "", "e")]
    assert [step.as_numpy("y").tolist() for step in steps] == [[[n, n + 1, n + 2]] for n in (2.5, 3.5, 4.5)]
    assert all(step.as_numpy("step/next") is None for step in steps)
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        ask(client, "stepper", [[0, 1, 2]], "mine")


def test_a_state_of_ours_can_be_carried_by_its_client(client: Any) -> None:
    step = client.module.InferInput("step", [], "FP32")
    step.set_data_from_numpy(np.array(7, np.float32))
    x = given_x(client, [[0, 1, 2]])
    answer = client.infer("stepper", [x, step])
    assert answer.as_numpy("y").tolist() == [[7, 8, 9]]
    assert answer.as_numpy("step/next") == 8
    with pytest.raises(InferenceServerException, match="input 'step' is missing"):
        client.infer("stepper", [x])
    # Within a sequence it takes the place of the state that is kept.
    wanted = [client.module.InferRequestedOutput(name) for name in ("step/next", "y")]
    answer = client.infer("stepper", [x, step], outputs=wanted, sequence_id=1, sequence_start=True)
    assert answer.as_numpy("step/next") == 8
    assert ask(client, "stepper", [[0, 1, 2]], 1, "e").as_numpy("y").tolist() == [[8, 9, 10]]


def test_a_model_without_state_takes_a_sequence_for_any_parameter(client: Any) -> None:
    assert ask(client, "echo_fp32", [[1, 2]], 1).as_numpy("y").tolist() == [[1, 2]]


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=6), max_size=12)
)
def test_sequences_at_the_same_time_are_what_each_is_alone(
    grpc_client: Any, sequences: list[list[tuple[int, int]]]
) -> None:
    before = counted(grpc_client, "sum")

    def run(numbered: tuple[int, list[tuple[int, int]]]) -> NDArray[Any]:
        number, rows = numbered
        flags = ["s" * (step == 0) + "e" * (step == len(rows) - 1) for step in range(len(rows))]
        answers = [
            ask(grpc_client, "sum", [row], 100 + number, flag).as_numpy("total")
            for row, flag in zip(rows, flags, strict=True)
        ]
        return np.concatenate(answers)

    with ThreadPoolExecutor(max(1, len(sequences))) as pool:
        found = list(pool.map(run, enumerate(sequences)))
    for rows, totals in zip(sequences, found, strict=True):
        np.testing.assert_array_equal(totals, np.cumsum(rows, 0, np.float32))
    asked = sum(map(len, sequences))
    assert np.subtract(counted(grpc_client, "sum"), before).tolist() == [asked, asked, 0]


def test_a_sequence_ends_where_it_began(
    tmp_path: Path, transport: str, publish: Publish, serve: Serve
) -> None:
    add_stepper(tmp_path, publish)
    (tmp_path / "stepper" / "config.toml").write_text(
        f"[sequence_batching]\nmax_sequence_idle_microseconds = {LONG}\n"
    )
    options = ("--transport", transport, "--model-control-mode", "explicit", "--load-model", "*")
    with serve(tmp_path, *options) as running, triton_grpc.InferenceServerClient(running.address) as client:
        client.module = triton_grpc
        x = [[0, 0, 0]]
        ask(client, "stepper", x, 1, "s")
        add_stepper(tmp_path, publish, version=2, initial=100)
        client.load_model("stepper")
        assert ask(client, "stepper", x, 2, "s").as_numpy("y")[0, 0] == 100
        states = {each.version: each.state for each in client.get_model_repository_index().models}
        assert states == {"1": "UNLOADING", "2": "READY"}
        answer = ask(client, "stepper", x, 1)
        assert (answer.as_numpy("y")[0, 0], answer.get_response().model_version) == (3.5, "1")
        assert ask(client, "stepper", x, 1, "e").as_numpy("y")[0, 0] == 4.5
        answer = ask(client, "stepper", x, 2)
        assert (answer.as_numpy("y")[0, 0], answer.get_response().model_version) == (101, "2")
        client.unload_model("stepper")
        with pytest.raises(InferenceServerException, match="not ready"):
            ask(client, "stepper", x, 2)
        client.load_model("stepper")
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            ask(client, "stepper", x, 2)


BROKEN = {
    "name": ('name: "start"', 'name: "begin"', "leaves out the graph's input 'start'"),
    "type": ("bool_false_true: [false, true]", "fp32_false_true: [0, 1]", "expected bool_false_true"),
    "values": ("[false, true]", "[true]", "expected bool_false_true with two values"),
    "kind": ("CONTROL_SEQUENCE_READY", "CONTROL_SEQUENCE_START", "specifies multiple CONTROL_SEQUENCE_START"),
    "corrid": ("data_type: TYPE_INT64 }", "data_type: TYPE_UINT64 }", "got TYPE_UINT64"),
    "state": (
        "TYPE_FP32 dims: [2]  }",
        "TYPE_FP32 dims: [3]  }",
        "declares TYPE_FP32 [3], the graph has TYPE_FP32 [2]",
    ),
    "output": ('"sum_out"', '"none"', "state 'none' is not in the graph"),
    "file": (
        "dims: [2]  }",
        "dims: [2] " + INITIAL.replace('"ten" }', '"../config.pbtxt" }') + " }",
        "outside",
    ),
    "bytes": ("dims: [2]  }", "dims: [2] " + INITIAL + " }", "expected 8 bytes"),
    "iterative": (
        "control_input [",
        "iterative_sequence: true control_input [",
        "sequence_batching.iterative_sequence: this server does not offer",
    ),
}


def test_what_does_not_fit_the_graph_is_said_when_the_model_is_loaded(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    for name, (old, new, _) in BROKEN.items():
        add_accumulator(tmp_path, publish, name, LONG, "", "")
        file = tmp_path / name / "config.pbtxt"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        (tmp_path / name / "initial_state").mkdir()
        (tmp_path / name / "initial_state" / "ten").write_bytes(b"ten")
    with (
        serve(tmp_path, "--model-control-mode", "explicit", "--load-model", "*") as running,
        triton_grpc.InferenceServerClient(running.address) as client,
    ):
        reasons = {each.name: each.reason for each in client.get_model_repository_index().models}
    for name, (_, _, reason) in BROKEN.items():
        assert reason in reasons[name]


def stream(address: str, requests: list[dict[str, Any]]) -> list[Any]:
    """Ask all on one stream, without waiting for answers; return results and errors, in their order."""
    found: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: found.put(error or result))
        for each in requests:
            client.async_stream_infer(**each)
        answers = [found.get(timeout=60) for _ in requests]
        client.stop_stream()
    return answers


def test_on_a_stream_each_sequence_is_computed_in_order(running: Any, grpc_client: Any) -> None:
    before = counted(grpc_client, "sum")
    rounds, identities = 6, [*range(200, 220)]
    requests = [
        {
            "model_name": "sum",
            "inputs": [given_x(grpc_client, [[identity, step]])],
            "request_id": f"{identity}/{step}",
            "sequence_id": identity,
            "sequence_start": step == 0,
            "sequence_end": step == rounds - 1,
        }
        for step in range(rounds)
        for identity in identities
    ]
    answers = stream(running.address, requests)
    assert [each.get_response().id for each in answers] == [each["request_id"] for each in requests]
    for answer in answers:
        identity, step = map(int, answer.get_response().id.split("/"))
        assert total(answer) == [[identity * (step + 1), step * (step + 1) // 2]]
        assert answer.get_response().parameters["triton_final_response"].bool_param
    assert np.subtract(counted(grpc_client, "sum"), before).tolist() == [len(requests), len(requests), 0]


def test_a_stream_goes_on_after_what_is_refused(running: Any, grpc_client: Any) -> None:
    x = [given_x(grpc_client, [[1, 2]])]
    flags: tuple[dict[str, Any], ...] = (
        {"sequence_id": 5},
        {"sequence_id": 5, "sequence_start": True},
        {},
        {"sequence_id": 5},
    )
    named = [{"model_name": "sum", "request_id": str(number), **each} for number, each in enumerate(flags)]
    other = {"model_name": "echo_fp32", "request_id": "other"}
    *answers, last, echo = stream(running.address, [{**each, "inputs": x} for each in (*named, other)])
    assert [isinstance(each, InferenceServerException) for each in answers] == [True, False, True]
    assert "must specify the START flag" in str(answers[0])
    assert "must specify a non-zero" in str(answers[2])
    assert total(last) == [[2, 4]]
    assert (echo.get_response().id, echo.as_numpy("y").tolist()) == ("other", [[1, 2]])


def test_a_strict_stream_ends_with_the_status_of_what_is_refused(running: Any, grpc_client: Any) -> None:
    found: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(running.address) as client:
        client.start_stream(
            lambda result, error: found.put(error or result), headers={"triton_grpc_error": "true"}
        )
        client.async_stream_infer("sum", [given_x(grpc_client, [[1, 2]])], sequence_id=77)
        error = found.get(timeout=60)
        client.stop_stream()
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "sequence 77" in error.message()
