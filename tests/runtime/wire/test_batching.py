"""How requests become batches."""

import threading
import time
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

import kerve_wire
from kerve.google.rpc.error_details_pb2 import RetryInfo
from kerve.google.rpc.status_pb2 import Status

Policy = kerve_wire.QueuePolicy
Options = kerve_wire.QueueOptions


def waiting(served: Any, count: int) -> None:
    """Wait until so many requests wait."""
    end = time.monotonic() + 20
    while served.queue.depth != count:
        assert time.monotonic() < end, f"{served.queue.depth} requests wait, expected {count}"
        time.sleep(0.001)


def send(served: Any, stub: Any, oip: Any, arrays: list[Any], **fields: Any) -> list[Any]:
    """Send requests one after the other, so that they wait in this order."""
    calls = []
    for array in arrays:
        before = served.queue.depth
        calls.append(stub.ModelInfer.future(oip.request(array, **fields)))
        waiting(served, before + 1)
    return calls


def test_what_waits_while_the_executor_is_busy_is_one_batch(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served, served.channel() as channel:
        arrays = [rows(size, size * 100) for size in (1, 3, 2)]
        calls = send(served, oip.stub(channel), oip, arrays)
        served.go.set()
        for call, array in zip(calls, arrays, strict=True):
            np.testing.assert_array_equal(oip.answer(call.result()), array * 2)
    assert served.batches == [6]


def test_a_batch_holds_no_more_than_its_maximum_and_nobody_overtakes(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_batch_size=4)
    with serve(go=False, options=options) as served, served.channel() as channel:
        calls = send(served, oip.stub(channel), oip, [rows(3), rows(2), rows(1), rows(4)])
        served.go.set()
        for call in calls:
            call.result()
    assert served.batches == [3, 3, 4]


def test_only_requests_of_one_shape_share_a_batch(serve: Any, oip: Any) -> None:
    shape = ("batch", "n")
    with (
        serve(go=False, inputs=(("x", "FP32", shape),), outputs=(("y", "FP32", shape),)) as served,
        served.channel() as channel,
    ):
        arrays = [np.full((1, n), n, np.float32) for n in (2, 3, 2, 3, 2)]
        calls = send(served, oip.stub(channel), oip, arrays)
        served.go.set()
        for call, array in zip(calls, arrays, strict=True):
            np.testing.assert_array_equal(oip.answer(call.result()), array * 2)
    assert served.batches == [3, 2]


def test_a_request_larger_than_a_batch_is_computed_in_parts(serve: Any, oip: Any, rows: Any) -> None:
    with serve(options=Options(max_batch_size=4)) as served, served.channel() as channel:
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(rows(11))))
    np.testing.assert_array_equal(found, rows(11) * 2)
    assert sum(served.batches) == 11
    assert max(served.batches) == 4


def test_a_request_has_no_more_parts_than_can_be_kept(serve: Any, oip: Any, rows: Any) -> None:
    with serve(options=Options(max_batch_size=1)) as served, served.channel() as channel:
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(2**16 + 1))))
    assert found == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected at most 65536 rows, got 65537; send fewer at a time",
    )
    assert served.batches == []


def test_a_request_in_parts_is_one_request_wherever_requests_are_counted(
    serve: Any, oip: Any, rows: Any
) -> None:
    with serve(options=Options(max_batch_size=4)) as served, served.channel() as channel:
        oip.stub(channel).ModelInfer(oip.request(rows(11)))
        found = served.queue.statistics()
    assert (found["requests"], found["codes"], found["batches"]) == (1, {0: 1}, 3)
    assert [sum(found[name]["counts"]) for name in ("succeeded", "waited")] == [1, 1]


def test_a_request_takes_what_it_came_with_until_its_parts_are_computed(
    serve: Any, oip: Any, rows: Any
) -> None:
    """Parts that wait would take a thousand times the bytes of the rows in them, outside every limit."""
    with serve(go=False, options=Options(max_batch_size=1)) as served, served.channel() as channel:
        call = oip.stub(channel).ModelInfer.future(oip.request(rows(2**14)))
        waiting(served, 1)
        call.cancel()
        waiting(served, 0)
        served.go.set()


def test_when_one_part_fails_the_others_are_not_computed(serve: Any, oip: Any, rows: Any) -> None:
    def compute(batch: Any) -> Any:
        return batch.fail(13, "the first part")

    with serve(compute, options=Options(max_batch_size=4)) as served, served.channel() as channel:
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(400))))
        waiting(served, 0)
        counted = served.queue.statistics()["codes"]
    assert found == (grpc.StatusCode.INTERNAL, "the first part")
    assert served.batches == [4]
    assert counted == {13: 1}


def test_when_one_part_fails_the_request_fails(serve: Any, oip: Any, rows: Any) -> None:
    def compute(batch: Any) -> Any:
        if len(served.batches) == 2:
            return batch.fail(13, "the second part")
        return {"y": batch.inputs["x"]}

    with serve(compute, options=Options(max_batch_size=4)) as served, served.channel() as channel:
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(11))))
    assert found == (grpc.StatusCode.INTERNAL, "the second part")


def test_large_requests_of_byte_strings_are_cut_between_rows(serve: Any, oip: Any) -> None:
    array = np.array([[b"a" * size, b""] for size in range(7)], object)
    spec = ("batch", 2)
    with (
        serve(
            lambda batch: {"y": batch.inputs["x"]},
            inputs=(("x", "BYTES", spec),),
            outputs=(("y", "BYTES", spec),),
            options=Options(max_batch_size=3),
        ) as served,
        served.channel() as channel,
    ):
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(array, "BYTES")))
    np.testing.assert_array_equal(found, array)


def test_batches_are_padded_to_a_bucket_and_answers_are_not(serve: Any, oip: Any, rows: Any) -> None:
    shapes: list[Any] = []

    def compute(batch: Any) -> Any:
        shapes.append((batch.rows, batch.inputs["x"].copy()))
        return {"y": batch.inputs["x"] * 2}

    options = Options(max_batch_size=8, batch_buckets=(8, 4))
    with serve(compute, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        for size in (1, 4, 5):
            found = oip.answer(stub.ModelInfer(oip.request(rows(size))))
            np.testing.assert_array_equal(found, rows(size) * 2)
    assert [(real, padded.shape[0]) for real, padded in shapes] == [(1, 4), (4, 4), (5, 8)]
    np.testing.assert_array_equal(shapes[0][1], np.repeat(rows(1), 4, axis=0))


def test_byte_strings_are_padded_with_the_last_row(serve: Any, oip: Any) -> None:
    seen: list[Any] = []

    def compute(batch: Any) -> Any:
        seen.append(batch.inputs["x"].tolist())
        return {"y": batch.inputs["x"]}

    array = np.array([[b"a", b"b"], [b"c", b""]], object)
    spec = ("batch", 2)
    with (
        serve(
            compute,
            inputs=(("x", "BYTES", spec),),
            outputs=(("y", "BYTES", spec),),
            options=Options(batch_buckets=(4,)),
        ) as served,
        served.channel() as channel,
    ):
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(array, "BYTES")))
    np.testing.assert_array_equal(found, array)
    assert seen == [[[b"a", b"b"], [b"c", b""], [b"c", b""], [b"c", b""]]]


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_a_batch_without_rows_is_not_padded(serve: Any, oip: Any, datatype: str) -> None:
    spec = ("batch", "n")
    empty = np.zeros((0, 1000), object if datatype == "BYTES" else np.float32)
    with (
        serve(
            lambda batch: {"y": batch.inputs["x"]},
            inputs=(("x", datatype, spec),),
            outputs=(("y", datatype, spec),),
            options=Options(batch_buckets=(4, 8)),
        ) as served,
        served.channel() as channel,
    ):
        response = oip.stub(channel).ModelInfer(oip.request(empty, datatype), timeout=20)
    assert list(response.outputs[0].shape) == [0, 1000]
    assert served.batches == [0]


def test_with_a_delay_requests_wait_for_company(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_batch_size=3, max_queue_delay_microseconds=10_000_000)
    with serve(options=options) as served, served.channel() as channel:
        calls = send(served, oip.stub(channel), oip, [rows(1), rows(1)])
        assert served.batches == []
        calls.append(oip.stub(channel).ModelInfer.future(oip.request(rows(1))))
        for call in calls:
            call.result(20)
    assert served.batches == [3]


def test_a_batch_that_is_complete_waits_for_none_of_another_shape(serve: Any, oip: Any) -> None:
    shape = ("batch", "n")
    narrow, wide = (np.ones((1, n), np.float32) for n in (2, 3))
    options = Options(max_batch_size=3, max_queue_delay_microseconds=600_000_000)
    with (
        serve(inputs=(("x", "FP32", shape),), outputs=(("y", "FP32", shape),), options=options) as served,
        served.channel() as channel,
    ):
        stub = oip.stub(channel)
        (alone,) = send(served, stub, oip, [narrow])
        for call in [stub.ModelInfer.future(oip.request(wide)) for _ in range(3)]:
            call.result(60)
        assert served.batches == [3]
        for call in [alone, *(stub.ModelInfer.future(oip.request(narrow)) for _ in range(2))]:
            call.result(60)
    assert served.batches == [3, 3]


def test_a_delay_ends(serve: Any, oip: Any, rows: Any) -> None:
    with (
        serve(options=Options(max_queue_delay_microseconds=20_000)) as served,
        served.channel() as channel,
    ):
        begun = time.monotonic()
        oip.stub(channel).ModelInfer(oip.request(rows(1)))
        assert time.monotonic() - begun >= 0.02
    assert served.batches == [1]


def test_a_preferred_size_that_is_there_is_taken(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_batch_size=8, preferred_batch_size=(2, 4))
    with serve(go=False, options=options) as served, served.channel() as channel:
        calls = send(served, oip.stub(channel), oip, [rows(1)] * 7)
        served.go.set()
        for call in calls:
            call.result()
    assert served.batches == [4, 2, 1]


def test_a_full_queue_refuses_and_says_when_to_come_back(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(policies=(Policy(max_queue_size=2),))
    with serve(go=False, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        calls = send(served, stub, oip, [rows(1), rows(1)])
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(oip.request(rows(1)))
        served.go.set()
        for call in calls:
            call.result()
    error = refused.value
    assert isinstance(error, grpc.Call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "model 'm' has 2 requests waiting, which is its limit; try again later"
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status: Message = Status.FromString(details)
    assert (status.code, status.message) == (8, error.details())
    retry = RetryInfo.FromString(status.details[0].value)
    assert 0.01 <= retry.retry_delay.ToTimedelta().total_seconds() <= 5


def test_a_request_in_parts_takes_one_place_in_a_queue(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_batch_size=1, policies=(Policy(max_queue_size=2),))
    with serve(go=False, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        calls = send(served, stub, oip, [rows(1)])
        calls.append(stub.ModelInfer.future(oip.request(rows(9))))
        waiting(served, 2)
        code, text = oip.refusal(lambda: stub.ModelInfer(oip.request(rows(1))))
        served.go.set()
        for call, size in zip(calls, (1, 9), strict=True):
            np.testing.assert_array_equal(oip.answer(call.result(20)), rows(size) * 2)
        stub.ModelInfer(oip.request(rows(3)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert text == "model 'm' has 2 requests waiting, which is its limit; try again later"


def test_the_bytes_that_wait_are_bounded_but_one_request_may_always(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False, options=Options(max_queue_bytes=100)) as served, served.channel() as channel:
        stub = oip.stub(channel)
        calls = send(served, stub, oip, [rows(20)])
        code, text = oip.refusal(lambda: stub.ModelInfer(oip.request(rows(1))))
        served.go.set()
        calls[0].result(20)
        stub.ModelInfer(oip.request(rows(1)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "320 bytes of requests waiting" in text


def test_every_level_has_a_queue_of_its_own(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(policies=(Policy(max_queue_size=1), Policy(max_queue_size=2)), default_priority_level=2)
    with serve(go=False, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        calls = send(served, stub, oip, [rows(1), rows(1)])
        calls += send(served, stub, oip, [rows(1)], parameters={"priority": 1})
        for parameters in ({}, {"priority": 1}, {"priority": 2}, {"priority": 9}):
            refused = oip.refusal(lambda: stub.ModelInfer(oip.request(rows(1), parameters=parameters)))  # noqa: B023  called at once
            assert refused[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        served.go.set()
        for call in calls:
            call.result(20)


def test_a_request_whose_deadline_passes_while_it_waits_is_not_computed(
    serve: Any, oip: Any, rows: Any
) -> None:
    with serve(go=False) as served, served.channel() as channel:
        stub = oip.stub(channel)
        late = oip.refusal(lambda: stub.ModelInfer(oip.request(rows(1)), timeout=0.1))
        waiting(served, 0)
        served.go.set()
        stub.ModelInfer(oip.request(rows(2)))
        statistics = served.queue.statistics()
    assert late[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert served.batches == [2]
    assert sum(statistics["codes"].get(code, 0) for code in (1, 4)) == 1


def test_the_timeout_of_a_request_ends_its_waiting(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served, served.channel() as channel:
        request = oip.request(rows(1), parameters={"timeout": 50_000})
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(request))
    assert found == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded while the request waited")
    assert served.batches == []


def test_a_policy_may_end_the_waiting_of_all(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(policies=(Policy(default_timeout_microseconds=30_000),))
    with serve(go=False, options=options) as served, served.channel() as channel:
        code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1))))
        statistics = served.queue.statistics()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert statistics["codes"] == {4: 1}
    assert sum(statistics["failed"]["counts"]) == 1
    assert served.batches == []


def test_a_policy_may_let_late_requests_wait_on_behind_the_others(serve: Any, oip: Any, rows: Any) -> None:
    policy = Policy(timeout_action="DELAY")
    options = Options(max_batch_size=1, policies=(policy,))
    with serve(go=False, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        order: list[str] = []

        def note(name: str) -> Any:
            return lambda call: order.append(name) if call.code() is grpc.StatusCode.OK else None

        late = stub.ModelInfer.future(oip.request(rows(1), parameters={"timeout": 1000}))
        late.add_done_callback(note("late"))
        waiting(served, 1)
        time.sleep(0.05)
        calls = send(served, stub, oip, [rows(1)])
        calls[0].add_done_callback(note("patient"))
        served.go.set()
        late.result()
        calls[0].result()
    assert sorted(order) == ["late", "patient"]


def test_a_policy_may_ignore_what_requests_ask_for(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(policies=(Policy(allow_timeout_override=False),))
    with serve(go=False, options=options) as served, served.channel() as channel:
        request = oip.request(rows(1), parameters={"timeout": 1000})
        call = oip.stub(channel).ModelInfer.future(request)
        waiting(served, 1)
        time.sleep(0.1)
        served.go.set()
        call.result(20)
    assert served.batches == [1]


def test_urgent_requests_go_first(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_batch_size=1, policies=(Policy(), Policy()), default_priority_level=2)
    seen: list[float] = []

    def compute(batch: Any) -> Any:
        seen.append(float(batch.inputs["x"][0, 0]))
        return {"y": batch.inputs["x"]}

    with serve(compute, go=False, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        calls = send(served, stub, oip, [rows(1, 2)])
        calls += send(served, stub, oip, [rows(1, 1)], parameters={"priority": 1})
        served.go.set()
        for call in calls:
            call.result()
    assert seen == [1, 2]


def test_less_urgent_requests_fill_the_batch_of_an_urgent_one(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(
        policies=(Policy(), Policy()),
        default_priority_level=2,
        preferred_batch_size=(4, 8),
        max_queue_delay_microseconds=600_000_000,
    )
    with serve(go=False, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        first, last = send(served, stub, oip, [rows(2), rows(1)])
        (urgent,) = send(served, stub, oip, [rows(2)], parameters={"priority": 1})
        served.go.set()
        for call in (urgent, first):
            call.result(60)
        for call in (stub.ModelInfer.future(oip.request(rows(3))), last):
            call.result(60)
    assert served.batches == [4, 4]


def test_a_client_that_cancels_is_not_computed_for(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served, served.channel() as channel:
        stub = oip.stub(channel)
        gone, stays = send(served, stub, oip, [rows(1), rows(2)])
        gone.cancel()
        waiting(served, 1)
        served.go.set()
        stays.result()
        statistics = served.queue.statistics()
    assert served.batches == [2]
    assert statistics["codes"] == {0: 1, 1: 1}


def test_a_client_that_disconnects_is_not_computed_for(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served:
        with served.channel() as channel:
            send(served, oip.stub(channel), oip, [rows(1)])
        waiting(served, 0)
    assert served.batches == []


def test_a_closed_queue_refuses_new_requests_and_finishes_the_old(serve: Any, oip: Any, rows: Any) -> None:
    with serve(go=False) as served, served.channel() as channel:
        stub = oip.stub(channel)
        (call,) = send(served, stub, oip, [rows(1)])
        served.queue.close()
        refused = oip.refusal(lambda: stub.ModelInfer(oip.request(rows(1))))
        served.go.set()
        np.testing.assert_array_equal(oip.answer(call.result()), rows(1) * 2)
    assert refused == (
        grpc.StatusCode.UNAVAILABLE,
        "model 'm' is shutting down here; try another server, or again later",
    )


def test_answers_keep_the_order_of_the_batches_when_they_are_to(serve: Any, oip: Any, rows: Any) -> None:
    second_done = threading.Event()
    finished: list[float] = []

    def compute(batch: Any) -> Any:
        if batch.inputs["x"][0, 0] == 1:
            assert second_done.wait(20)
            time.sleep(0.05)
        else:
            second_done.set()
        return {"y": batch.inputs["x"]}

    options = Options(max_batch_size=1, preserve_ordering=True)
    with serve(compute, go=False, executors=2, options=options) as served, served.channel() as channel:
        stub = oip.stub(channel)
        calls = send(served, stub, oip, [rows(1, 1), rows(1, 2)])
        for number, call in enumerate(calls, 1):
            call.add_done_callback(lambda _, number=number: finished.append(number))
        served.go.set()
        for call in calls:
            call.result()
    assert finished[:1] == [1]


def test_the_earliest_deadline_is_the_batchs(serve: Any, oip: Any, rows: Any) -> None:
    deadlines: list[Any] = []

    def compute(batch: Any) -> Any:
        deadlines.append(batch.deadline)
        return {"y": batch.inputs["x"]}

    with serve(compute) as served, served.channel() as channel:
        oip.stub(channel).ModelInfer(oip.request(rows(1)))
        oip.stub(channel).ModelInfer(oip.request(rows(1)), timeout=30)
        now = time.monotonic()
    assert deadlines[0] is None
    assert now + 20 < deadlines[1] <= now + 31  # clients round their timeout up


def test_statistics_count_what_happened(serve: Any, oip: Any, rows: Any) -> None:
    with serve() as served, served.channel() as channel:
        stub = oip.stub(channel)
        stub.ModelInfer(oip.request(rows(3)))
        stub.ModelInfer(oip.request(rows(2)))
        oip.refusal(lambda: stub.ModelInfer(oip.request(rows(1), model_name="n")))
        queue, server = served.queue.statistics(), served.server.statistics()
    assert (queue["requests"], queue["rows"], queue["batches"]) == (2, 5, 2)
    assert queue["codes"] == {0: 2}
    for name in ("succeeded", "waited", "computed"):
        assert sum(queue[name]["counts"]) == 2
        assert len(queue[name]["counts"]) == len(queue[name]["bounds"]) + 1
    assert (server["calls"], server["refused"], server["connections_now"]) == (3, {5: 1}, 1)
    assert server["bytes_received"] > 100
    assert server["in_flight_now"] == 0
