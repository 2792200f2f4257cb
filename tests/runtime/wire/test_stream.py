"""ModelStreamInfer on the wire."""

import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton


def test_answers_come_in_the_order_of_the_requests_errors_among_them(serve: Any, oip: Any, rows: Any) -> None:
    requests = [oip.request(rows(1, n), id=str(n)) for n in range(20)]
    requests[7].model_name = "n"
    requests[9].inputs[0].datatype = "INT64"
    with serve() as served, served.channel() as channel:
        answers = list(oip.stub(channel).ModelStreamInfer(iter(requests)))
    assert [each.infer_response.id for each in answers] == [str(n) for n in range(20)]
    for number, each in enumerate(answers):
        if number == 7:
            assert each.error_message == "Request for unknown model: 'n' is not found; available: m"
        elif number == 9:
            assert each.error_message == "input 'x': expected datatype FP32, got INT64"
        else:
            assert each.error_message == ""
            assert each.infer_response.parameters["triton_final_response"].bool_param
            np.testing.assert_array_equal(oip.answer(each.infer_response), rows(1, number) * 2)


def test_an_error_has_an_empty_answer_beside_it_as_in_triton(serve: Any, oip: Any, rows: Any) -> None:
    with serve() as served, served.channel() as channel:
        (answer,) = oip.stub(channel).ModelStreamInfer(iter([oip.request(rows(1), model_name="n")]))
    assert answer.error_message
    assert answer.HasField("infer_response")


def test_a_client_may_wait_for_each_answer(serve: Any, oip: Any, rows: Any) -> None:
    outgoing: queue.Queue[Any] = queue.Queue()
    with serve() as served, served.channel() as channel:
        answers = oip.stub(channel).ModelStreamInfer(iter(outgoing.get, None))
        for number in range(3):
            outgoing.put(oip.request(rows(1, number)))
            np.testing.assert_array_equal(oip.answer(next(answers).infer_response), rows(1, number) * 2)
        outgoing.put(None)
        assert list(answers) == []
        assert answers.code() is grpc.StatusCode.OK


def test_a_client_may_ask_for_a_real_status(serve: Any, oip: Any, rows: Any) -> None:
    requests = [oip.request(rows(1)), oip.request(rows(1), model_name="n"), oip.request(rows(1))]
    with serve() as served, served.channel() as channel:
        answers = oip.stub(channel).ModelStreamInfer(
            iter(requests), metadata=(("triton_grpc_error", "true"),)
        )
        found = [oip.answer(next(answers).infer_response)]
        status = oip.refusal(lambda: next(answers))
    np.testing.assert_array_equal(found[0], rows(1) * 2)
    assert status == (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'n' is not found; available: m")


def test_a_stop_ends_streams_that_wait_for_more(serve: Any, oip: Any, rows: Any) -> None:
    outgoing: queue.Queue[Any] = queue.Queue()
    with serve() as served, served.channel() as channel:
        answers = oip.stub(channel).ModelStreamInfer(iter(outgoing.get, None))
        outgoing.put(oip.request(rows(1)))
        next(answers)
        served.server.stop(5)
        found = oip.refusal(lambda: next(answers))
        outgoing.put(None)
    assert found == (
        grpc.StatusCode.UNAVAILABLE,
        "the server is shutting down; try another server, or again later",
    )


def test_a_stream_has_one_deadline(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served, served.channel() as channel:
        answers = oip.stub(channel).ModelStreamInfer(iter([oip.request(rows(1))]), timeout=0.2)
        code, _ = oip.refusal(lambda: list(answers))
        end = time.monotonic() + 10
        while served.queue.depth:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert served.batches == []


def test_many_more_requests_than_fit_at_once_are_answered(serve: Any, oip: Any, rows: Any) -> None:
    def ask() -> Iterator[Any]:
        for number in range(3000):
            yield oip.request(rows(1, number))

    with serve() as served, served.channel() as channel:
        answers = list(oip.stub(channel).ModelStreamInfer(ask()))
    assert len(answers) == 3000
    np.testing.assert_array_equal(oip.answer(answers[-1].infer_response), rows(1, 2999) * 2)


def test_tritonclient_streams(serve: Any) -> None:
    found: queue.Queue[Any] = queue.Queue()
    with serve() as served:
        client = triton.InferenceServerClient(served.address)
        client.start_stream(lambda result, error: found.put((result, error)))
        x = triton.InferInput("x", [1, 4], "FP32")
        for number in range(5):
            x.set_data_from_numpy(np.full((1, 4), number, np.float32))
            client.async_stream_infer("m", [x], request_id=str(number), enable_empty_final_response=True)
        answers = [found.get(timeout=10) for _ in range(5)]
        client.stop_stream()
        client.close()
    for number, (result, error) in enumerate(answers):
        assert error is None
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 4), number * 2, np.float32))
