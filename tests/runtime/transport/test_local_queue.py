"""The bounded queue: order, limits, deadlines, cancellation, closing."""

import threading
import time

import numpy as np
import pytest

from kerve.runtime.errors import (
    Code,
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
)
from kerve.runtime.signature import Signature
from kerve.runtime.transport.base import Batch, Queue, ServedModel
from kerve.runtime.transport.batching import Batching, QueuePolicy
from kerve.runtime.transport.local_queue import LocalQueue, Request

OUTPUTS = {"y": np.zeros(1)}


def queue_of(size: int) -> LocalQueue:
    return queue_with(QueuePolicy(max_queue_size=size))


def queue_with(*policies: QueuePolicy) -> LocalQueue:
    return LocalQueue(ServedModel("digits", 1, Signature((), (), batched=False), Batching(policies=policies)))


def request(deadline: float | None = None) -> Request:
    return Request({}, rows=1, requested=None, deadline=deadline, parameters={})


def test_it_is_what_the_seam_asks_for() -> None:
    queue: Queue = queue_of(1)
    batch: Batch = request()
    queue.close()
    assert queue.take() is None
    assert batch.rows == 1


def test_requests_are_taken_in_order_and_answered() -> None:
    queue = queue_of(2)
    first, second = request(), request()
    queue.put(first)
    queue.put(second)
    assert queue.take() is first
    assert queue.take() is second
    second.reply(OUTPUTS)
    assert second.wait() is OUTPUTS


def test_a_timeout_of_centuries_is_waited_for() -> None:
    queue, work = queue_of(1), request()
    queue.put(work, timeout=1e13)
    thread = threading.Timer(0.1, lambda: work.reply(OUTPUTS))
    thread.start()
    assert work.wait() is OUTPUTS
    thread.join()


def test_taking_waits_for_work() -> None:
    queue, work = queue_of(1), request()
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.put(work)
    thread.join(10)
    assert taken == [work]


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    queue = queue_of(1)
    queue.put(request())
    with pytest.raises(ResourceExhaustedError, match="model 'digits' has 1 requests waiting") as caught:
        queue.put(request())
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 5
    queue.take()
    queue.put(request())


def test_a_closed_queue_refuses_but_gives_what_waits() -> None:
    queue, work = queue_of(2), request()
    queue.put(work)
    queue.close()
    with pytest.raises(UnavailableError, match="model 'digits' is shutting down"):
        queue.put(request())
    assert queue.take() is work
    assert queue.take() is None


def test_closing_wakes_those_that_wait() -> None:
    queue = queue_of(1)
    thread = threading.Thread(target=queue.take)
    thread.start()
    queue.close()
    thread.join(10)
    assert not thread.is_alive()


def test_work_whose_deadline_passed_is_answered_without_being_taken() -> None:
    queue = queue_of(2)
    late, good = request(deadline=time.monotonic() - 1), request()
    queue.put(late)
    queue.put(good)
    assert queue.take() is good
    with pytest.raises(DeadlineExceededError):
        late.wait()


def test_waiting_ends_with_the_deadline() -> None:
    with pytest.raises(DeadlineExceededError, match="Deadline Exceeded while"):
        request(deadline=time.monotonic() + 0.01).wait()


def test_work_that_nobody_waits_for_is_skipped() -> None:
    queue = queue_of(2)
    gone, good = request(), request()
    queue.put(gone)
    queue.put(good)
    gone.abandon()
    assert queue.take() is good
    with pytest.raises(ServingError) as caught:
        gone.wait()
    assert caught.value.code is Code.CANCELLED


def test_an_answer_after_the_client_is_gone_is_for_nobody() -> None:
    work = request()
    work.abandon()
    work.reply(OUTPUTS)
    work.fail(Code.INTERNAL, "too late")
    assert work.answered


def test_a_failure_reaches_the_caller_with_its_status() -> None:
    work = request()
    work.fail(13, "the model failed")
    with pytest.raises(InternalError, match="the model failed"):
        work.wait()


def test_the_most_urgent_priority_is_taken_first() -> None:
    queue = queue_with(QueuePolicy(), QueuePolicy(max_queue_size=1))
    low, default, urgent = request(), request(), request()
    queue.put(low, priority=2)
    queue.put(default)
    queue.put(urgent, priority=1)
    with pytest.raises(ResourceExhaustedError, match="1 requests waiting"):
        queue.put(request(), priority=2)
    assert [queue.take() for _ in range(3)] == [default, urgent, low]


def test_a_timeout_counts_while_the_request_waits_and_no_longer() -> None:
    queue, work = queue_of(2), request()
    queue.put(work, timeout=3600)
    assert queue.take() is work
    work.expires = time.monotonic() - 1  # the hour is over
    work.reply(OUTPUTS)
    assert work.wait() is OUTPUTS
    late = request()
    queue.put(late, timeout=0.01)
    with pytest.raises(DeadlineExceededError):
        late.wait()


def test_a_policy_may_refuse_to_be_overridden_or_let_what_is_late_wait_behind_the_others() -> None:
    queue = queue_with(
        QueuePolicy(
            default_timeout_microseconds=3_600_000_000, allow_timeout_override=False, timeout_action="DELAY"
        )
    )
    late = request()
    queue.put(late, timeout=0.001)
    assert late.expires is not None
    assert late.expires > time.monotonic() + 1800
    late.expires = time.monotonic() - 1  # the hour is over
    good = request()
    queue.put(good)
    assert queue.take() is good
    assert queue.take() is late


def test_statistics_count_every_request_once() -> None:
    queue = queue_of(3)
    works = [request(), request(), request()]
    for work in works:
        queue.put(work)
    works[1].abandon()
    for expected in (works[0], works[2]):
        assert queue.take() is expected
        expected.reply(OUTPUTS)
    found = queue.statistics()
    assert (found["requests"], found["rows"], found["batches"], found["waiting"]) == (3, 2, 2, 0)
    assert found["codes"] == {0: 2, 1: 1}
    assert [sum(found[name]["counts"]) for name in ("succeeded", "failed", "waited", "computed")] == [
        2,
        1,
        2,
        2,
    ]


def test_deferred_tasks_are_taken_when_no_request_waits_and_count_against_no_limit() -> None:
    queue = queue_of(2)
    tasks = [lambda: None for _ in range(5)]
    assert all(queue.defer(task) for task in tasks)
    first, second = request(), request()
    queue.put(first)
    queue.put(second)
    assert queue.take() is first
    assert queue.take() is second
    assert queue.take() is tasks[0]
    third = request()
    queue.put(third)
    assert queue.take() is third
    queue.close()
    assert not queue.defer(tasks[0])
    assert [queue.take() for _ in tasks] == [*tasks[1:], None]


def test_taking_waits_for_a_deferred_task() -> None:
    queue = queue_of(1)
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    assert queue.defer(task := lambda: None)
    thread.join(10)
    assert taken == [task]
