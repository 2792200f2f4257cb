"""The life of a server: ready, described, overloaded, broken, drained."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

from kerve.runtime import Client, Code, DeadlineExceededError, ResourceExhaustedError, ServingError
from kerve.runtime.errors import UnavailableError
from kerve.runtime.repository import Repository
from kerve.runtime.server import Ports, Server
from kerve.runtime.transport.grpcio import GrpcioTransport

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

# Long enough to be caught at it, on any machine: one microsecond per step or so.
LONG = 1_000_000
ENDLESS = 10**12


@pytest.fixture
def counter(tmp_path: Path, publish: Publish, serve: Serve) -> Iterator[Any]:
    """A server of its own, whose one model takes as long as it is told."""
    publish(tmp_path / "models", "counter")
    with serve(tmp_path / "models", "--max-queue-size", "4", "--http-port", "-1") as running:
        yield running


def counting(server: Any, calls: int, steps: int = LONG) -> list[Any]:
    """Start calls that take long, and return what waits for their answers."""
    channel = grpc.insecure_channel(server.address)
    call: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    message = triton.service_pb2.ModelInferRequest(model_name="counter")
    message.inputs.add(name="steps", datatype="INT64")
    message.raw_input_contents.append(np.array(steps).tobytes())
    return [call.future(message.SerializeToString()) for _ in range(calls)]


def total(call: Any) -> int:
    reply = triton.service_pb2.ModelInferResponse.FromString(call.result(timeout=240))
    return int(np.frombuffer(reply.raw_output_contents[0], np.int64)[0])


def test_the_ready_line_names_address_transport_and_models(server: Any) -> None:
    assert re.fullmatch(
        rf"ready: gRPC on {server.address} \((grpcio|wire)\), serving accumulator \(version 1\), .*\n",
        server.ready_line,
    )


def test_tritons_client_finds_everything_live_ready_and_described(server: Any) -> None:
    with triton.InferenceServerClient(server.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("classifier")
        assert client.is_model_ready("classifier", "1")
        assert not client.is_model_ready("classifier", "2")
        assert not client.is_model_ready("foo")
        assert client.get_server_metadata().name == "kerve"
        metadata = client.get_model_metadata("classifier")
    assert (metadata.name, list(metadata.versions), metadata.platform) == (
        "classifier",
        ["1"],
        "onnxruntime_onnx",
    )
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("features", "FP32", [-1, 4])
    ]
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.outputs] == [
        ("probabilities", "FP32", [-1, 3]),
        ("logits", "FP32", [-1, 3]),
    ]


def test_metadata_of_an_unknown_model_is_not_found(server: Any) -> None:
    with (
        triton.InferenceServerClient(server.address) as client,
        pytest.raises(
            InferenceServerException, match="Request for unknown model: 'foo' is not found"
        ) as caught,
    ):
        client.get_model_metadata("foo")
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_reflection_lists_and_describes_the_services(server: Any) -> None:
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(database.get_services())
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        assert len(service.methods) == 20
        infer = service.methods_by_name["ModelInfer"].input_type
        assert infer.fields_by_name["raw_input_contents"].number == 7
        assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"]


def test_reflection_answers_under_its_new_name_too(server: Any) -> None:
    from grpc_reflection.v1alpha import reflection_pb2

    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        (reply,) = call(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    listed = {each.name for each in reply.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.reflection.v1.ServerReflection"} <= listed


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("inference.GRPCInferenceService.ModelInfer", "inference/grpc_service.proto"),
        ("grpc.health.v1.Health.Watch", "grpc_health/v1/health.proto"),
        ("inference.GRPCInferenceService.Nope", None),
        ("inference.Nope.ModelInfer", None),
        ("Nope", None),
    ],
)
def test_reflection_finds_a_method_by_its_full_name(symbol: str, file: str | None, server: Any) -> None:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with grpc.insecure_channel(server.address) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        (reply,) = ask(iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)]))
    files = reply.file_descriptor_response.file_descriptor_proto
    assert (FileDescriptorProto.FromString(files[0]).name if files else None) == file
    assert (reply.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]) == (file is None)


@pytest.mark.parametrize(
    "service", ["", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService"]
)
def test_health_is_serving(service: str, server: Any) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(server: Any) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="foo"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(counter: Any) -> None:
    with grpc.insecure_channel(counter.address) as channel, Client(counter.address) as client:
        assert client.ready("counter")
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        calls = counting(counter, 3)
        counter.wait_for("counter", arrived=3)
        counter.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(UnavailableError):
            client.infer("counter", np.array(1))
        assert [total(call) for call in calls] == [LONG] * 3
        assert counter.process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_with_0(number: int, counter: Any) -> None:
    assert counter.stop(number) == 0


def test_a_drain_ends_with_its_timeout(tmp_path: Path, publish: Publish, serve: Serve) -> None:
    publish(tmp_path, "counter")
    with serve(tmp_path, "--drain-timeout", "0.1", "--http-port", "-1") as running:
        (endless,) = counting(running, 1, ENDLESS)
        running.wait_for("counter", begun=1)
        assert running.stop() == 1
        assert endless.code() is grpc.StatusCode.UNAVAILABLE
        assert endless.details() == "the model is shutting down here; try another server, or again later"
        assert running.log.read_text().splitlines()[-1] == "error: requests were still running after 0.1 s"


@pytest.mark.parametrize("mode", ["poll", "explicit"])
def test_a_model_that_is_being_loaded_keeps_no_server_from_its_end(
    transport: str, mode: str, tmp_path: Path, publish: Publish, serve: Serve, until: Until
) -> None:
    publish(tmp_path, "counter")
    control = ("--model-control-mode", mode, "--repository-poll-secs", "0.1")
    with serve(tmp_path, "--transport", transport, *control) as running:
        (tmp_path / "endless").mkdir()
        (tmp_path / "endless" / "config.pbtxt").write_text(
            "model_warmup { batch_size: 1 count: 2000000000 inputs { key: 'x' value "
            "{ data_type: TYPE_FP32 dims: 2 zero_data: true } } }"
        )
        publish(tmp_path, "echo_fp32", name="endless")
        with grpc.insecure_channel(running.address) as channel, Client(running.address) as client:
            load: Any = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")
            call = load.future(b"\x12\x07endless") if mode == "explicit" else None
            until(
                lambda: ("endless", "LOADING") in {(each.name, each.state) for each in client.index()},
                "it is being loaded",
            )
            assert running.stop() == 0
            assert call is None or call.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(counter: Any, second: int, until: Until) -> None:
    (endless,) = counting(counter, 1, ENDLESS)
    counter.wait_for("counter", begun=1)
    counter.process.send_signal(signal.SIGTERM)
    with triton.InferenceServerClient(counter.address) as client:
        until(lambda: not client.is_server_ready(), "the first one is heard")
    assert counter.stop(second) == -second
    assert endless.code() is grpc.StatusCode.UNAVAILABLE


def test_overload_has_tritons_codes_where_they_are_asked_for(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "counter")
    options = ("--status-codes", "triton", "--max-queue-size", "2", "--transport", transport)
    with serve(tmp_path, *options, "--http-port", "-1") as running, Client(running.address) as client:
        calls = counting(running, 1, ENDLESS)
        running.wait_for("counter", begun=1)
        with pytest.raises(UnavailableError, match="Deadline Exceeded while"):
            client.infer("counter", np.array(1), parameters={"timeout": 1000})
        calls += counting(running, 2, ENDLESS)
        running.wait_for("counter", arrived=3)
        with pytest.raises(UnavailableError, match="has 2 requests waiting, which is its limit"):
            client.infer("counter", np.array(1))
        # the first reason, which is REJECTED
        assert running.metric("nv_inference_request_failure", "counter") == 2
        for call in calls:
            call.cancel()


def test_a_full_queue_is_resource_exhausted_with_the_time_to_retry(counter: Any) -> None:
    calls = counting(counter, 16)
    failed = [call.exception(timeout=60) for call in calls if call.exception(timeout=60) is not None]
    assert failed
    assert {error.code() for error in failed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert "model 'counter' has 4 requests waiting, which is its limit" in failed[0].details()
    assert {total(call) for call in calls if call.exception() is None} == {LONG}


def test_our_client_reads_when_to_retry(counter: Any) -> None:
    calls = counting(counter, 1, ENDLESS)
    counter.wait_for("counter", begun=1)
    calls += counting(counter, 4, ENDLESS)
    counter.wait_for("counter", arrived=5)
    with Client(counter.address) as client, pytest.raises(ResourceExhaustedError) as caught:
        client.infer("counter", np.array(1), timeout=60)
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0
    for call in calls:
        call.cancel()


def test_a_deadline_ends_a_call_and_work_that_is_late_is_not_begun(counter: Any) -> None:
    (slow,) = counting(counter, 1)
    counter.wait_for("counter", begun=1)
    with Client(counter.address) as client:
        with pytest.raises(DeadlineExceededError):
            client.infer("counter", np.array(ENDLESS), timeout=0.2)
        with pytest.raises(DeadlineExceededError, match="Deadline Exceeded while"):
            client.infer("counter", np.array(ENDLESS), parameters={"timeout": 200_000})
        assert total(slow) == LONG
        # had one of the two been begun, the model would be busy for weeks
        assert client.predict("counter", np.array(3), timeout=60) == 3


def test_a_cancelled_call_that_waits_is_not_begun(counter: Any) -> None:
    (slow,) = counting(counter, 1, LONG)
    with Client(counter.address) as client:
        counter.wait_for("counter", begun=1)
        (waiting,) = counting(counter, 1, ENDLESS)
        counter.wait_for("counter", arrived=2)
        waiting.cancel()
        assert total(slow) == LONG
        assert client.predict("counter", np.array(3), timeout=60) == 3


def test_health_and_metadata_answer_while_inference_is_overloaded(counter: Any) -> None:
    calls = counting(counter, 20)
    with triton.InferenceServerClient(counter.address) as client:
        assert client.is_server_live(client_timeout=10)
        assert client.get_model_metadata("counter", client_timeout=10).name == "counter"
    for call in calls:
        call.cancel()


def test_the_newest_version_that_loads_is_served(tmp_path: Path, publish: Publish, serve: Serve) -> None:
    publish(tmp_path, "pair", name="m", version=1)
    publish(tmp_path, "scalar", name="m", version=2)
    broken = publish(tmp_path, "lookup", name="m", version=10)
    (broken / "model.onnx").write_bytes(b"nope")
    with serve(tmp_path) as running, Client(running.address) as client:
        assert "m (version 2)" in running.ready_line
        assert client.metadata("m").versions == ("2",)
        assert client.metadata("m").signature.inputs[0].shape == ()
        assert "model 'm' version 10 is not served" in running.log.read_text()


def test_a_model_that_cannot_load_does_not_keep_the_others_from_being_served(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "pair")
    (publish(tmp_path, "scalar", name="broken") / "model.onnx").write_bytes(b"nope")
    with serve(tmp_path) as running, Client(running.address) as client:
        assert client.ready()
        assert client.ready("pair")
        assert not client.ready("broken")
        with pytest.raises(UnavailableError, match="'broken' has no available versions"):
            client.infer("broken", np.array(1.0))


def kerve_serve(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("kerve")), "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_nothing_to_serve_ends_with_3_and_a_line_that_says_so(tmp_path: Path, publish: Publish) -> None:
    done = kerve_serve("--repository", str(tmp_path), "--grpc-port", "0", "--http-port", "0")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(
        f"error: no model of {tmp_path} can be served; expected <model>"
    )
    (publish(tmp_path, "scalar") / "model.onnx").write_bytes(b"nope")
    done = kerve_serve("--repository", str(tmp_path), "--grpc-port", "0", "--http-port", "0")
    assert done.returncode == 3
    assert "model 'scalar' version 1 is not served" in done.stderr


def test_a_port_that_is_taken_ends_with_1_and_a_line_that_says_so(tmp_path: Path, publish: Publish) -> None:
    publish(tmp_path, "scalar")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = kerve_serve("--repository", str(tmp_path), "--grpc-port", str(port), "--http-port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: cannot listen on 127.0.0.1:{port}")


def test_a_repository_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    done = kerve_serve("--repository", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_a_server_that_is_told_to_stop_loads_no_more(tmp_path: Path, publish: Publish) -> None:
    publish(tmp_path, "scalar")
    server = Server([Repository(tmp_path)], GrpcioTransport())
    server.listen(Ports(grpc_port=0))
    server.stopping.set()
    assert server.load() == {}
    assert server.drain(1)


def test_every_client_gets_its_own_answers(server: Any) -> None:
    def all_its_own(number: int) -> bool:
        rows = np.random.default_rng(number).normal(size=(number % 5, 3)).astype(np.float32)
        with Client(server.address) as client:
            answers = [client.predict("echo_fp32", rows + step) for step in range(30)]
        return all(np.array_equal(answer, rows + step) for step, answer in enumerate(answers))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(all_its_own, range(16)))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_read(algorithm: str, server: Any) -> None:
    tensor = triton.InferInput("x", [1, 1000], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1000), np.float32))
    with triton.InferenceServerClient(server.address) as client:
        answer = client.infer("echo_fp32", [tensor], compression_algorithm=algorithm)
    assert answer.as_numpy("y").shape == (1, 1000)


def test_errors_of_a_client_carry_code_and_message(server: Any) -> None:
    with Client(server.address) as client, pytest.raises(ServingError) as caught:
        client.infer("foo", np.zeros(1))
    assert caught.value.code is Code.NOT_FOUND
    assert str(caught.value).startswith("Request for unknown model: 'foo' is not found")
