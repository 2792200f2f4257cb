"""OpenTelemetry: what a collector gets of requests that come by gRPC and HTTP, on both transports."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from tritonclient.utils import InferenceServerException

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans by OTLP, as any collector does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        host: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        host(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  the protocol's name
        with self._lock:
            self._requests.append(request)
        return pb.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Any]:
        with self._lock:
            return [
                span
                for request in self._requests
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    @property
    def services(self) -> set[str]:
        with self._lock:
            return {
                attribute.value.string_value
                for request in self._requests
                for resource in request.resource_spans
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            }

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def infer(client: Any, module: Any, width: int = 4, **headers: str) -> None:
    tensor = module.InferInput("features", [1, width], "FP32")
    tensor.set_data_from_numpy(np.ones((1, width), np.float32))
    client.infer("classifier", [tensor], headers=headers, request_id=headers.get("traceparent", "")[3:9])


def test_a_trace_goes_on_from_its_caller_through_queue_and_computation(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve, collector: Collector
) -> None:
    publish(tmp_path, "classifier")
    options = ("--trace-ratio", "0", "--trace-endpoint", collector.endpoint, "--http-port", "-1")
    with serve(tmp_path, "--transport", transport, *options) as running:
        with triton.InferenceServerClient(running.address) as client:
            infer(client, triton, traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="vendor=1")
            infer(client, triton)
            infer(client, triton, traceparent=f"00-{TRACE[::-1]}-{SPAN}-00")
            with pytest.raises(InferenceServerException):
                infer(client, triton, width=3, traceparent=f"00-{'1' * 32}-{SPAN}-01")
        with triton_http.InferenceServerClient(running.http) as client:
            infer(client, triton_http, traceparent=f"00-{'2' * 32}-{SPAN}-01")
        assert running.stop() == 0
    by_trace: dict[str, dict[str, Any]] = {}
    for span in collector.spans:
        by_trace.setdefault(span.trace_id.hex(), {})[span.name] = span
    method = "inference.GRPCInferenceService/ModelInfer"
    assert by_trace.keys() == {TRACE, "1" * 32, "2" * 32}
    for trace in (TRACE, "2" * 32):
        request, queue, compute = (by_trace[trace].pop(name) for name in (method, "queue", "compute"))
        assert by_trace[trace] == {}
        assert request.parent_span_id.hex() == SPAN
        assert {queue.parent_span_id, compute.parent_span_id} == {request.span_id}
        assert request.start_time_unix_nano == queue.start_time_unix_nano
        assert queue.end_time_unix_nano == compute.start_time_unix_nano
        assert compute.start_time_unix_nano < compute.end_time_unix_nano <= request.end_time_unix_nano
        assert request.kind == 2  # SPAN_KIND_SERVER
        told = attributes(request)
        assert (told["kerve.model.name"], told["kerve.model.version"]) == ("classifier", "1")
        assert told["kerve.request.id"] == trace[:6]
        assert (told["rpc.method"], told["rpc.grpc.status_code"]) == ("ModelInfer", 0)
        assert told["client.address"].startswith("ipv4:127.0.0.1:")
    (refused,) = by_trace["1" * 32].values()
    assert attributes(refused)["rpc.grpc.status_code"] == 3
    assert collector.services == {"kerve"}


def test_without_a_word_of_the_caller_the_ratio_decides(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve, collector: Collector, until: Until
) -> None:
    publish(tmp_path, "classifier")
    options = ("--trace-ratio", "1", "--trace-endpoint", collector.endpoint, "--access-log")
    with serve(tmp_path, "--transport", transport, *options) as running:
        with triton.InferenceServerClient(running.address) as client:
            for _ in range(5):
                infer(client, triton)
            infer(client, triton, traceparent=f"00-{TRACE}-{SPAN}-00")
            client.get_model_metadata("classifier")
        assert running.stop() == 0
        assert running.log.read_text().count("model=classifier") == 7
    names = [span.name.rpartition("/")[2] for span in collector.spans]
    assert sorted(names) == sorted(["ModelInfer", "queue", "compute"] * 5 + ["ModelMetadata"])
    roots = [span for span in collector.spans if span.name.endswith("ModelInfer")]
    assert all(not span.parent_span_id for span in roots)
    assert len({span.trace_id for span in collector.spans}) == 6


def test_a_collector_that_is_not_there_keeps_no_request_and_no_end_waiting(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "classifier")
    options = ("--trace-ratio", "1", "--trace-endpoint", "http://127.0.0.1:9")
    with serve(tmp_path, "--transport", transport, *options) as running:
        with triton.InferenceServerClient(running.address) as client:
            infer(client, triton)
        assert running.stop() == 0
