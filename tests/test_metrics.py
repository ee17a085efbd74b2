"""The metrics by themselves: closed label sets, born at zero, one registry for each application."""

from prometheus_client import REGISTRY

from lyftr_server.metrics import RESULTS, Gauge, Histogram, Metrics, StoreMetrics

from .process import samples


def make(store: StoreMetrics | None = None, dropped: int = 0) -> Metrics:
    return Metrics(
        {"app": "lyftr", "env": "production"}, ["native"], store or StoreMetrics(), lambda: dropped
    )


def render(metrics: Metrics) -> dict[str, float]:
    return samples(metrics.render("", [])[0])


def test_results_are_the_contracts() -> None:
    assert RESULTS == (
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


def test_a_bucket_counts_what_is_at_most_its_bound() -> None:
    histogram = Histogram((1, 10))
    for value in (0.5, 1, 1.1, 10, 11):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2.0), ("10.0", 4.0), ("+Inf", 5.0)]
    assert histogram.buckets(1000) == [("0.001", 2.0), ("0.01", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == 23.6


def test_an_unusual_method_is_other() -> None:
    metrics = make()
    for method in ("GET", "BREW", "get", "", "x" * 1000):
        metrics.request(method, "/health", 200, 1.0)
    found = render(metrics)
    assert found['http_requests_total{method="GET",path="/health",status="200"}'] == 1
    assert found['http_requests_total{method="OTHER",path="/health",status="200"}'] == 4
    assert found["request_latency_ms_count"] == 5


def test_what_cannot_be_had_is_left_out() -> None:
    gauges = [Gauge("lyftr_ready", "x", False), Gauge("lyftr_stored_messages", "y", None)]
    found = samples(make().render("", gauges)[0])
    assert found["lyftr_ready"] == 0
    assert "lyftr_stored_messages" not in found


def test_zeros_are_there_from_the_start() -> None:
    found = render(make())
    for result in RESULTS:
        assert found[f'webhook_requests_total{{result="{result}"}}'] == 0
    assert found["request_latency_ms_count"] == 0
    assert found["lyftr_commit_seconds_count"] == 0
    assert found["lyftr_storage_errors_total"] == 0
    assert found["lyftr_log_lines_dropped_total"] == 0


def test_what_the_store_and_the_log_count_is_shown() -> None:
    store = StoreMetrics()
    store.commit_seconds.observe(0.002)
    store.batch_size.observe(3)
    store.errors += 2
    found = render(make(store, dropped=7))
    assert found['lyftr_commit_seconds_bucket{le="0.0025"}'] == 1
    assert found["lyftr_commit_batch_size_sum"] == 3
    assert found["lyftr_storage_errors_total"] == 2
    assert found["lyftr_log_lines_dropped_total"] == 7


def test_two_applications_count_apart() -> None:
    one, other = make(), make()
    one.result("native", "created")
    assert render(one)['webhook_requests_total{result="created"}'] == 1
    assert render(other)['webhook_requests_total{result="created"}'] == 0
    assert "webhook_requests" not in {family.name for family in REGISTRY.collect()}
