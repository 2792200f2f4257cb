"""OpenTelemetry: spans of requests, exported with OTLP; needs the packages of `kerve[otel]`.

    request (the method's name) > queue, compute

Spans are created from observations after the requests have ended, so that requests do not wait for them.
"""

import functools
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from kerve.runtime.errors import Code, UnavailableError
from kerve.runtime.observation.observer import Observation

__all__ = ["Spans"]

# Maximum number of spans that wait for the collector, and timeout of an export in seconds.
CAPACITY = 1 << 15
TIMEOUT = 5.0

# Codes that are errors of the server (OpenTelemetry's conventions for gRPC).
FAILED = {
    Code.UNKNOWN,
    Code.DEADLINE_EXCEEDED,
    Code.UNIMPLEMENTED,
    Code.INTERNAL,
    Code.UNAVAILABLE,
    Code.DATA_LOSS,
}


class Spans:
    """Traces the requests that their callers trace, and a share of those whose callers do not decide."""

    everything = False

    def __init__(self, share: float, endpoint: str | None = None) -> None:
        """`endpoint`: the collector; by default it is taken from OpenTelemetry's environment variables.

        Raises UnavailableError if the packages are not installed.
        """
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
            raise UnavailableError("traces need OpenTelemetry's packages; install kerve[otel]")
        self.traced: float | None = share
        self._endpoint = endpoint

    def notify(self, observations: Sequence[Observation]) -> None:
        """Create the spans of traced requests."""
        for each in observations:
            if each.sampled:
                self._trace(each)

    def close(self) -> None:
        """Export the remaining spans."""
        if "_provider" in vars(self):
            self._provider.shutdown()

    @functools.cached_property
    def _provider(self) -> Any:
        # Imported in the exporting thread, so that startup does not wait for these packages.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        name = os.environ.get("OTEL_SERVICE_NAME", "kerve")
        # Sampling was decided when the request arrived.
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=self._endpoint, timeout=TIMEOUT)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=CAPACITY))
        return provider

    @functools.cached_property
    def _tracer(self) -> Any:
        return self._provider.get_tracer("kerve")

    def _trace(self, each: Observation) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": each.trace_parent, "tracestate": each.trace_state}
        request = self._tracer.start_span(
            verb_of(each) or each.method.strip("/"),
            TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes(each),
            start_time=each.arrived,
        )
        inside = set_span_in_context(request)
        if each.queued is not None and each.computed is not None:
            taken = each.arrived + each.queued
            queue = self._tracer.start_span("queue", inside, start_time=each.arrived)
            queue.end(taken)
            rows = {"kerve.batch.rows": each.batch}
            compute = self._tracer.start_span("compute", inside, attributes=rows, start_time=taken)
            compute.end(taken + each.computed)
        if each.code in FAILED:
            request.set_status(Status(StatusCode.ERROR, Code(each.code).name))
        request.end(each.arrived + each.total)


def attributes(each: Observation) -> dict[str, str | int]:
    """Return the attributes of a request's span."""
    service, _, method = each.method.strip("/").rpartition("/")
    if verb := verb_of(each):
        asked = {"http.request.method": verb, "url.path": each.method.removeprefix(f"{verb} ")}
    else:
        asked = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return {
        **asked,
        "rpc.grpc.status_code": each.code,
        "client.address": each.peer,
        "kerve.model.name": each.model,
        "kerve.model.version": each.version,
        "kerve.request.id": each.request_id,
        "kerve.request.rows": each.rows,
    }


def verb_of(each: Observation) -> str:
    """Return the method of an HTTP request that was not answered by a gRPC service; "" for all others."""
    return each.method.partition(" ")[0] if " /" in each.method else ""
