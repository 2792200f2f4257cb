"""How often a client may ask: by its token or its address, over gRPC and HTTP, on both transports."""

import hashlib
import http.client
import json
import queue
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from kerve.runtime import Client, InvalidArgumentError, ResourceExhaustedError
from kerve.runtime.transport.rates import network

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

# One more request every quarter of an hour: none, in a test.
LIMIT = ("--rate-limit", "0.001", "--rate-burst", "3", "--http-port", "-1")
TOLD = r"a client may send 0\.001 requests per second here, 3 at once; try again later"


def infer(client: Any, module: Any, **headers: str) -> None:
    tensor = module.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    client.infer("echo_fp32", [tensor], headers=headers)


def over_http(address: str, source: str) -> tuple[int, str | None]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60, source_address=(source, 0))
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 1]}
    connection.request("POST", "/v2/models/echo_fp32/infer", json.dumps({"inputs": [tensor]}))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("Retry-After")


def test_an_evaluation_counts_as_one_request(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "echo_fp32")
    data = {"x": np.ones((1, 2), np.float32)}
    with serve(tmp_path, "--transport", transport, *LIMIT) as running, Client(running.address) as client:
        for _ in range(3):  # the model has no metrics, which is said once the call is let in
            with pytest.raises(InvalidArgumentError, match="no loss or metrics"):
                client.evaluate("echo_fp32", data)
        with pytest.raises(ResourceExhaustedError, match=TOLD):
            client.evaluate("echo_fp32", data)


def test_an_address_has_a_bucket_for_all_its_ways_in(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "echo_fp32")
    with (
        serve(tmp_path, "--transport", transport, *LIMIT) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        for _ in range(2):
            infer(client, triton)
        assert over_http(running.http, "127.0.0.1")[0] == 200
        with pytest.raises(InferenceServerException, match=TOLD) as caught:
            infer(client, triton, authorization="Bearer made-up")
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        status, retry = over_http(running.http, "127.0.0.1")
        assert status == 429
        assert retry is not None
        assert 1 <= int(retry) <= 1000
        with Client(running.address) as own, pytest.raises(ResourceExhaustedError) as refused:
            own.infer("echo_fp32", np.ones((1, 2), np.float32))
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1000
        # another address is another client, and only inference is counted
        assert [over_http(running.http, "127.0.0.2")[0] for _ in range(4)] == [200, 200, 200, 429]
        for _ in range(5):
            assert client.is_model_ready("echo_fp32")
            client.get_model_metadata("echo_fp32")


def test_every_request_of_a_stream_counts(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "echo_fp32")
    answers: queue.Queue[Any] = queue.Queue()
    with (
        serve(tmp_path, "--transport", transport, *LIMIT) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.start_stream(lambda result, error: answers.put(error))
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        for number in range(5):
            client.async_stream_infer("echo_fp32", [tensor], request_id=str(number))
        errors = [answers.get(timeout=60) for _ in range(5)]
        client.stop_stream()
    assert [error is None for error in errors] == [True] * 3 + [False] * 2
    assert "try again later" in str(errors[3])


def test_a_token_has_a_bucket_wherever_it_comes_from(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path / "models", "echo_fp32")
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{hashlib.sha256(each).hexdigest()} infer\n" for each in (b"one", b"two")))
    options = ("--transport", transport, "--tokens", str(tokens), *LIMIT)
    with (
        serve(tmp_path / "models", *options) as running,
        triton.InferenceServerClient(running.address) as client,
        triton_http.InferenceServerClient(running.http) as other,
    ):
        for _ in range(2):
            infer(client, triton, authorization="Bearer one")
        infer(other, triton_http, authorization="bearer one")
        for asked, module in ((client, triton), (other, triton_http)):
            with pytest.raises(InferenceServerException, match=TOLD):
                infer(asked, module, authorization="Bearer one")
        for _ in range(3):
            infer(client, triton, authorization="Bearer two")
        with pytest.raises(InferenceServerException, match="expected the metadata authorization"):
            infer(client, triton, authorization="Bearer three")


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:10.0.0.1:443", "ipv4:10.0.0.1"),
        ("unix:/a", "unix:/a"),
        ("ipv6:%5B::1%5D:50", "ipv6:::/64"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:50", "ipv6:2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]", "ipv6:2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50", "ipv6:fe80::/64"),
        ("ipv6:[::ffff:10.0.0.1]:50", "ipv4:10.0.0.1"),
        ("ipv6:[what]:50", "ipv6:[what]"),
    ],
)
def test_an_ipv6_network_counts_as_one_client(peer: str, expected: str) -> None:
    """As kerve-wire counts, whose own test has the same table."""
    assert network(peer) == expected
