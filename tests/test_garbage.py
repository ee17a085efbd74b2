"""A request that is refused is freed at once: none of it waits for the collector."""

import asyncio
import gc
import json
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lyftr_server.config import Config
from lyftr_server.signature import sign
from lyftr_server.store import QueueFull, StoreError

from .conftest import Client
from .process import SECRET, as_body, message

LIMIT = 20_000


@pytest.fixture
def settings(settings: Config) -> Config:
    return replace(settings, max_body_bytes=LIMIT, read_token="token")


@pytest.fixture
def collector_off() -> Iterator[None]:
    """No collection but ours, and ours looks only at what the test makes."""
    gc.disable()
    gc.freeze()
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.unfreeze()
    gc.enable()


def delivery(body: bytes, signature: str | None = None) -> bytes:
    signature = sign(SECRET.encode(), body) if signature is None else signature
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nX-Signature: {signature}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def plain(target: str, headers: str = "", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()


TOKEN = "Authorization: Bearer token\r\n"
LONG = "x" * 5000
KINDS = {
    "every field wrong": (delivery(b'{"message_id": "", "ts": 1, "text": []}'), 422),
    "a field missing": (delivery(as_body({"text": "x"})), 422),
    "a long text": (delivery(as_body(message(text=LONG))), 422),
    "a number for a text": (delivery(as_body(message(text=1))), 422),
    "a date that does not exist": (delivery(as_body(message(ts="2025-02-30T00:00:00Z"))), 422),
    "no object": (delivery(b"[]"), 422),
    "no JSON": (delivery(b"{"), 422),
    "no UTF-8": (delivery(b"\xff" * 5000), 422),
    "too deep": (delivery(b"[" * 10_000), 422),
    "a long integer": (delivery(b'{"x": %s}' % (b"1" * 5000)), 422),
    "NaN": (delivery(b'{"x": NaN}'), 422),
    "a doubled key": (delivery(b'{"x": 1, "x": 2}'), 422),
    "U+0000": (delivery(as_body(message(text="\0"))), 422),
    "a lone surrogate": (delivery(as_body(message(text="\ud800"))), 422),
    "a bad signature": (delivery(as_body(message()), "0" * 64), 401),
    "no signature": (delivery(as_body(message()), ""), 401),
    "too large": (delivery(b"x" * (LIMIT + 1)), 413),
    "a method": (plain("/webhook", method="PUT"), 405),
    "no route": (plain("/nowhere"), 404),
    "no message": (plain("/messages/none", TOKEN), 404),
    "no token": (plain("/messages"), 401),
    "a bad query": (plain("/messages?limit=x&offset=y&since=z", TOKEN), 422),
    "an unknown parameter": (plain("/messages?x=1", TOKEN), 422),
    "a doubled parameter": (plain("/messages?q=1&q=2", TOKEN), 422),
    "a query that is no UTF-8": (plain("/messages?q=%FF", TOKEN), 422),
    "a bad time": (plain("/stats/timeline?since=2025-01-01T00:00:00%2B99:99", TOKEN), 422),
    "a time out of range": (plain("/messages?since=0001-01-01T00:00:00%2B01:00", TOKEN), 422),
    "a bad cursor": (plain("/messages?cursor=x", TOKEN), 422),
    "a bad filter of a stream": (plain("/messages/stream?x=1", TOKEN), 422),
    "an id that is no UTF-8": (plain("/messages/%FF", TOKEN), 400),
    "no request": (b"\r\nnonsense\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "a long head": (plain("/", f"X: {LONG * 20}\r\n"), 431),
}


OURS = ("lyftr_server", "voluptuous", "tornado/web", "tornado.web")
# A connection that is closed is a cycle of its parts; no request is one of them.
PARTS = tuple(
    f"lyftr_server.http1.{name}" for name in ("connection", "limits", "reader", "intake", "outlet")
)


def garbage() -> list[str]:
    """Return what of ours could not be reached, but was not freed."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = []
    for each in gc.garbage:
        where = type(each).__module__
        if isinstance(each, types.FrameType):
            where, name = each.f_code.co_filename, each.f_code.co_name
        else:
            name = type(each).__name__
        if any(of in where for of in OURS) and not where.startswith(PARTS):
            found.append(f"{where} {name}")
    gc.garbage.clear()
    return found


async def ask(client: Client, data: bytes) -> tuple[int, list[str]]:
    """Return the status, and what the request left behind while its connection is still open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    garbage()
    writer.write(data)
    status = int((await reader.readline()).split()[1])
    for _ in range(5):
        await asyncio.sleep(0)
    found = garbage()
    writer.close()
    await writer.wait_closed()
    return status, found


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_request_leaves_no_cycle(
    client: Client, collector_off: None, kind: str
) -> None:
    data, status = KINDS[kind]
    await ask(client, data)  # what is made once and kept is made now
    assert await ask(client, data) == (status, [])


async def test_a_client_that_leaves_leaves_no_cycle(
    client: Client, app: Any, collector_off: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, left = asyncio.Event(), asyncio.Event()

    async def wait(*_: object) -> None:
        reading.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    monkeypatch.setattr(app.store, "stats", wait)
    for _ in range(2):
        reading.clear()
        left.clear()
        garbage()
        port = int(client.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(plain("/stats", TOKEN))
        await asyncio.wait_for(reading.wait(), 10)
        writer.transport.abort()
        await asyncio.wait_for(left.wait(), 10)
        await asyncio.sleep(0.05)
    assert garbage() == []


async def test_a_failure_of_the_store_leaves_no_cycle(
    client: Client, app: Any, collector_off: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (StoreError, QueueFull):

        async def fail(*_: object, error: type[Exception] = error) -> None:
            await asyncio.sleep(0)
            raise error("no")

        monkeypatch.setattr(app.store, "insert", fail)
        body = json.dumps(message()).encode()
        await ask(client, delivery(body))
        assert await ask(client, delivery(body)) == (503, [])
