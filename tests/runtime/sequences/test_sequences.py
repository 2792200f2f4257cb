"""Stateful sequences: what Triton's clients see of them, on both transports."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, shared_memory

from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.sequences.table import Sequences

Until = Callable[[Callable[[], bool], str], None]


def total(answer: Any) -> Any:
    return answer.as_numpy("total").tolist()


def test_a_state_is_kept_from_one_request_to_the_next(client: Any) -> None:
    assert total(client.ask("sum", [[1, 2]], 7, "s")) == [[1, 2]]
    assert total(client.ask("sum", [[1, 2]], 7)) == [[2, 4]]
    assert total(client.ask("sum", [[5, 5]], 8, "se")) == [[5, 5]]
    assert total(client.ask("sum", [[0, 1]], 7, "e")) == [[2, 5]]
    with pytest.raises(
        InferenceServerException, match="sequence 7 to model 'sum' must specify the START flag"
    ):
        client.ask("sum", [[1, 1]], 7)


def test_a_model_is_told_where_in_its_sequence_a_request_stands(client: Any) -> None:
    told = [
        client.ask("sum", [[0, 0]], 1 << 40, flags).as_numpy("told").tolist()
        for flags in ("s", "", "e", "se")
    ]
    assert told == [[[flag, end, 7, 1 << 40]] for flag, end in ((1, -1), (0, -1), (0, 1), (1, 1))]


def test_the_first_request_of_a_sequence_begins_it_anew(client: Any) -> None:
    assert total(client.ask("two", [[1, 1]], 1, "s")) == [[11, 21]]
    assert total(client.ask("two", [[1, 1]], 1)) == [[12, 22]]
    assert total(client.ask("two", [[1, 1]], 1, "s")) == [[11, 21]]
    assert total(client.ask("two", [[1, 1], [2, 2]], 1, "s")) == [[11, 21], [12, 22]]
    with pytest.raises(
        InferenceServerException, match="expected 2 rows, as in the first request of sequence 1"
    ):
        client.ask("two", [[1, 1]], 1)
    assert total(client.ask("two", [[1, 1], [0, 0]], 1, "e")) == [[12, 22], [12, 22]]


def test_a_request_that_fails_changes_nothing_and_begins_nothing(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="input 'x': expected shape"):
        client.ask("sum", [[1, 2, 3]], 9, "s")
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        client.ask("sum", [[1, 2]], 9)
    client.ask("sum", [[1, 2]], 9, "s")
    for values, flags in (([[1, 2, 3]], ""), ([[1]], "e")):
        with pytest.raises(InferenceServerException, match="input 'x': expected shape"):
            client.ask("sum", values, 9, flags)
    assert total(client.ask("sum", [[1, 2]], 9, "e")) == [[2, 4]]


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


def test_a_sequence_too_many_waits_until_another_ends(grpc_client: Any) -> None:
    for identity in (1, 2):
        grpc_client.ask("two", [[0, 0]], identity, "s")
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(grpc_client.ask, "two", [[5, 5]], 3, "s")
        assert total(grpc_client.ask("two", [[1, 1]], 1)) == [[11, 21]]
        assert not third.done()
        grpc_client.ask("two", [[0, 0]], 1, "e")
        assert total(third.result(60)) == [[15, 25]]
    for identity in (2, 3):
        grpc_client.ask("two", [[0, 0]], identity, "e")


def test_a_sequence_too_many_waits_until_another_is_forgotten(running: Any, grpc_client: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        starts = [pool.submit(grpc_client.ask, "brief", [[1, 2]], identity, "s") for identity in (1, 2)]
        assert [total(start.result(60)) for start in starts] == [[[1, 2]]] * 2


def test_who_waits_for_a_sequence_to_end_is_let_go_in_time(grpc_client: Any, until: Until) -> None:
    grpc_client.ask("one", [[0, 0]], 1, "s")
    with pytest.raises(InferenceServerException) as late:
        grpc_client.ask("one", [[0, 0]], 2, "s", client_timeout=0.2)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    given: list[Any] = []

    def ask(identity: int, flags: str = "s") -> Any:
        return grpc_client.async_infer(
            "one",
            [grpc_client.x([[1, 1]])],
            lambda result, error: given.append(error or result),
            sequence_id=identity,
            sequence_start="s" in flags,
            sequence_end="e" in flags,
        )

    def is_forgotten(identity: int) -> bool:
        with pytest.raises(InferenceServerException) as refused:
            grpc_client.ask("one", [[0, 0]], identity, client_timeout=5)
        return "must specify the START flag" in str(refused.value)

    # As many wait as may, and one more is refused; those that wait are cancelled.
    identities = range(2, 35)
    calls = [ask(identity) for identity in identities]
    until(lambda: len(given) == 1, "one too many is refused")
    assert given.pop().status() == "StatusCode.RESOURCE_EXHAUSTED"
    for call in calls:
        call.cancel()
    until(lambda: len(given) == 32, "they are cancelled")
    assert {error.status() for error in given} == {"StatusCode.CANCELLED"}
    until(lambda: all(map(is_forgotten, identities)), "the server knows it, too")
    given.clear()
    ask(40)
    grpc_client.ask("one", [[0, 0]], 1, "e")
    until(lambda: bool(given), "the one that still waits is answered")
    assert total(given.pop()) == [[1, 1]]
    grpc_client.ask("one", [[0, 0]], 40, "e")


def test_sequences_that_are_never_forgotten_can_be_waited_for(until: Until) -> None:
    sequences = Sequences("m", most=1, max_waiting=1, idle=2**64 / 1e6)

    def take() -> bool:
        with sequences.turn(SequencePosition(2, start=True, end=True), dict, None):
            return True

    with ThreadPoolExecutor(1) as pool:
        with sequences.turn(SequencePosition(1, start=True), dict, None) as turn:
            turn.states = {}
        waiting = pool.submit(take)
        until(lambda: 2 in sequences, "the other has come")
        time.sleep(0.1)  # and waits
        with sequences.turn(SequencePosition(1, end=True), dict, None):
            assert not waiting.done()
        assert waiting.result(60)


def test_a_sequence_that_nobody_asks_is_forgotten(running: Any, client: Any, until: Until) -> None:
    client.ask("brief", [[1, 1]], 4, "s")
    until(lambda: running.metric("kerve_sequences", "brief") == 0, "the sequence is forgotten")
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        client.ask("brief", [[1, 1]], 4)
    client.ask("sum", [[1, 1]], 4, "s")
    assert running.metric("kerve_sequences", "sum") == 1
    client.ask("sum", [[1, 1]], 4, "e")
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
        grpc_client.infer("sum", [grpc_client.x([[1, 2]]), tensor], sequence_id=1, sequence_start=True)
    with pytest.raises(InferenceServerException, match="unexpected inference output 'sum_out' for"):
        grpc_client.ask("sum", [[1, 2]], 1, "s", outputs=[triton_grpc.InferRequestedOutput("sum_out")])


def test_outputs_can_be_chosen_and_classified(client: Any) -> None:
    best = client.module.InferRequestedOutput("total", class_count=1)
    answer = client.ask("sum", [[1, 2]], 6, "s", outputs=[best])
    assert answer.as_numpy("total").tolist() == [[b"2.000000:1"]]
    assert answer.as_numpy("told") is None
    assert total(client.ask("sum", [[1, 2]], 6, "e")) == [[2, 4]]


def test_a_model_without_a_batch_keeps_its_state_too(client: Any) -> None:
    found = [
        client.ask("plain", np.zeros((rows, 3)), "p", flags).as_numpy("y").tolist()
        for rows, flags in ((1, "s"), (2, ""), (1, "e"))
    ]
    assert found == [[[0] * 3], [[1] * 3] * 2, [[2] * 3]]


def test_an_answer_that_cannot_be_placed_leaves_the_state_as_it_was(grpc_client: Any) -> None:
    handle = shared_memory.create_shared_memory_region("small", "/kerve_sequences", 8)
    try:
        grpc_client.register_system_shared_memory("small", "/kerve_sequences", 8)
        grpc_client.ask("sum", [[1, 2]], 12, "s")
        output = triton_grpc.InferRequestedOutput("total")
        output.set_shared_memory("small", 4)
        with pytest.raises(InferenceServerException, match="at least 8, got 4"):
            grpc_client.ask("sum", [[1, 2]], 12, outputs=[output])
        output.set_shared_memory("small", 8)
        grpc_client.ask("sum", [[1, 2]], 12, "e", outputs=[output])
        assert shared_memory.get_contents_as_numpy(handle, np.float32, [2]).tolist() == [2, 4]
    finally:
        grpc_client.unregister_system_shared_memory("small")
        shared_memory.destroy_shared_memory_region(handle)


def test_a_state_of_ours_is_kept_for_who_names_a_sequence(client: Any) -> None:
    steps = [client.ask("stepper", [[0, 1, 2]], "mine", flags) for flags in ("s", "", "e")]
    assert [step.as_numpy("y").tolist() for step in steps] == [[[n, n + 1, n + 2]] for n in (2.5, 3.5, 4.5)]
    assert all(step.as_numpy("step/next") is None for step in steps)
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        client.ask("stepper", [[0, 1, 2]], "mine")


def test_a_state_of_ours_can_be_carried_by_its_client(client: Any) -> None:
    step = client.module.InferInput("step", [], "FP32")
    step.set_data_from_numpy(np.array(7, np.float32))
    x = client.x([[0, 1, 2]])
    answer = client.infer("stepper", [x, step])
    assert answer.as_numpy("y").tolist() == [[7, 8, 9]]
    assert answer.as_numpy("step/next") == 8
    with pytest.raises(InferenceServerException, match="input 'step' is missing"):
        client.infer("stepper", [x])
    # Within a sequence it takes the place of the state that is kept.
    wanted = [client.module.InferRequestedOutput(name) for name in ("step/next", "y")]
    answer = client.infer("stepper", [x, step], outputs=wanted, sequence_id=1, sequence_start=True)
    assert answer.as_numpy("step/next") == 8
    assert client.ask("stepper", [[0, 1, 2]], 1, "e").as_numpy("y").tolist() == [[8, 9, 10]]


def test_a_model_without_state_takes_a_sequence_for_any_parameter(client: Any) -> None:
    assert client.ask("echo_fp32", [[1, 2]], 1).as_numpy("y").tolist() == [[1, 2]]


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=6), max_size=12)
)
def test_sequences_at_the_same_time_are_what_each_is_alone(
    grpc_client: Any, sequences: list[list[tuple[int, int]]]
) -> None:
    before = grpc_client.counted("sum")

    def run(numbered: tuple[int, list[tuple[int, int]]]) -> NDArray[Any]:
        number, rows = numbered
        flags = ["s" * (step == 0) + "e" * (step == len(rows) - 1) for step in range(len(rows))]
        answers = [
            grpc_client.ask("sum", [row], 100 + number, flag).as_numpy("total")
            for row, flag in zip(rows, flags, strict=True)
        ]
        return np.concatenate(answers)

    with ThreadPoolExecutor(max(1, len(sequences))) as pool:
        found = list(pool.map(run, enumerate(sequences)))
    for rows, totals in zip(sequences, found, strict=True):
        np.testing.assert_array_equal(totals, np.cumsum(rows, 0, np.float32))
    count = sum(map(len, sequences))
    assert np.subtract(grpc_client.counted("sum"), before).tolist() == [count, count, 0]
