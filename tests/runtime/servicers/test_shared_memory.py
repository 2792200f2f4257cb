"""System shared memory, with tritonclient's own utilities, over gRPC and HTTP, on both transports."""

import os
import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException, shared_memory

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

#: The region's name; other processes run these tests at the same time.
KEY = f"/kerve_test_{os.getpid()}"


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    for model in ("pair", "echo_bytes", "counter"):
        publish(repository, model)
    with serve(repository, "--transport", transport, "--http-port", "-1") as server:
        yield server


@pytest.fixture
def client(triton_client: Any) -> Iterator[Any]:
    triton_client.unregister_system_shared_memory()
    yield triton_client
    triton_client.unregister_system_shared_memory()


@pytest.fixture
def region() -> Iterator[Any]:
    """A region of 64 bytes."""
    handle = shared_memory.create_shared_memory_region("ours", KEY, 64)
    yield handle
    shared_memory.destroy_shared_memory_region(handle)


LEFT = np.array([[1.5, -2]], np.float32)
RIGHT = np.array([[10, 20]], np.float32)


def shared_input(client: Any, name: str, offset: int, size: int = 8) -> Any:
    tensor = client.module.InferInput(name, [1, 2], "FP32")
    tensor.set_shared_memory("ours", size, offset=offset)
    return tensor


def test_inputs_and_outputs_lie_in_shared_memory_or_in_the_request(client: Any, region: Any) -> None:
    shared_memory.set_shared_memory_region(region, [LEFT, RIGHT])
    client.register_system_shared_memory("ours", KEY, 64)
    right = client.module.InferInput("right", [1, 2], "FP32")
    right.set_data_from_numpy(RIGHT)
    output = client.module.InferRequestedOutput("sum")
    output.set_shared_memory("ours", 16, offset=32)
    for second in (right, shared_input(client, "right", 8)):
        # in either order: what is raw belongs to the input that is not in shared memory
        for inputs in ([shared_input(client, "left", 0), second], [second, shared_input(client, "left", 0)]):
            np.testing.assert_array_equal(client.infer("pair", inputs).as_numpy("sum"), LEFT + RIGHT)
            shared_memory.set_shared_memory_region(region, [np.zeros(8, np.float32)], offset=32)
            answer = client.infer("pair", inputs, outputs=[output])
            assert answer.get_output("sum") is not None
            found = shared_memory.get_contents_as_numpy(region, np.float32, [1, 2], offset=32)
            np.testing.assert_array_equal(found, LEFT + RIGHT)


def test_a_region_that_its_client_cuts_off_fails_the_request_and_nothing_else(
    client: Any, region: Any
) -> None:
    shared_memory.set_shared_memory_region(region, [LEFT, RIGHT])
    client.register_system_shared_memory("ours", KEY, 64)
    output = client.module.InferRequestedOutput("sum")
    output.set_shared_memory("ours", 16, offset=32)
    inputs = [shared_input(client, "left", 0), shared_input(client, "right", 8)]
    for size in (16, 0):  # too short for the output, then for the inputs
        os.truncate(f"/dev/shm{KEY}", size)
        with pytest.raises(InferenceServerException, match="is smaller now than when it was registered"):
            client.infer("pair", inputs, outputs=[output])
    assert client.is_server_live()


def test_a_region_that_is_unregistered_goes_with_the_last_request_that_uses_it(
    running: Any, region: Any, until: Until
) -> None:
    steps = triton_grpc.InferInput("steps", [], "INT64")
    steps.set_data_from_numpy(np.array(10**6))
    output = triton_grpc.InferRequestedOutput("total")
    output.set_shared_memory("ours", 8, offset=8)
    answers: list[Any] = []
    with triton_grpc.InferenceServerClient(running.address) as client:
        client.register_system_shared_memory("ours", KEY, 64)
        client.async_infer(
            "counter",
            [steps],
            outputs=[output],
            callback=lambda result, error: answers.append(error or result),
        )
        running.wait_for("counter", begun=1)
        client.unregister_system_shared_memory("ours")
        assert "ours" in client.get_system_shared_memory_status().regions
        until(lambda: bool(answers), "the answer is there")
        assert not isinstance(answers[0], InferenceServerException), answers[0]
        assert shared_memory.get_contents_as_numpy(region, np.int64, [1], offset=8) == [10**6]
        until(lambda: not client.get_system_shared_memory_status().regions, "the region is gone")


def test_tensors_of_a_stream_lie_in_shared_memory_too(running: Any, region: Any) -> None:
    shared_memory.set_shared_memory_region(region, [LEFT, RIGHT])
    found: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(running.address) as client:
        client.module = triton_grpc
        client.unregister_system_shared_memory()
        client.register_system_shared_memory("ours", KEY, 64)
        client.start_stream(lambda result, error: found.put(error or result))
        whole = [triton_grpc.InferInput(name, [1, 2], "FP32") for name in ("left", "right")]
        for tensor, array in zip(whole, (LEFT, RIGHT), strict=True):
            tensor.set_data_from_numpy(array)
        shared = [shared_input(client, "left", 0), shared_input(client, "right", 8)]
        output = triton_grpc.InferRequestedOutput("sum")
        output.set_shared_memory("ours", 16, offset=32)
        outside = [whole[0], shared_input(client, "right", 60)]
        asked = (
            (whole, None),
            (shared, None),
            ([shared[0], whole[1]], [output]),
            (outside, None),
            (whole, None),
        )
        for number, (inputs, outputs) in enumerate(asked):
            client.async_stream_infer("pair", inputs, outputs=outputs, request_id=str(number))
        answers = [found.get(timeout=60) for _ in asked]
        client.stop_stream()
    refused = answers.pop(3)
    assert isinstance(refused, InferenceServerException)
    assert "tensor 'right': expected bytes within the 64 of region 'ours'" in str(refused)
    assert [answer.get_response().id for answer in answers] == ["0", "1", "2", "4"]
    placed = answers.pop(2)
    assert placed.get_output("sum").parameters["shared_memory_byte_size"].int64_param == 8
    there = shared_memory.get_contents_as_numpy(region, np.float32, [1, 2], offset=32)
    for array in (there, *(answer.as_numpy("sum") for answer in answers)):
        np.testing.assert_array_equal(array, LEFT + RIGHT)


def test_regions_are_listed_and_forgotten(client: Any, region: Any) -> None:
    client.register_system_shared_memory("ours", KEY, 32, offset=16)
    status = client.get_system_shared_memory_status()
    listed = [*status.regions.values()] if client.module is triton_grpc else status
    (found,) = listed
    key = found.key if client.module is triton_grpc else found["key"]
    assert key == KEY
    with pytest.raises(InferenceServerException, match="registered already"):
        client.register_system_shared_memory("ours", KEY, 8)
    client.unregister_system_shared_memory("ours")
    with pytest.raises(InferenceServerException, match="'ours' is not registered"):
        client.get_system_shared_memory_status("ours")
    with pytest.raises(InferenceServerException, match="'ours' is not registered"):
        client.infer("pair", [shared_input(client, "left", 0), shared_input(client, "right", 8)])


@pytest.mark.parametrize(
    ("key", "size", "offset"),
    [
        ("/nothing", 8, 0),
        ("/../../etc/passwd", 8, 0),
        ("..", 8, 0),
        (KEY, 65, 0),
        (KEY, 8, 60),
    ],
    ids=["missing", "path", "parent", "too large", "behind the end"],  # the same in all processes
)
def test_what_is_no_region_is_not_registered(
    key: str, size: int, offset: int, client: Any, region: Any
) -> None:
    with pytest.raises(InferenceServerException, match="shared memory"):
        client.register_system_shared_memory("ours", key, size, offset=offset)


def test_a_tensor_outside_its_region_is_refused(client: Any, region: Any) -> None:
    client.register_system_shared_memory("ours", KEY, 16)
    for offset, size in ((12, 8), (1 << 40, 8), (0, 4)):
        with pytest.raises(InferenceServerException, match="expected"):
            client.infer(
                "pair", [shared_input(client, "left", offset, size), shared_input(client, "right", 8)]
            )
    small = client.module.InferRequestedOutput("sum")
    small.set_shared_memory("ours", 4)
    with pytest.raises(InferenceServerException, match="at least 8, got 4"):
        client.infer(
            "pair", [shared_input(client, "left", 0), shared_input(client, "right", 8)], outputs=[small]
        )
