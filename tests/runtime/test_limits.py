"""How much a server takes on: models and connections."""

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kerve.runtime import Client
from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import ResourceExhaustedError, UnavailableError, UnimplementedError
from kerve.runtime.lifecycle.manager import ModelManager, Override
from kerve.runtime.lifecycle.slot import Slot
from kerve.runtime.repository import Repository
from kerve.runtime.transport.base import TransportOptions
from kerve.runtime.transport.grpcio import GrpcioTransport

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]


def test_no_more_models_are_loaded_than_the_server_may_have(
    tmp_path: Path, publish: Publish, serve: Serve, transport: str
) -> None:
    for name in ("a", "b", "c"):
        publish(tmp_path, "echo_fp32", name=name)
    options = (
        "--model-control-mode",
        "explicit",
        "--load-model",
        "*",
        "--max-models",
        "2",
        "--transport",
        transport,
    )
    with serve(tmp_path, *options) as running, Client(running.address) as client:
        (left,) = {each.name for each in client.index() if each.state == "UNAVAILABLE"}
        (reason,) = (each.reason for each in client.index() if each.name == left)
        assert reason == "2 models are loaded, which is the limit (--max-models); unload one of them first"
        with pytest.raises(ResourceExhaustedError, match="2 models are loaded"):
            client.load(left)
        one, other = {"a", "b", "c"} - {left}
        client.load(one)  # again
        client.unload(other)
        client.load(left)
        assert [client.ready(name) for name in (left, one, other)] == [True, True, False]


def test_models_may_come_while_those_that_serve_are_counted(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(
        [Repository(tmp_path)], GrpcioTransport(TransportOptions()), Catalog(), mode="explicit"
    )
    ready = vars(Slot)["ready"].fget

    def meanwhile(slot: Slot) -> Any:
        manager.announce()
        return ready(slot)

    try:
        publish(tmp_path, "echo_fp32", name="a")
        manager.load("a")
        publish(tmp_path, "echo_fp32", name="b")
        monkeypatch.setattr(Slot, "ready", property(meanwhile))
        manager.load("a")
    finally:
        manager.stop(time.monotonic())


def test_models_may_be_loaded_and_unloaded_while_folders_are_looked_at(
    tmp_path: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = ModelManager(
        [Repository(tmp_path)], GrpcioTransport(TransportOptions()), Catalog(), mode="explicit"
    )
    others: list[Callable[[], None]] = []

    def meanwhile(override: Any) -> Any:
        if others:
            others.pop()()
        return vars(override).get("folder")

    def keep(override: Any, folder: Any) -> None:
        vars(override)["folder"] = folder

    for name in ("a", "b", "c"):
        publish(tmp_path, "echo_fp32", name=name)
    try:
        manager.load("a")
        monkeypatch.setattr(Override, "folder", property(meanwhile, keep))
        for work in (lambda: manager.load("b"), lambda: manager.load("c"), lambda: manager.unload("b")):
            others.append(work)
            manager.refresh()
        assert [each.name for each in manager.served()] == ["a", "c"]
    finally:
        manager.stop(time.monotonic())


def test_more_connections_than_may_be_open_are_closed(
    tmp_path: Path, publish: Publish, serve: Serve, until: Until
) -> None:
    pytest.importorskip("kerve_wire")
    publish(tmp_path, "pair")
    options = ("--transport", "wire", "--max-connections", "2", "--http-port", "-1")
    with serve(tmp_path, *options) as running:
        host, _, port = running.address.rpartition(":")
        kept = [socket.create_connection((host, int(port)), timeout=60) for _ in range(2)]
        assert kept[1].recv(1)  # both are served: the server speaks first
        with socket.create_connection((host, int(port)), timeout=60) as third:
            assert third.recv(1) == b""
        # the server's own door is no client's: REST and its gRPC services answer
        with urllib.request.urlopen(f"http://{running.http}/v2/health/ready", timeout=60) as answer:
            assert answer.status == 200
        for each in kept:
            each.close()

        def answers() -> bool:
            with Client(running.address) as client, suppress(UnavailableError):
                return client.live(timeout=60)
            return False

        until(answers, "there is room again")


def test_a_limit_of_connections_takes_the_wire() -> None:
    with pytest.raises(UnimplementedError, match="--transport wire"):
        GrpcioTransport(TransportOptions(max_connections=2))


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_a_call_with_too_much_metadata_is_refused_and_no_other(
    tmp_path: Path, publish: Publish, serve: Serve, transport: str, method: str
) -> None:
    publish(tmp_path, "pair")
    with (
        serve(tmp_path, "--transport", transport) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        codes = []
        for size in (12 << 10, 12 << 10, 17 << 10, 300 << 10):
            try:
                call(b"", metadata=(("x-large", "x" * size),), timeout=60)
                codes.append(grpc.StatusCode.OK)
            except grpc.RpcError as error:
                codes.append(error.code())
        served = {"ModelInfer": grpc.StatusCode.NOT_FOUND, "ServerLive": grpc.StatusCode.OK}[method]
        assert codes == [served, served, *[grpc.StatusCode.RESOURCE_EXHAUSTED] * 2]
        assert watch.is_active()  # on the same connection


def test_a_path_is_a_method_only_as_a_whole(
    tmp_path: Path, publish: Publish, serve: Serve, transport: str
) -> None:
    publish(tmp_path, "pair")
    with (
        serve(tmp_path, "--transport", transport) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        for method in ("ModelInfer?a=b", "ServerLive?a=b", "ModelInfer/", "modelinfer"):
            call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=60)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", id="reflection"),
        pytest.param("/kerve.evaluation.v1.EvaluationService/Evaluate", id="evaluation"),
        pytest.param("/inference.GRPCInferenceService/ModelMetadata", id="a call without its message"),
        pytest.param("/grpc.health.v1.Health/Watch", id="a watch without its message"),
    ],
)
def test_calls_of_which_nothing_comes_keep_nobody_from_health(
    tmp_path: Path, publish: Publish, serve: Serve, transport: str, method: str
) -> None:
    publish(tmp_path, "pair")
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    with (
        serve(tmp_path, "--transport", transport) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        call: Any = channel.stream_stream(method)
        streams = [call(nothing()) for _ in range(100)]
        try:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            with Client(running.address) as client:
                assert client.ready("pair", timeout=60)
            assert all(stream.is_active() for stream in streams)
        finally:
            over.set()
