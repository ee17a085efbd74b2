"""Health, metrics, the root, and every path that is none of ours."""

import asyncio
import json
import re
import sqlite3
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from lyftr_server import __version__
from lyftr_server.app import Application
from lyftr_server.config import Config
from lyftr_server.handlers import EXACT
from lyftr_server.metrics import RESULTS

from .conftest import Client, ErrorLog, LogFile
from .process import RunningServer, message, samples

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
# A stream of events has no end; it is tried by itself.
GETTABLE = [
    route
    for route, handler in EXACT.items()
    if "GET" in handler.methods and route != "/messages/stream"
]


# -- health


@pytest.mark.parametrize("target", ["/health", "/health/live"])
async def test_a_running_server_is_alive(client: Client, app: Application, target: str) -> None:
    answer = await client.get(target)
    assert (answer.code, answer.body) == (200, b'{"status": "ok"}\n')
    assert answer.headers["Content-Type"] == "application/json"
    app.draining_since = 0.0
    assert (await client.get(target)).code == 200


async def test_a_server_that_can_store_is_ready(client: Client) -> None:
    answer = await client.get("/health/ready")
    assert (answer.code, json.loads(answer.body)) == (200, {"status": "ready"})
    assert answer.headers["Content-Type"] == "application/json"


def holds_unready(answer: Any) -> None:
    assert (answer.code, answer.headers["Content-Type"]) == (503, "application/json")
    content = json.loads(answer.body)
    assert list(content) == ["status", "detail"]
    assert content["status"] == "unavailable"
    assert isinstance(content["detail"], str)
    assert content["detail"]


async def test_a_draining_server_is_not_ready(client: Client, app: Application) -> None:
    app.draining_since = 0.0
    holds_unready(await client.get("/health/ready"))
    assert metrics(await client.get("/metrics"))["lyftr_ready"] == 0


async def test_a_server_whose_database_is_gone_is_not_ready(
    client: Client, settings: Config, error_log: ErrorLog
) -> None:
    error_log.expected = True
    assert metrics(await client.get("/metrics"))["lyftr_ready"] == 1
    await client.deliver(message("m1"))
    aside = settings.database_path.with_name("aside")
    settings.database_path.rename(aside)
    await client.deliver(message("m2"))  # notices it
    holds_unready(await client.get("/health/ready"))
    aside.rename(settings.database_path)
    assert (await client.get("/health/ready")).code == 200


async def test_a_server_that_cannot_write_is_not_ready(
    client: Client, settings: Config, error_log: ErrorLog
) -> None:
    error_log.expected = True
    await asyncio.sleep(1)  # a write within the last second would be proof enough
    lock = sqlite3.connect(settings.database_path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    holds_unready(await client.get("/health/ready"))
    assert (await client.get("/health/live")).code == 200
    lock.execute("ROLLBACK")
    lock.close()
    async with asyncio.timeout(30):
        while (await client.get("/health/ready")).code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# -- metrics


def metrics(answer: Any) -> dict[str, float]:
    assert answer.code == 200
    return samples(answer.body)


async def test_the_two_counters_come_first_and_every_result_is_born_at_zero(
    client: Client,
) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    types = re.findall(r"# TYPE (\S+) (\S+)", answer.body.decode())
    assert types[:2] == [("http_requests_total", "counter"), ("webhook_requests_total", "counter")]
    head = answer.body.decode().splitlines()[: 4 + len(RESULTS)]
    assert [line for line in head if not line.startswith("#")] == [
        f'webhook_requests_total{{result="{result}"}} 0.0' for result in RESULTS
    ]


FAMILIES = {
    "http_requests": "counter",
    "webhook_requests": "counter",
    "lyftr_deliveries": "counter",
    "lyftr_signatures": "counter",
    "lyftr_previous_key_last_used_timestamp_seconds": "gauge",
    "request_latency_ms": "histogram",
    "http_request_duration_seconds": "histogram",
    "lyftr_build_info": "gauge",
    "lyftr_ready": "gauge",
    "lyftr_requests_in_flight": "gauge",
    "lyftr_connections": "gauge",
    "lyftr_body_bytes": "gauge",
    "lyftr_body_budget_bytes": "gauge",
    "lyftr_queue_depth": "gauge",
    "lyftr_queue_limit": "gauge",
    "lyftr_commit_seconds": "histogram",
    "lyftr_commit_batch_size": "histogram",
    "lyftr_database_bytes": "gauge",
    "lyftr_wal_bytes": "gauge",
    "lyftr_disk_free_bytes": "gauge",
    "lyftr_disk_size_bytes": "gauge",
    "lyftr_stored_messages": "gauge",
    "lyftr_search_backlog_messages": "gauge",
    "lyftr_retention_backlog_messages": "gauge",
    "lyftr_erasures_waiting": "gauge",
    "lyftr_tokens_refused": "counter",
    "lyftr_storage_errors": "counter",
    "lyftr_log_lines_dropped": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_cpu_seconds": "counter",
    "process_open_fds": "gauge",
}


async def test_every_metric_is_there_with_its_type(client: Client) -> None:
    answer = await client.get("/metrics")
    families = list(text_string_to_metric_families(answer.body.decode()))
    found = {family.name: family.type for family in families}
    assert {name: found.get(name) for name in FAMILIES} == FAMILIES
    others = set(found) - set(FAMILIES)
    assert {name for name in others if not name.startswith("process_")} == set()
    assert all(family.documentation for family in families)


@pytest.mark.parametrize(
    "accept, kind",
    [
        ("application/openmetrics-text; version=abc", "application/openmetrics-text"),
        ("application/openmetrics-text; version=", "application/openmetrics-text"),
        ("application/openmetrics-text; version=99.0.0", "application/openmetrics-text"),
        ("Application/OpenMetrics-Text;q=0.1", "application/openmetrics-text"),
        ("text/plain; version=abc", "text/plain"),
        ("text/plain; version=1.0.0; escaping=allow-utf-8", "text/plain"),
        ("text/plain; version=1.0.0; escaping=\xe9;;=,", "text/plain"),
        (",;=", "text/plain"),
    ],
)
async def test_an_odd_accept_is_answered(client: Client, accept: str, kind: str) -> None:
    answer = await client.get("/metrics", {"Accept": accept})
    assert (answer.code, answer.headers["Content-Type"].partition(";")[0]) == (200, kind)
    version = {"text/plain": "0.0.4"}.get(kind, "1.0.0")
    assert f"version={version};" in answer.headers["Content-Type"]


async def test_openmetrics_when_asked_for(client: Client) -> None:
    await client.deliver(message())
    answer = await client.get("/metrics", {"Accept": OPENMETRICS})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = list(openmetrics.text_string_to_metric_families(answer.body.decode()))
    assert [family.name for family in families[:2]] == ["http_requests", "webhook_requests"]
    assert {family.name for family in families} >= set(FAMILIES)


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "needle;q=x", "text/plain"])
async def test_any_other_accept_gets_the_text_form(client: Client, accept: str) -> None:
    answer = await client.get("/metrics", {"Accept": accept})
    assert (answer.code, answer.headers["Content-Type"][:10]) == (200, "text/plain")
    assert list(text_string_to_metric_families(answer.body.decode()))


async def test_requests_are_counted_by_route(client: Client) -> None:
    for target in ("/health", "/messages?limit=0", "/nowhere/919876543210", "/messages/m1"):
        await client.get(target)
    await client.request("HEAD", "/stats")
    await client.request("PROPFIND", "/stats")
    await client.request("PROPFIND", "/nowhere")
    await client.request("DELETE", "/messages")
    found = {
        name: count
        for name, count in metrics(await client.get("/metrics")).items()
        if name.startswith("http_requests_total")
    }
    assert found == {
        f'http_requests_total{{method="{method}",path="{path}",status="{status}"}}': 1
        for method, path, status in [
            ("GET", "/health", 200),
            ("GET", "/messages", 422),
            ("GET", "unmatched", 404),
            ("GET", "/messages/{message_id}", 404),
            ("HEAD", "/stats", 200),
            ("OTHER", "/stats", 405),
            ("OTHER", "unmatched", 404),
            ("DELETE", "/messages", 405),
        ]
    }


async def test_the_histograms_count_every_request_in_both_units(client: Client) -> None:
    for _ in range(3):
        await client.get("/health")
    await client.get("/stats")
    found = metrics(await client.get("/metrics"))
    assert found["request_latency_ms_count"] == 4
    assert found['request_latency_ms_bucket{le="+Inf"}'] == 4
    labels = 'method="GET",path="/health"'
    assert found[f"http_request_duration_seconds_count{{{labels}}}"] == 3
    for milliseconds in ("100.0", "500.0"):
        assert f'request_latency_ms_bucket{{le="{milliseconds}"}}' in found
    assert f'http_request_duration_seconds_bucket{{le="0.1",{labels}}}' in found
    seconds = sum(
        value
        for name, value in found.items()
        if name.startswith("http_request_duration_seconds_sum")
    )
    assert found["request_latency_ms_sum"] == pytest.approx(seconds * 1000)
    assert found["request_latency_ms_sum"] > 0


async def test_the_store_shows_its_work(client: Client, settings: Config) -> None:
    for n in range(3):
        await client.deliver(message(f"m{n}"))
    found = metrics(await client.get("/metrics"))
    assert found["lyftr_stored_messages"] == 3
    assert found["lyftr_commit_batch_size_sum"] == 3
    assert found["lyftr_commit_seconds_count"] == found["lyftr_commit_batch_size_count"] == 3
    assert found["lyftr_commit_seconds_sum"] > 0
    assert found["lyftr_database_bytes"] == settings.database_path.stat().st_size
    assert found["lyftr_wal_bytes"] > 0
    assert 0 < found["lyftr_disk_free_bytes"] < found["lyftr_disk_size_bytes"]
    assert (found["lyftr_queue_depth"], found["lyftr_queue_limit"]) == (0, 10000)
    assert 0 <= found["lyftr_search_backlog_messages"] <= 3
    assert (found["lyftr_ready"], found["lyftr_storage_errors_total"]) == (1, 0)


@pytest.mark.parametrize("settings", [{"app_name": 'a "b"\\', "env": "é\n"}], indirect=True)
async def test_the_build_names_what_runs(client: Client) -> None:
    answer = await client.get("/metrics")
    families = {
        family.name: family for family in text_string_to_metric_families(answer.body.decode())
    }
    (build,) = families["lyftr_build_info"].samples
    assert (set(build.labels), build.value) == (
        {"version", "python", "tornado", "sqlite", "app", "env"},
        1,
    )
    assert (build.labels["app"], build.labels["env"]) == ('a "b"\\', "é\n")
    assert build.labels["version"] == __version__
    assert build.labels["sqlite"] == sqlite3.sqlite_version


async def test_a_scrape_answers_while_the_database_does_not(
    client: Client, settings: Config, error_log: ErrorLog
) -> None:
    error_log.expected = True
    await client.deliver(message("m1"))
    settings.database_path.rename(settings.database_path.with_name("aside"))
    await client.deliver(message("m2"))
    found = metrics(await client.get("/metrics"))
    assert found["lyftr_ready"] == 0
    assert found['webhook_requests_total{result="storage_error"}'] == 1
    assert "lyftr_stored_messages" not in found
    assert "lyftr_database_bytes" not in found
    settings.database_path.with_name("aside").rename(settings.database_path)


def test_in_flight_and_connections_count_this_scrape(server: RunningServer) -> None:
    idle = server.connect()
    idle.connect()
    found = samples(server.get("/metrics").body)
    idle.close()
    assert (found["lyftr_requests_in_flight"], found["lyftr_connections"]) == (1, 2)
    assert found["process_open_fds"] > 5


# -- the root


@pytest.mark.parametrize("settings", [{"app_name": "näme", "env": "test"}], indirect=True)
async def test_the_root_says_what_this_is(client: Client) -> None:
    answer = await client.get("/")
    expected = {"app": "näme", "env": "test", "version": __version__}
    assert (answer.code, json.loads(answer.body)) == (200, expected)


@pytest.mark.parametrize(
    "accept, status",
    [
        pytest.param("text/html,application/xhtml+xml,*/*;q=0.8", 303, id="browser"),
        pytest.param("application/json, TEXT/HTML ;q=0.1", 303, id="named among others"),
        pytest.param("*/*", 200, id="curl"),
        pytest.param("", 200, id="empty"),
        pytest.param("text/*", 200, id="any text"),
    ],
)
async def test_a_browser_is_sent_to_the_inspector(client: Client, accept: str, status: int) -> None:
    answer = await client.get("/", {"Accept": accept})
    assert (answer.code, answer.headers["Vary"]) == (status, "Accept")
    assert answer.headers.get("Location") == ("inspector" if status == 303 else None)
    assert json.loads(answer.body)["app"] == "lyftr"


# -- what all routes share


@pytest.mark.parametrize("route", GETTABLE)
async def test_head_is_get_without_its_body(client: Client, route: str) -> None:
    get = await client.get(route)
    head = await client.request("HEAD", route)
    assert (get.code, head.code, head.body) == (200, 200, b"")
    assert get.body or route.endswith(".ndjson")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    # A scrape counts the one before it, and a stream has no length.
    if route != "/metrics" and not route.endswith(".ndjson"):
        assert head.headers["Content-Length"] == str(len(get.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_another_method_is_405_with_allow(client: Client, method: str) -> None:
    for route in GETTABLE:
        answer = await client.request(method, route, b"" if method in ("POST", "PUT") else None)
        assert (answer.code, answer.headers["Content-Type"]) == (405, "application/json"), route
        assert answer.headers["Allow"] == "GET, HEAD"
        assert list(json.loads(answer.body)) == ["detail"]


@pytest.mark.parametrize("path", ["/messagesXndjson", "/openapiXjson", "/docs/swagger-uiXjs"])
async def test_a_dot_in_a_path_is_a_dot(client: Client, path: str) -> None:
    assert (await client.get(path)).code == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PROPFIND"])
async def test_another_path_is_404_by_any_method(client: Client, method: str) -> None:
    answer = await client.request(method, "/nowhere", b"x" if method == "POST" else None)
    assert (answer.code, answer.headers["Content-Type"]) == (404, "application/json")
    assert answer.body == (b"" if method == "HEAD" else b'{"detail": "not found"}\n')


async def test_a_path_is_taken_as_it_stands(client: Client) -> None:
    for target in (
        "/webhook/",
        "/webhook/x",
        "/messages/",
        "/messages/a/b",
        "//messages",
        "/Messages",
        "/static/../run.py",
        "/docs/../../run.py",
        "/docs/%2e%2e/%2e%2e/run.py",
        "/%00",
        "/%FF",
    ):
        answer = await client.get(target)
        assert (answer.code, answer.body) == (404, b'{"detail": "not found"}\n'), target


@pytest.mark.parametrize("settings", [{"max_body_bytes": 1000}], indirect=True)
async def test_a_body_that_is_too_large_is_413_on_any_route(client: Client) -> None:
    answer = await client.request("GET", "/health", b"x" * 2000)
    assert (answer.code, list(json.loads(answer.body))) == (413, ["detail"])


@pytest.mark.parametrize("given", ["a", "A.b_c-9", "x" * 128])
async def test_a_request_id_is_kept_and_sent_back(
    client: Client, log_file: LogFile, given: str
) -> None:
    for target in ("/health", "/nowhere", "/messages?limit=0", "/messages.ndjson"):
        answer = await client.get(target, {"X-Request-ID": given})
        assert answer.headers["X-Request-ID"] == given
        assert log_file.read()[-1]["request_id"] == given


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "a b", "é", "a,b", 'needle"', "needle{}", "needle/"]
)
async def test_any_other_request_id_is_replaced(
    client: Client, log_file: LogFile, given: str
) -> None:
    found = []
    for _ in range(2):
        answer = await client.get("/health", {"X-Request-ID": given})
        found.append(answer.headers["X-Request-ID"])
        assert re.fullmatch("[A-Za-z0-9._-]{1,128}", found[-1])
        assert log_file.read()[-1]["request_id"] == found[-1] != given
    assert found[0] != found[1]
    assert "needle" not in log_file.text()


async def test_the_server_does_not_name_its_parts(client: Client) -> None:
    for target in ("/health", "/nowhere", "/messages"):
        assert (await client.get(target)).headers["Server"] == "lyftr-server"
