"""Prometheus metrics of one server, in a registry of its own."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aunet.serve.errors import outcome
from aunet.serve.paths import path_of
from aunet.serve.patience import OUTCOME
from aunet.serve.worker import Worker

MEASURED = ("/v1/completions", "/v1/chat/completions", "/v1/inspect")
"""The endpoints that work; a label has no other value."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What is counted."""

    def __init__(self, worker: Worker) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "aunet_requests",
            "Requests by how they ended: ok, invalid, unauthorized, rejected, timeout, stopped, failed, disconnected",
            ("endpoint", "outcome"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "aunet_request_seconds",
            "From the arrival of a request to the end of its answer",
            ("endpoint",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "aunet_time_to_first_byte_seconds",
            "From the arrival of a request to the first byte of its text",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.registry.register(_EngineCollector(worker))
        ProcessCollector(registry=self.registry)


class _EngineCollector(Collector):
    """Reads the engine's own counters when it is asked."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        counters = self._worker.counters
        yield GaugeMetricFamily("aunet_sequences_running", "Sequences that have a slot", self._worker.running)
        yield GaugeMetricFamily("aunet_sequences_waiting", "Sequences that wait for a slot", self._worker.waiting)
        yield CounterMetricFamily("aunet_generated_bytes", "New bytes", counters.new_bytes)
        yield CounterMetricFamily("aunet_prompt_bytes", "Bytes of prompts", counters.prompt_bytes)
        yield CounterMetricFamily(
            "aunet_cached_prompt_bytes", "Bytes of prompts that were read before", counters.cached_prompt_bytes
        )


class Measured:
    """ASGI middleware: counts and times the requests to the endpoints that work."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request whose last byte was never sent counts as disconnected."""
        if scope["type"] != "http" or (endpoint := path_of(scope)) not in MEASURED:
            await self._app(scope, receive, send)
            return
        started, ended, complete = time.monotonic(), "failed", False

        async def watched(message: Message) -> None:
            nonlocal ended, complete
            if message["type"] == "http.response.start":
                ended = outcome(message["status"])
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete = True

        try:
            await self._app(scope, receive, watched)
        finally:
            seen = scope.get(OUTCOME, ended if complete else "disconnected")
            self._metrics.requests.labels(endpoint, seen).inc()
            self._metrics.seconds.labels(endpoint).observe(time.monotonic() - started)
