"""What all handlers share, where no route shows it by itself."""

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import pytest
from tornado.web import HTTPError

from lyftr_server.app import Application
from lyftr_server.base import STREAM_BYTES, BaseHandler
from lyftr_server.config import Config
from lyftr_server.handlers import messages
from lyftr_server.handlers.messages import EXPORTS
from lyftr_server.records import Message
from lyftr_server.store import MessageStore, Page, StoreError

from .conftest import Client, ErrorLog, LogFile
from .http1.test_server_alone import until
from .process import RunningServer, ServerSocket, message, native, samples


@pytest.mark.parametrize("target", ["/messages/%FF", "/messages/%C3"])
async def test_an_id_that_is_no_utf8_is_400(client: Client, log_file: LogFile, target: str) -> None:
    answer = await client.get(target)
    assert (answer.code, answer.headers["Content-Type"]) == (400, "application/json")
    assert answer.body == b'{"detail": "bad request"}\n'
    assert log_file.read()[-1]["status"] == 400


@pytest.mark.parametrize(
    "error, status, detail",
    [
        pytest.param(KeyError("needle"), 500, "internal error", id="unforeseen"),
        pytest.param(RecursionError("needle"), 500, "internal error", id="too deep"),
        pytest.param(StoreError("needle"), 503, "storage is unavailable", id="the store's"),
        pytest.param(HTTPError(400, "needle"), 400, "bad request", id="Tornado's own"),
    ],
)
async def test_each_error_has_its_answer_and_says_nothing_of_the_inside(
    client: Client,
    app: Application,
    log_file: LogFile,
    error_log: ErrorLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    detail: str,
) -> None:
    error_log.expected = status == 500

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(app.store, "stats", fail)
    answer = await client.get("/stats", {"X-Request-ID": "mine"})
    assert (answer.code, json.loads(answer.body)) == (status, {"detail": detail})
    assert answer.headers["Content-Type"] == "application/json"
    line = log_file.read()[-1]
    expected = {500: "ERROR", 503: "WARNING"}.get(status, "INFO")
    assert (line["status"], line["level"], line["request_id"]) == (status, expected, "mine")
    told = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == (status == 500)
    if told:
        fields: dict[str, Any] = told[0].event_fields  # type: ignore[attr-defined]
        assert fields["request_id"] == "mine"
        assert fields["exception"].endswith(type(error).__name__)
        assert "needle" not in str(fields)


async def test_a_request_is_counted_once_however_it_ends(client: Client) -> None:
    for target in ("/stats", "/messages?limit=0", "/nowhere", "/messages/%FF", "/messages.ndjson"):
        await client.get(target)
    found = samples((await client.get("/metrics")).body)
    counts = [count for name, count in found.items() if name.startswith("http_requests_total")]
    assert counts == [1] * 5
    assert found["request_latency_ms_count"] == 5


async def test_no_answer_has_an_etag(client: Client) -> None:
    for target in ("/stats", "/messages", "/nowhere"):
        assert "Etag" not in (await client.get(target)).headers


def test_a_client_that_leaves_a_read_ends_it_with_499(server: RunningServer) -> None:
    for n in range(200):
        server.deliver(message(f"m{n}", text="a" * 4000))
    for _ in range(20):
        with ServerSocket(server.port) as reader:
            # Scans every text, and finds nothing.
            reader.send(b"GET /messages?q=" + b"a" * 200 + b"b HTTP/1.1\r\nHost: x\r\n\r\n")
            reader.reset()
    assert server.get("/messages?limit=1").json()["total"] == 200
    lines = server.requests("/messages", at_least=21)
    assert {line["status"] for line in lines} <= {200, 499}


async def test_a_read_that_is_cancelled_is_499(
    client: Client, app: Application, log_file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = asyncio.Event()
    cancelled = asyncio.Event()

    async def wait(*_: object) -> None:
        reading.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(app.store, "stats", wait)
    port = int(client.url.rpartition(":")[2])
    with ServerSocket(port) as reader:
        reader.send(b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reading.wait(), 30)
        reader.reset()
    await asyncio.wait_for(cancelled.wait(), 30)
    await asyncio.sleep(0.05)
    (line,) = log_file.read()
    assert (line["path"], line["status"]) == ("/stats", 499)


async def test_an_answer_that_comes_too_late_is_owed_to_nobody(
    client: Client, app: Application, log_file: LogFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, gone = asyncio.Event(), asyncio.Event()
    row = Message("m1", "+1", "+2", "2025-01-15T10:00:00Z", "x" * 4096)

    async def page(*_: object) -> Page:
        reading.set()
        await gone.wait()
        return Page([row] * 10, 10, None, None)

    monkeypatch.setattr(app.store, "page", page)
    # As when the read ends in the turn in which its client goes: there is nothing to cancel.
    monkeypatch.setattr(messages.ReadHandler, "on_connection_close", lambda _: gone.set())
    with ServerSocket.to(client.url) as reader:
        reader.send(b"GET /messages HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reading.wait(), 30)
        reader.reset()
    await until(lambda: bool(log_file.read()))
    assert app.load().body_bytes == 0


async def test_an_export_that_fails_midway_breaks_off(
    client: Client, app: Application, monkeypatch: pytest.MonkeyPatch, log_file: LogFile
) -> None:
    """Nobody may take a part for the whole: the answer must not end well."""

    async def export(_query: object) -> Any:
        yield [Message("m1", "+1", "+2", "2025-01-15T10:00:00Z", "x")]
        await asyncio.sleep(0.01)
        raise StoreError("the disk is gone")

    monkeypatch.setattr(app.store, "export", export)
    port = int(client.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /messages.ndjson HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert b" 200 " in answer.partition(b"\r\n")[0]
    assert b'"m1"' in answer
    assert b"\r\n0\r\n\r\n" not in answer
    assert log_file.read()[-1]["status"] == 503


@pytest.mark.parametrize("when", ["it waits for its client", "it waits for the store"])
async def test_an_export_ends_with_its_client(
    client: Client,
    app: Application,
    monkeypatch: pytest.MonkeyPatch,
    log_file: LogFile,
    when: str,
) -> None:
    chunks = 0
    ended = asyncio.Event()

    async def export(_query: object) -> Any:
        nonlocal chunks
        try:
            while True:
                chunks += 1
                if chunks == 3 and when == "it waits for the store":
                    await asyncio.sleep(60)
                yield [Message("m1", "+1", "+2", "2025-01-15T10:00:00Z", "x" * 4000)] * 500
        finally:
            ended.set()

    monkeypatch.setattr(app.store, "export", export)
    port = int(client.url.rpartition(":")[2])
    with ServerSocket(port) as reader:
        reader.send(b"GET /messages.ndjson HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while chunks != before:  # until it waits
            before = chunks
            await asyncio.sleep(0.2)
        reader.reset()
    await asyncio.wait_for(ended.wait(), 30)
    await asyncio.sleep(0.05)
    assert chunks == before
    (line,) = log_file.read()
    assert (line["path"], line["status"]) == ("/messages.ndjson", 499)


async def test_an_export_is_sent_in_pieces_of_bounded_size(
    client: Client, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows the store reads at a time, and however long they are."""
    row = Message("m1", "+1", "+2", "2025-01-15T10:00:00Z", "x" * 4096)
    sizes: list[int] = []
    send = BaseHandler.send

    async def export(_query: object) -> Any:
        for _ in range(2):
            yield [row] * 500

    async def measured(handler: BaseHandler, piece: bytes) -> None:
        sizes.append(len(piece))
        await send(handler, piece)

    monkeypatch.setattr(app.store, "export", export)
    monkeypatch.setattr(BaseHandler, "send", measured)
    answer = await client.get("/messages.ndjson")
    assert answer.body == row.as_line().encode() * 1000
    assert max(sizes) < STREAM_BYTES + len(row.as_line())
    assert sum(sizes) == len(answer.body)


async def test_so_many_exports_at_a_time_and_no_more(
    client: Client, app: Application, monkeypatch: pytest.MonkeyPatch, log_file: LogFile
) -> None:
    go_on = asyncio.Event()

    async def export(_query: object) -> Any:
        await go_on.wait()
        yield [Message("m1", "+1", "+2", "2025-01-15T10:00:00Z", "x")]

    monkeypatch.setattr(app.store, "export", export)
    # They are all of one client.
    monkeypatch.setattr(messages, "WAITING_READS", EXPORTS + 1)
    port = int(client.url.rpartition(":")[2])
    with ExitStack() as stack:
        readers = [stack.enter_context(ServerSocket(port)) for _ in range(EXPORTS)]
        for reader in readers:
            reader.send(b"GET /messages.ndjson HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: app.exports == EXPORTS)
        answer = await client.get("/messages.ndjson")
        assert (answer.code, int(answer.headers["Retry-After"])) == (503, 1)
        readers[0].reset()  # who leaves makes room
        await until(lambda: app.exports < EXPORTS)
        later = asyncio.ensure_future(client.get("/messages.ndjson"))
        await until(lambda: app.exports == EXPORTS)
        go_on.set()
        assert (await later).code == 200
    await until(lambda: app.exports == 0)


async def test_a_file_of_the_page_is_sent_in_pieces(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    send = BaseHandler.send

    async def measured(handler: BaseHandler, piece: bytes) -> None:
        sizes.append(len(piece))
        await send(handler, piece)

    monkeypatch.setattr(BaseHandler, "send", measured)
    answer = await client.get("/docs/swagger-ui.js")
    assert int(answer.headers["Content-Length"]) == len(answer.body) == sum(sizes)
    assert len(sizes) > 1
    assert max(sizes) <= STREAM_BYTES
    assert (await client.request("HEAD", "/docs/swagger-ui.js")).headers["Content-Length"] == str(
        len(answer.body)
    )


async def test_an_export_is_every_row_as_one_object_a_line(
    client: Client, store: MessageStore
) -> None:
    sent = [message(f"m{n:04}", text=f"नº\n{n}") for n in range(1200)]
    await asyncio.gather(*(store.insert(native(Message(*each.values()))) for each in sent))
    answer = await client.get("/messages.ndjson")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert [json.loads(line) for line in answer.body.decode().splitlines()] == sent
    answer = await client.get("/messages.ndjson?q=1199")
    assert [json.loads(line)["message_id"] for line in answer.body.splitlines()] == ["m1199"]
    assert (await client.get("/messages.ndjson?since=x")).code == 422


@pytest.mark.parametrize("settings", [{"log_level": "ERROR"}], indirect=True)
async def test_a_request_below_the_level_is_counted_all_the_same(
    client: Client, log_file: LogFile, settings: Config
) -> None:
    await client.get("/health")
    assert log_file.text() == ""
    found = samples((await client.get("/metrics")).body)
    assert found['http_requests_total{method="GET",path="/health",status="200"}'] == 1
