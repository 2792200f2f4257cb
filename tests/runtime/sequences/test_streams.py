"""Sequences on streams: in the stream's order, whatever else is on it."""

import queue
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException


def total(answer: Any) -> Any:
    return answer.as_numpy("total").tolist()


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
    before = grpc_client.counted("sum")
    rounds, identities = 6, [*range(200, 220)]
    requests = [
        {
            "model_name": "sum",
            "inputs": [grpc_client.x([[identity, step]])],
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
    assert np.subtract(grpc_client.counted("sum"), before).tolist() == [len(requests), len(requests), 0]


def test_a_stream_goes_on_after_what_is_refused(running: Any, grpc_client: Any) -> None:
    x = [grpc_client.x([[1, 2]])]
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
        client.async_stream_infer("sum", [grpc_client.x([[1, 2]])], sequence_id=77)
        error = found.get(timeout=60)
        client.stop_stream()
    assert error.status() == "StatusCode.INVALID_ARGUMENT"
    assert "sequence 77" in error.message()


def test_on_a_stream_a_sequence_may_wait_for_one_that_ends_behind_it(running: Any, grpc_client: Any) -> None:
    requests = [
        {
            "model_name": "one",
            "inputs": [grpc_client.x([[identity, 1]])],
            "sequence_id": identity,
            "sequence_start": start,
            "sequence_end": not start,
        }
        for identity, start in ((8, True), (16, True), (24, True), (8, False), (16, False), (24, False))
    ]
    answers = stream(running.address, requests)
    assert [total(each) for each in answers] == [
        [[identity * times, times]] for times in (1, 2) for identity in (8, 16, 24)
    ]
