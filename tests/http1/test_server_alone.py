"""The server under applications that no handler of ours is: silent, failing, or answering late."""

import asyncio
import contextlib
import gc
import socket
import struct
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from lyftr_server import http1

from ..conftest import ErrorLog
from .raw import request

LIVE = request()


class Silent:
    """Keeps every request, and answers none by itself."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.gone: list[Any] = []
        self.unserved_statuses: list[int] = []

    def __call__(self, request: http1.Request) -> None:
        connection: Any = request.connection
        self.requests.append(request)
        connection.set_close_callback(lambda: self.gone.append(request))

    def wants_body(self, upload: http1.Upload) -> bool:
        return True

    def unserved(self, upload: http1.Upload, status: int, latency_ms: float) -> str:
        self.unserved_statuses.append(status)
        return "id"

    def answer(self, number: int) -> None:
        self.requests[number].connection.respond(200, (), b"{}")


class Failing(Silent):
    def __call__(self, request: http1.Request) -> None:
        raise RuntimeError("before any handler")


QUICK = http1.ClientLimits(
    half_closed_seconds=0.2, idle_seconds=0.2, write_seconds=0.3, sweep_seconds=0.02
)


async def until(true: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def start(
    application: http1.Service, limits: http1.ClientLimits = QUICK
) -> tuple[http1.Server, int]:
    server = http1.Server(application, limits)
    return server, await server.listen("127.0.0.1", 0)


async def test_a_client_that_went_away_is_noticed_while_its_answer_is_made(
    io_loop: AsyncIOLoop,
) -> None:
    application = Silent()
    server, port = await start(application)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVE)
    await until(lambda: len(application.requests) == 1)
    assert application.gone == []
    writer.close()
    await until(lambda: application.gone == application.requests)
    # The application may answer nevertheless; that ends the request, once.
    assert server.in_flight == 1
    application.answer(0)
    assert server.in_flight == 0
    assert await server.drain(1)


async def test_a_client_that_half_closes_gets_a_quick_answer(io_loop: AsyncIOLoop) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVE * 3)
    writer.write_eof()
    for number in range(3):
        while len(application.requests) == number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # all three take longer than one may
        application.answer(number)
    assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 3
    assert application.gone == []
    writer.close()
    assert await server.drain(1)


async def test_who_delivers_and_half_closes_is_not_cut(io_loop: AsyncIOLoop) -> None:
    """It has said all that it has to say, and the disk may need its time."""
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", "/webhook", body=b"{}"))
    writer.write_eof()
    await until(lambda: len(application.requests) == 1)
    await asyncio.sleep(3 * QUICK.half_closed_seconds)
    application.answer(0)
    assert b"200 OK" in await reader.read()
    writer.close()
    # Who only reads is taken for gone.
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVE)
    writer.write_eof()
    await until(lambda: len(application.gone) == 1)
    application.answer(1)
    writer.close()
    assert await server.drain(1)


async def test_who_half_closes_while_an_answer_waits_for_its_next_piece_is_taken_for_gone(
    io_loop: AsyncIOLoop,
) -> None:
    application = Silent()
    server, port = await start(application)
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    for number, (_, writer) in enumerate(clients):
        writer.write(LIVE)
        await until(lambda: len(application.requests) == number + 1)  # noqa: B023 - awaited here
        exchange = application.requests[number].connection
        exchange.begin(200, [("Content-Type", "text/plain")], waits=number > 0)
        writer.write_eof()
    flowing, waiting = application.requests
    await until(lambda: waiting in application.gone)
    assert application.gone == [waiting]
    for each in (waiting, flowing):
        each.connection.finish()
    assert (await clients[0][0].read()).endswith(b"0\r\n\r\n")
    for _, writer in clients:
        writer.close()
    assert await server.drain(1)


async def test_a_body_counts_until_its_request_ends(io_loop: AsyncIOLoop) -> None:
    """Also while the disk keeps it waiting."""
    application = Silent()
    body = bytes(1 << 20)
    server, port = await start(application, replace(QUICK, budget_bytes=2 << 20))
    clients = []
    for number in range(2):
        clients.append(await asyncio.open_connection("127.0.0.1", port))
        clients[-1][1].write(request("POST", "/webhook", body=body))
        await until(lambda number=number: len(application.requests) == number + 1)
    late, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("POST", "/webhook", body=body))
    assert b" 503 " in await late.readuntil(b"\r\n")
    writer.close()
    # One is answered, and the client of the other is gone: what it sent is still worked on.
    application.answer(0)
    await clients[0][0].readuntil(b"{}")
    gone = clients[1][1]
    linger = struct.pack("ii", 1, 0)
    gone.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    gone.transport.abort()
    await until(lambda: len(application.gone) == 1)
    assert (1 << 19) < server.budget.used <= (1 << 20)
    application.answer(1)
    assert server.budget.used == 0
    clients[0][1].close()
    assert await server.drain(1)


async def test_a_last_answer_waits_for_its_reader_as_any_other(io_loop: AsyncIOLoop) -> None:
    """Not only as long as we wait for a client that we refused to fall silent."""
    application = Silent()
    server, port = await start(
        application, replace(QUICK, linger_seconds=0.1, write_seconds=3, sweep_seconds=0.02)
    )
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request(headers={"Connection": "close"}))
        await until(lambda: len(application.requests) == 1)
        (connection,) = server.connections
        small = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        small.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        application.requests[0].connection.respond(200, (), bytes(50_000))
        await asyncio.sleep(0.6)
        received = b""
        while piece := await loop.sock_recv(client, 4096):
            received += piece
    assert received.endswith(bytes(50_000))
    assert await server.drain(1)


@pytest.mark.parametrize("how", ["leaves", "does not read"])
async def test_an_answer_in_pieces_learns_that_its_client_is_gone(
    io_loop: AsyncIOLoop, how: str
) -> None:
    application = Silent()
    server, port = await start(application)
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(LIVE)
    await until(lambda: len(application.requests) == 1)
    exchange = application.requests[0].connection
    exchange.begin(200, [("Content-Type", "text/plain")])
    written = 0
    with contextlib.suppress(http1.ClientGone):
        while True:
            await asyncio.wait_for(exchange.write(bytes(1 << 18)), 10)
            written += 1
            if how == "leaves" and written == 3:
                writer.transport.abort()
    await until(lambda: application.gone == application.requests)
    # It is as gone when asked once more, and no longer counts when it is given up.
    with pytest.raises(http1.ClientGone):
        await exchange.write(b"x")
    exchange.close()
    assert server.in_flight == 0
    writer.close()
    assert await server.drain(1)


async def test_a_reader_that_is_slow_gets_an_answer_larger_than_all_buffers(
    io_loop: AsyncIOLoop,
) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
    writer.write(request(headers={"Connection": "close"}))
    await until(lambda: len(application.requests) == 1)
    size = 24 << 20
    application.requests[0].connection.respond(200, (), bytes(size))
    received = 0
    while piece := await reader.read(1 << 16):
        received += len(piece)
        await asyncio.sleep(0.003)
    assert received > size
    writer.close()
    assert await server.drain(1)


async def test_no_limit_ends_a_request_that_the_application_works_on(io_loop: AsyncIOLoop) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVE)
    await asyncio.sleep(0.6)
    application.answer(0)
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert await server.drain(1)


async def test_an_answered_request_is_freed_without_the_collector(io_loop: AsyncIOLoop) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    gc.disable()
    try:
        writer.write(LIVE)
        await until(lambda: len(application.requests) == 1)
        request = weakref.ref(application.requests[0])
        application.answer(0)
        application.requests.clear()
        assert request() is None
    finally:
        gc.enable()
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert await server.drain(1)


async def test_a_drain_waits_for_what_is_being_answered(io_loop: AsyncIOLoop) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVE)
    await until(lambda: len(application.requests) == 1)
    draining = asyncio.create_task(server.drain(5))
    await asyncio.sleep(0.05)
    assert not draining.done()
    application.answer(0)
    assert await draining
    answer = await reader.read()
    assert b"200 OK" in answer
    assert b"Connection: close" in answer
    writer.close()


async def test_a_drain_ends_though_nobody_answers(io_loop: AsyncIOLoop) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LIVE)
    await until(lambda: len(application.requests) == 1)
    assert not await server.drain(0.1)
    assert await reader.read() == b""
    writer.close()


async def test_a_failing_application_is_500_and_the_server_goes_on(
    io_loop: AsyncIOLoop, error_log: ErrorLog, caplog: pytest.LogCaptureFixture
) -> None:
    error_log.expected = True
    application = Failing()
    server, port = await start(application)
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVE * 2)
        answer = await reader.read()
        assert answer.count(b"HTTP/1.1 500 Internal Server Error\r\n") == 1
        assert b"RuntimeError" not in answer
        writer.close()
    assert application.unserved_statuses == [500, 500]
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert server.in_flight == 0
    assert await server.drain(1)


async def test_one_connection_that_cannot_time_out_stops_no_other_timeout(
    io_loop: AsyncIOLoop, error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expected = True
    server, port = await start(Silent(), replace(QUICK, head_seconds=0.2))
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    await until(lambda: len(server.connections) == 2)
    broken, _ = server.connections
    monkeypatch.setattr(broken, "time_out", lambda: 1 / 0)
    for reader, writer in clients:
        assert await reader.read() == b""
        writer.close()
    assert await server.drain(1)
