"""Triton's asyncio client against a server process, on both transports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
import tritonclient.http.aio as triton_http

REQUESTS = 100


def tensor(value: float) -> Any:
    given = triton.InferInput("features", [2, 4], "FP32")
    given.set_data_from_numpy(np.full((2, 4), value, np.float32))
    return given


async def ask(address: str) -> None:
    async with triton.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        plain = await client.infer("classifier", [tensor(0.5)])
        name = plain.get_response().outputs[0].name
        answers = await asyncio.gather(
            *(client.infer("classifier", [tensor(value)], request_id=str(value)) for value in range(REQUESTS))
        )
        assert [each.get_response().id for each in answers] == [str(value) for value in range(REQUESTS)]
        np.testing.assert_array_equal(
            (await client.infer("classifier", [tensor(0.5)])).as_numpy(name), plain.as_numpy(name)
        )

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in range(5):
                yield {"model_name": "classifier", "inputs": [tensor(0.5)], "request_id": str(number)}

        ids = []
        async for answer, error in client.stream_infer(requests()):
            assert error is None
            np.testing.assert_array_equal(answer.as_numpy(name), plain.as_numpy(name))
            ids.append(answer.get_response().id)
        assert ids == ["0", "1", "2", "3", "4"]


async def ask_http(address: str) -> None:
    async with triton_http.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        # Longer than what is worth being compressed, which this client could not read.
        assert (await client.get_model_config("classifier"))["name"] == "classifier"
        assert (await client.get_inference_statistics())["model_stats"]
        given = triton_http.InferInput("features", [100, 4], "FP32")
        given.set_data_from_numpy(np.zeros((100, 4), np.float32))
        for algorithm in (None, "gzip"):
            answer = await client.infer("classifier", [given], response_compression_algorithm=algorithm)
            assert answer.as_numpy("logits").shape == (100, 3)


def test_many_requests_and_a_stream_are_answered(
    transport: str,
    tmp_path: Path,
    publish: Callable[..., Path],
    serve: Callable[..., AbstractContextManager[Any]],
) -> None:
    publish(tmp_path, "classifier")
    with serve(tmp_path, "--transport", transport, "--http-port", "-1") as running:
        asyncio.run(ask(running.address))
        asyncio.run(ask_http(running.http))
