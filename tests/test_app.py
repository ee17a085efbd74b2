"""The application: the one place that ends requests, and what it knows of its health."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Sequence

import pytest

from lyftr_server import app as module
from lyftr_server import http1
from lyftr_server.app import Application
from lyftr_server.config import Config
from lyftr_server.metrics import Gauge
from lyftr_server.records import Ended
from lyftr_server.store import MessageStore, StoreError
from lyftr_server.store.sqlite import reads

from .conftest import Client, ErrorLog, LogFile
from .process import RunningServer, ServerSocket, samples


@pytest.mark.parametrize(
    "status, result, level",
    [
        pytest.param(200, "created", "INFO", id="created"),
        pytest.param(200, "duplicate", "INFO", id="duplicate"),
        pytest.param(200, "conflict", "WARNING", id="conflict"),
        pytest.param(401, "invalid_signature", "ERROR", id="invalid signature"),
        pytest.param(413, "too_large", "INFO", id="too large"),
        pytest.param(422, "validation_error", "WARNING", id="validation error"),
        pytest.param(499, "aborted", "INFO", id="aborted"),
        pytest.param(500, "storage_error", "ERROR", id="internal error"),
        pytest.param(503, "unavailable", "WARNING", id="unavailable"),
        pytest.param(503, "storage_error", "WARNING", id="storage error"),
    ],
)
def test_a_delivery_is_counted_and_told_at_its_level(
    app: Application, log_file: LogFile, status: int, result: str, level: str
) -> None:
    app.record(
        Ended(
            *("POST", "/webhook", "/webhook", status, 1.234, "r1", "127.0.0.1"),
            source="native",
            result=result,
            message_id="m\n1",
        )
    )
    (line,) = log_file.read()
    del line["ts"]
    event = {"event": "invalid_signature"} if result == "invalid_signature" else {}
    assert line == {
        "level": level,
        "app": "lyftr",
        "env": "production",
        "request_id": "r1",
        "method": "POST",
        "path": "/webhook",
        "status": status,
        "latency_ms": 1.23,
        "client": "127.0.0.1",
        "dup": result in ("duplicate", "conflict"),
        "message_id": "m\n1",
        "result": result,
        **event,
    }


@pytest.mark.parametrize(
    "path, logged",
    [
        pytest.param("/a", "/a", id="plain"),
        pytest.param("/919876543210/x", "/*/x", id="a number"),
        pytest.param("/+14155550100", "/+*", id="a number with its plus"),
        pytest.param("/12345", "/12345", id="few digits"),
        pytest.param('/"\n\\\x00é', '/"\n\\\x00é', id="odd characters"),
        pytest.param("/" + "x" * 500, "/" + "x" * 199, id="long"),
    ],
)
def test_a_path_of_none_of_ours_is_cut_and_masked(
    app: Application, log_file: LogFile, path: str, logged: str
) -> None:
    app.record(Ended("GET", "unmatched", path, 404, 1.0, "r1", "127.0.0.1"))
    (line,) = log_file.read()
    assert line["path"] == logged


def test_request_ids_are_told_apart(app: Application) -> None:
    ids = [app.request_id("") for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(name.replace("-", "").isalnum() for name in ids)


@pytest.mark.parametrize(
    "path, route, status, result",
    [
        pytest.param("/webhook", "/webhook", 499, "aborted", id="an upload that was left"),
        pytest.param("/webhook", "/webhook", 408, "aborted", id="an upload that took too long"),
        pytest.param("/webhook", "/webhook", 400, None, id="no HTTP"),
        pytest.param("/nowhere", "unmatched", 499, None, id="another path"),
        pytest.param("/messages/m1", "/messages/{message_id}", 408, None, id="a path with an id"),
    ],
)
@pytest.mark.parametrize("given", ["mine-1", "not mine"])
def test_a_request_that_no_handler_saw_is_counted_and_told(
    app: Application,
    log_file: LogFile,
    path: str,
    route: str,
    status: int,
    result: str | None,
    given: str,
) -> None:
    upload = http1.Upload(0.0, "127.0.0.1")
    upload.method, upload.target = "POST", path.encode()
    upload.add_header(b"X-Request-ID", given.encode())
    request_id = app.unserved(upload, status, 1.0)
    (line,) = log_file.read()
    assert (line["status"], line.get("result")) == (status, result)
    assert line["request_id"] == request_id
    assert (request_id == given) == (given == "mine-1")
    exposition = samples(app.metrics.render("", asyncio_gauges(app))[0])
    name = f'http_requests_total{{method="POST",path="{route}",status="{status}"}}'
    assert exposition[name] == 1
    assert exposition['webhook_requests_total{result="aborted"}'] == (result is not None)


def asyncio_gauges(app: Application) -> Sequence[Gauge]:
    return asyncio.get_event_loop_policy().get_event_loop().run_until_complete(app.gauges())


async def test_a_database_that_does_not_answer_in_time_is_told(
    client: Client,
    app: Application,
    settings: Config,
    monkeypatch: pytest.MonkeyPatch,
    error_log: ErrorLog,
) -> None:
    error_log.expected = True
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.1)
    await asyncio.sleep(1)  # a write within the last second would be proof enough
    lock = sqlite3.connect(settings.database_path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    answer = await client.get("/health/ready")
    lock.execute("ROLLBACK")
    lock.close()
    assert (answer.code, json.loads(answer.body)["detail"]) == (503, "the database does not answer")


async def test_a_read_that_hangs_holds_up_neither_readiness_nor_a_scrape(
    client: Client, app: Application, store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.1)
    let_go = threading.Event()
    hanging = [asyncio.create_task(store._health.run(lambda db: let_go.wait(30)))]
    monkeypatch.setattr(reads, "total", lambda db: let_go.wait(30))
    await asyncio.sleep(0)
    for _ in range(2):
        answer = await client.get("/health/ready")
        detail = json.loads(answer.body)["detail"]
        assert (answer.code, detail) == (503, "the database does not answer")
        hanging[0].cancel()  # and then the probe's own read is what hangs
    found = samples((await client.get("/metrics")).body)
    assert found["lyftr_ready"] == 0
    assert "lyftr_search_backlog_messages" not in found
    assert not let_go.is_set()
    let_go.set()


async def test_a_scrape_without_totals_shows_the_rest(
    client: Client, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> int:
        raise StoreError("x")

    monkeypatch.setattr(app.store, "total", fail)
    found = samples((await client.get("/metrics")).body)
    assert found["lyftr_ready"] == 1
    assert "lyftr_stored_messages" not in found
    assert found["lyftr_queue_limit"] == 10000


def test_what_is_no_http_is_counted_and_told(server: RunningServer) -> None:
    for raw in (b"B(EW / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET\r\n\r\n"):
        with ServerSocket(server.port) as connection:
            connection.send(raw)
            answer = connection.read_answer()
            assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
            assert list(answer.json()) == ["detail"]
            assert connection.closed()
    lines = server.requests(at_least=2)
    assert [line["status"] for line in lines] == [400, 400]
    found = samples(server.get("/metrics").body)
    counted = [name for name in found if 'status="400"' in name]
    assert sum(found[name] for name in counted) == 2
    assert all('path="unmatched"' in name or 'path="/"' in name for name in counted)
