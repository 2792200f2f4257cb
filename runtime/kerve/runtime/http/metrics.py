"""Prometheus metrics: kerve's histograms per model and version, and counters under Triton's names."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kerve.runtime.errors import Code
from kerve.runtime.http.gpu_metrics import gpu_collector
from kerve.runtime.lifecycle.manager import ModelManager
from kerve.runtime.lifecycle.served import ServedVersion
from kerve.runtime.lifecycle.states import State
from kerve.runtime.statistics import Snapshot

__all__ = ["Metrics"]

LABELS = ["model", "version"]

# Queue histogram, and the name and help of its metric.
HISTOGRAMS = (
    ("succeeded", "kerve_request_duration_seconds", "Time from arrival to response of successful requests."),
    ("failed", "kerve_failed_request_duration_seconds", "Time from arrival to response of failed requests."),
    ("waited", "kerve_queue_duration_seconds", "Time from arrival to the start of the computation."),
    ("computed", "kerve_compute_duration_seconds", "Computation time of a batch."),
)
# Triton's name of a counter, its help, and how it is computed from a version's statistics.
TRITON: tuple[tuple[str, str, Callable[[Any, Snapshot], float]], ...] = (
    (
        "nv_inference_request_success",
        "Successful requests.",
        lambda queue, now: sum(queue["succeeded"]["counts"]) + now.cache_hits.count,
    ),
    ("nv_inference_count", "Rows computed.", lambda _, now: now.inference_count),
    ("nv_inference_exec_count", "Batches computed.", lambda _, now: now.execution_count),
    (
        "nv_inference_request_duration_us",
        "Time of requests, in microseconds.",
        lambda queue, _: queue["succeeded"]["sum"] / 1e3,
    ),
    (
        "nv_inference_queue_duration_us",
        "Time in the queue, in microseconds.",
        lambda queue, _: queue["waited"]["sum"] / 1e3,
    ),
    # Batches are assembled and split while others wait or compute; that time is not measured.
    ("nv_inference_compute_input_duration_us", "Always 0.", lambda _, __: 0),
    ("nv_inference_compute_output_duration_us", "Always 0.", lambda _, __: 0),
    (
        "nv_inference_compute_infer_duration_us",
        "Computation time, in microseconds.",
        lambda _, now: now.computed.nanoseconds / 1e3,
    ),
    (
        "nv_cache_num_hits_per_model",
        "Requests answered from the cache.",
        lambda _, now: now.cache_hits.count,
    ),
    (
        "nv_cache_num_misses_per_model",
        "Requests that were not in the cache.",
        lambda _, now: now.cache_misses.count,
    ),
    (
        "nv_cache_hit_duration_per_model",
        "Time of cache lookups with a hit, in microseconds.",
        lambda _, now: now.cache_hits.nanoseconds / 1e3,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Time of cache lookups with a miss and of the insertion, in microseconds.",
        lambda _, now: now.cache_misses.nanoseconds / 1e3,
    ),
)

# Triton's failure reasons by status code; any other code is OTHER.
REASONS = {
    Code.RESOURCE_EXHAUSTED: "REJECTED",
    Code.DEADLINE_EXCEEDED: "REJECTED",
    Code.UNAVAILABLE: "REJECTED",
    Code.CANCELLED: "CANCELED",
    Code.INTERNAL: "BACKEND",
}
EVERY_REASON = (*dict.fromkeys(REASONS.values()), "OTHER")
# prometheus_client only has counters with `_total`: Triton's are exported as untyped, then changed.
UNTYPED = re.compile(rb"^(# TYPE nv_\w+) untyped$", re.MULTILINE)


class Metrics:
    """Reads all metrics at each scrape; nothing is kept between scrapes."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, manager: ModelManager) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(ModelCollector(manager))
        if (gpus := gpu_collector()) is not None:
            self._registry.register(gpus)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return the current metrics."""
        return UNTYPED.sub(rb"\1 counter", generate_latest(self._registry))


class ModelCollector(Collector):
    """The metrics of the models."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the ready versions, and the states of all."""
        states = GaugeMetricFamily("kerve_model_ready", "1 if the version is ready, else 0.", labels=LABELS)
        failures = GaugeMetricFamily(
            "kerve_model_failed", "1 if the version cannot be served as requested, else 0.", labels=LABELS
        )
        for status in self._manager.index():
            labels = [status.name, str(status.version or "")]
            states.add_metric(labels, status.state is State.READY)
            failures.add_metric(labels, status.failed)
        engines = GaugeMetricFamily(
            "kerve_engine_ready",
            "1 if the version runs on TensorRT, 0 while it runs on CUDA instead.",
            labels=LABELS,
        )
        for served in self._manager.served():
            if served.model is not None and served.model.engine is not None:
                engines.add_metric([served.name, str(served.version)], served.model.engine == "ready")
        yield from (states, failures, *([engines] if engines.samples else []))
        found = [(served, served.queue.statistics()) for served in self._manager.served()]
        yield from queue_metrics(found)
        yield from triton_metrics(found)


def queue_metrics(found: list[tuple[ServedVersion, dict[str, Any]]]) -> Iterator[Metric]:
    """Yield kerve's own metrics."""
    for key, name, text in HISTOGRAMS:
        family = HistogramMetricFamily(name, text, labels=LABELS)
        for served, queue in found:
            family.add_metric([served.name, str(served.version)], *histogram(queue[key]))
        yield family
    requests = CounterMetricFamily("kerve_requests", "Requests by status code.", labels=[*LABELS, "code"])
    rows = CounterMetricFamily("kerve_rows", "Rows computed.", labels=LABELS)
    batches = CounterMetricFamily("kerve_batches", "Batches computed.", labels=LABELS)
    waiting = GaugeMetricFamily("kerve_queue_size", "Requests waiting.", labels=LABELS)
    sequences = GaugeMetricFamily("kerve_sequences", "Open sequences.", labels=LABELS)
    for served, queue in found:
        labels = [served.name, str(served.version)]
        for code, count in queue["codes"].items():
            requests.add_metric([*labels, Code(code).name], count)
        rows.add_metric(labels, queue["rows"])
        batches.add_metric(labels, queue["batches"])
        waiting.add_metric(labels, queue["waiting"])
        if served.sequences is not None:
            sequences.add_metric(labels, len(served.sequences))
    yield from (requests, rows, batches, waiting, sequences)


def triton_metrics(found: list[tuple[ServedVersion, dict[str, Any]]]) -> Iterator[Metric]:
    """Yield the metrics that dashboards for Triton expect; its counters have no `_total`."""
    moments = [(served, queue, served.statistics.read()) for served, queue in found]
    for name, text, value in TRITON:
        family = Metric(name, text, "unknown")
        for served, queue, now in moments:
            labels = {"model": served.name, "version": str(served.version)}
            family.add_sample(name, labels, value(queue, now))
        yield family
    failed = Metric("nv_inference_request_failure", "Failed requests by reason.", "unknown")
    for served, queue in found:
        counts = dict.fromkeys(EVERY_REASON, 0)
        for code, count in queue["codes"].items():
            if code != Code.OK:
                counts[REASONS.get(Code(code), "OTHER")] += count
        for reason, count in counts.items():
            labels = {"model": served.name, "reason": reason, "version": str(served.version)}
            failed.add_sample(failed.name, labels, count)
    yield failed
    pending = GaugeMetricFamily("nv_inference_pending_request_count", "Requests waiting.", labels=LABELS)
    for served, queue in found:
        pending.add_metric([served.name, str(served.version)], queue["waiting"])
    yield pending


def histogram(values: Mapping[str, Any]) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulative buckets, by their upper bound in seconds, and the sum in seconds."""
    total, buckets = 0, []
    for bound, count in zip(
        [*(each / 1e6 for each in values["bounds"]), "+Inf"], values["counts"], strict=True
    ):
        total += count
        buckets.append((str(bound), total))
    return buckets, values["sum"] / 1e9
