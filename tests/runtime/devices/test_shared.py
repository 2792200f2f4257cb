"""CUDA shared memory through the front door: over gRPC and HTTP, on both transports.

The driver is a stand-in whose device memory is files in /dev/shm; with a GPU, tritonclient's own utilities
make the memory.
"""

import base64
import os
import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from kerve.runtime.devices.driver import DriverError, driver

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

LEFT = np.array([[1.5, -2]], np.float32)
RIGHT = np.array([[10, 20]], np.float32)
SIZE = 64


@pytest.fixture(scope="module")
def running(
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
    publish: Publish,
    serve: Serve,
    fake_driver: Path,
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    publish(repository, "pair")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LD_LIBRARY_PATH", str(fake_driver))
        environment.setenv("FAKE_CUDA_DEVICES", "2")
        with serve(repository, "--transport", transport, "--http-port", "-1", "--device", "cpu") as server:
            yield server


@pytest.fixture
def client(triton_client: Any) -> Iterator[Any]:
    yield triton_client
    triton_client.unregister_cuda_shared_memory()


@pytest.fixture
def device_memory() -> Iterator[Any]:
    """Memory of another process, and its handle."""
    file = Path("/dev/shm") / f"kerve_cuda_{os.getpid()}"
    file.write_bytes(bytes(SIZE))
    yield np.memmap(file, np.float32, "r+")
    file.unlink()


def handle_of(memory: Any) -> bytes:
    """Return what `get_raw_handle` gives."""
    return base64.b64encode(Path(memory.filename).name.encode().ljust(64, b"\0"))


def shared_input(client: Any, name: str, offset: int) -> Any:
    tensor = client.module.InferInput(name, [1, 2], "FP32")
    tensor.set_shared_memory("ours", 8, offset=offset)
    return tensor


def shared_output(client: Any) -> Any:
    output = client.module.InferRequestedOutput("sum")
    output.set_shared_memory("ours", 16, offset=32)
    return output


def test_inputs_and_outputs_lie_in_a_devices_memory(client: Any, device_memory: Any) -> None:
    device_memory[:4] = [*LEFT[0], *RIGHT[0]]
    client.register_cuda_shared_memory("ours", handle_of(device_memory), 1, SIZE)
    inputs = [shared_input(client, "left", 0), shared_input(client, "right", 8)]
    answer = client.infer("pair", inputs, outputs=[shared_output(client)])
    assert answer.get_output("sum") is not None
    np.testing.assert_array_equal(device_memory[8:10], (LEFT + RIGHT)[0])
    device_memory[:2] = 0  # the region is shared: what is there now counts
    np.testing.assert_array_equal(client.infer("pair", inputs).as_numpy("sum"), RIGHT)


def test_the_extension_is_announced_where_there_is_a_device(client: Any) -> None:
    server = client.get_server_metadata()
    assert "cuda_shared_memory" in (server["extensions"] if isinstance(server, dict) else server.extensions)


def test_regions_are_listed_and_forgotten_by_their_kind(client: Any, device_memory: Any) -> None:
    client.register_cuda_shared_memory("ours", handle_of(device_memory), 1, SIZE)
    with pytest.raises(InferenceServerException, match="'ours' is registered already"):
        client.register_cuda_shared_memory("ours", handle_of(device_memory), 1, SIZE)
    client.unregister_system_shared_memory()
    if client.module is triton_grpc:
        status = client.get_cuda_shared_memory_status().regions["ours"]
        assert (status.name, status.device_id, status.byte_size) == ("ours", 1, SIZE)
        assert not client.get_system_shared_memory_status().regions
    else:
        (status,) = client.get_cuda_shared_memory_status("ours")
        assert status == {"name": "ours", "device_id": 1, "byte_size": SIZE}
        assert client.get_system_shared_memory_status() == []
    client.unregister_cuda_shared_memory("ours")
    with pytest.raises(InferenceServerException, match="'ours' is not registered here"):
        client.get_cuda_shared_memory_status("ours")


@pytest.mark.parametrize(
    ("handle", "device", "size", "expected"),
    [
        pytest.param(b"short", 0, SIZE, "expected a raw handle of 64 bytes, got 5", id="not a handle"),
        pytest.param(None, 2, SIZE, "expected a device_id from 0 to 1, got 2", id="no such device"),
        pytest.param(None, 0, SIZE + 1, "expected 1 to 64 bytes, got 65", id="more than there is"),
        pytest.param(None, 0, 0, "expected 1 to 64 bytes, got 0", id="nothing"),
        pytest.param(
            b"gone".ljust(64, b"\0"), 0, SIZE, "cuIpcOpenMemHandle_v2: invalid argument", id="freed"
        ),
    ],
)
def test_what_cannot_be_opened_is_refused_and_nothing_stays(
    client: Any, device_memory: Any, handle: bytes | None, device: int, size: int, expected: str
) -> None:
    given = handle_of(device_memory) if handle is None else base64.b64encode(handle)
    with pytest.raises(InferenceServerException, match=expected):
        client.register_cuda_shared_memory("ours", given, device, size)
    assert not getattr(found := client.get_cuda_shared_memory_status(), "regions", found)


def test_a_tensor_beyond_its_region_is_refused(client: Any, device_memory: Any) -> None:
    client.register_cuda_shared_memory("ours", handle_of(device_memory), 0, 16)
    for offset in (12, 1 << 40):
        with pytest.raises(InferenceServerException, match="expected bytes within the 16 of region 'ours'"):
            client.infer("pair", [shared_input(client, "left", 0), shared_input(client, "right", offset)])


def test_tensors_of_a_stream_lie_in_a_devices_memory_too(running: Any, device_memory: Any) -> None:
    device_memory[:4] = [*LEFT[0], *RIGHT[0]]
    found: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(running.address) as client:
        client.module = triton_grpc
        client.register_cuda_shared_memory("ours", handle_of(device_memory), 0, SIZE)
        client.start_stream(lambda result, error: found.put((result, error)))
        inputs = [shared_input(client, "left", 0), shared_input(client, "right", 8)]
        client.async_stream_infer("pair", inputs, outputs=[shared_output(client)])
        _, error = found.get(timeout=60)
        client.stop_stream()
        client.unregister_cuda_shared_memory()
    assert error is None
    np.testing.assert_array_equal(device_memory[8:10], (LEFT + RIGHT)[0])


def test_tritonclients_own_utilities_share_a_gpus_memory(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    try:
        driver().gpus()
    except DriverError as error:
        pytest.skip(f"needs a GPU: {error}")
    pytest.importorskip("cuda.bindings.runtime", reason="tritonclient makes CUDA memory with cuda-python")
    from tritonclient.utils import cuda_shared_memory as cuda

    publish(tmp_path, "pair")
    region = cuda.create_shared_memory_region("ours", SIZE, 0)
    try:
        cuda.set_shared_memory_region(region, [LEFT, RIGHT, np.zeros(12, np.float32)])
        with (
            serve(tmp_path, "--transport", transport) as server,
            triton_grpc.InferenceServerClient(server.address) as client,
        ):
            client.module = triton_grpc
            client.register_cuda_shared_memory("ours", cuda.get_raw_handle(region), 0, SIZE)
            inputs = [shared_input(client, "left", 0), shared_input(client, "right", 8)]
            client.infer("pair", inputs, outputs=[shared_output(client)])
            found = cuda.get_contents_as_numpy(region, np.float32, [16])
            np.testing.assert_array_equal(found[8:10], (LEFT + RIGHT)[0])
            client.unregister_cuda_shared_memory()
    finally:
        cuda.destroy_shared_memory_region(region)
