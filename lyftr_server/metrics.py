"""Every metric of the server: born at zero, closed label sets, one registry per application."""

import platform
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import tornado
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from . import __version__
from .signature import KEY_NAMES, PREVIOUS

RESULTS = (
    "created",
    "duplicate",
    "conflict",
    "invalid_signature",
    "validation_error",
    "too_large",
    "storage_error",
    "unavailable",
    "aborted",
)
_OPENMETRICS = "application/openmetrics-text"
# What guards reads, and what guards erasures.
TOKENS = ("read", "admin")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

LATENCY_MS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """Counts by bucket as plain integers: 0.3 us an observation, a library's child takes 1.8."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self, divisor: float = 1) -> list[tuple[str, float]]:
        """Return the cumulative counts, each with its bound divided by `divisor`."""
        total = 0
        found = []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            name = "+Inf" if bound == float("inf") else str(float(bound / divisor))
            found.append((name, float(total)))
        return found


@dataclass
class StoreMetrics:
    """What the store counts; it knows nothing of Prometheus."""

    commit_seconds: Histogram = field(default_factory=lambda: Histogram(COMMIT_SECONDS))
    batch_size: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    errors: int = 0


class Gauge(NamedTuple):
    """A figure read at the moment of a scrape, by whoever names it. None: not to be had now."""

    name: str
    help: str
    value: float | None


class Metrics(Collector):
    """Counts requests and results; renders them with what the rest of the server counts."""

    def __init__(
        self,
        build: Mapping[str, str],
        sources: Iterable[str],
        store: StoreMetrics,
        lines_dropped: Callable[[], int],
    ) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._durations: dict[tuple[str, str], Histogram] = {}
        self._results = dict.fromkeys(RESULTS, 0)
        self._deliveries = {(source, result): 0 for source in sources for result in RESULTS}
        self._signatures = dict.fromkeys(KEY_NAMES, 0)
        self._previous_used = 0.0
        self._tokens_refused = dict.fromkeys(TOKENS, 0)
        self._build = {
            "version": __version__,
            "python": platform.python_version(),
            "tornado": tornado.version,
            **build,
        }
        self._store = store
        self._lines_dropped = lines_dropped
        self._gauges: Sequence[Gauge] = ()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def request(self, method: str, route: str, status: int, latency_ms: float) -> None:
        """Count one ended request. `route` is one of the application's, or `unmatched`."""
        if method not in METHODS:
            method = "OTHER"
        self._requests[method, route, status] += 1
        durations = self._durations.get((method, route))
        if durations is None:
            durations = self._durations[method, route] = Histogram(LATENCY_MS)
        durations.observe(latency_ms)

    def result(self, source: str, result: str) -> None:
        """Count how one delivery ended: one of RESULTS."""
        self._results[result] += 1
        self._deliveries[source, result] += 1

    def token_refused(self, token: str) -> None:
        """Count a request without the right token: one of TOKENS."""
        self._tokens_refused[token] += 1

    def signature(self, key: str) -> None:
        """Count a body that this key signed: one of KEY_NAMES."""
        self._signatures[key] += 1
        if key == PREVIOUS:
            self._previous_used = time.time()

    def render(self, accept: str, gauges: Sequence[Gauge]) -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics when `accept` asks for it."""
        self._gauges = gauges
        # Without what a client says beside it: the library raises for a version that is no number.
        media_types = [each.partition(";")[0].strip() for each in accept.lower().split(",")]
        encoder, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in media_types else "")
        return encoder(self.registry), content_type

    def collect(self) -> Iterable[Metric]:
        """Yield the families; the two that people look for come first."""
        requests = CounterMetricFamily(
            "http_requests", "Requests ended.", labels=("method", "path", "status")
        )
        for (method, route, status), count in sorted(self._requests.items()):
            requests.add_metric((method, route, str(status)), count)
        yield requests
        results = CounterMetricFamily(
            "webhook_requests", "Deliveries, by how they ended.", labels=("result",)
        )
        for result, count in self._results.items():
            results.add_metric((result,), count)
        yield results
        yield from self._by_sender()
        yield from self._latency()
        build = GaugeMetricFamily(
            "lyftr_build_info",
            "What is running; always 1.",
            labels=tuple(self._build),
        )
        build.add_metric(tuple(self._build.values()), 1)
        yield build
        yield from self._store_families()
        for name, text, value in self._gauges:
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)

    def _by_sender(self) -> Iterable[Metric]:
        deliveries = CounterMetricFamily(
            "lyftr_deliveries", "The same for each kind of sender.", labels=("source", "result")
        )
        for names, count in self._deliveries.items():
            deliveries.add_metric(names, count)
        yield deliveries
        signatures = CounterMetricFamily(
            "lyftr_signatures", "Bodies rightly signed, by the key that fitted.", labels=("key",)
        )
        for key, count in self._signatures.items():
            signatures.add_metric((key,), count)
        yield signatures
        yield GaugeMetricFamily(
            "lyftr_previous_key_last_used_timestamp_seconds",
            "When a previous key last fitted, since 1970; 0: not since the start.",
            value=self._previous_used,
        )
        tokens = CounterMetricFamily(
            "lyftr_tokens_refused", "Requests without the right token.", labels=("token",)
        )
        for token, count in self._tokens_refused.items():
            tokens.add_metric((token,), count)
        yield tokens

    def _latency(self) -> Iterable[Metric]:
        every = Histogram(LATENCY_MS)
        seconds = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            labels=("method", "path"),
        )
        for (method, route), durations in sorted(self._durations.items()):
            every.counts = [a + b for a, b in zip(every.counts, durations.counts, strict=True)]
            every.sum += durations.sum
            seconds.add_metric((method, route), durations.buckets(1000), durations.sum / 1000)
        yield HistogramMetricFamily(
            "request_latency_ms",
            "The same for all requests, in milliseconds.",
            buckets=every.buckets(),
            sum_value=every.sum,
        )
        yield seconds

    def _store_families(self) -> Iterable[Metric]:
        for name, text, histogram in (
            ("lyftr_commit_seconds", "Time of a commit.", self._store.commit_seconds),
            ("lyftr_commit_batch_size", "Messages in a commit.", self._store.batch_size),
        ):
            yield HistogramMetricFamily(
                name, text, buckets=histogram.buckets(), sum_value=histogram.sum
            )
        yield CounterMetricFamily(
            "lyftr_storage_errors",
            "Failures of the store: commits, reads, upkeep.",
            value=self._store.errors,
        )
        yield CounterMetricFamily(
            "lyftr_log_lines_dropped",
            "Log lines lost because standard output stalled.",
            value=self._lines_dropped(),
        )
