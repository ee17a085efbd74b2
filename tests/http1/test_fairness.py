"""No client's bytes hold the loop, and with it everybody else, for longer than a piece."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from tornado.platform.asyncio import AsyncIOLoop

from lyftr_server.http1.intake import PIECE_BYTES, Hold
from lyftr_server.http1.reader import RequestReader

from .raw import chunked, request
from .test_server_alone import Silent, start, until

CLIENTS = 12
CHUNKS = request("POST", "/webhook", {"Transfer-Encoding": "chunked"}) + chunked(*[b"x"] * 100_000)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(CHUNKS, id="one-byte chunks"),
        pytest.param(request("POST", "/", body=bytes(700_000)), id="a large body"),
        pytest.param(request("GET", "/", {"X": "y" * 30_000}) * 20, id="large heads"),
    ],
)
async def test_a_turn_of_the_loop_takes_few_pieces(
    io_loop: AsyncIOLoop, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    turn = 0
    taken: Counter[int] = Counter()
    largest = 0
    feed = RequestReader.feed

    def counted(reader: RequestReader, piece: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(piece))
        taken[turn] += len(piece)
        feed(reader, piece)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(RequestReader, "feed", counted)
    application = Silent()
    server, port = await start(application)
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CLIENTS)]
    counting = asyncio.create_task(count_turns())
    for _, writer in clients:
        writer.write(data)
    await until(lambda: len(application.requests) == CLIENTS, seconds=30)
    counting.cancel()
    assert largest <= PIECE_BYTES
    # The first pieces of all may come at once; from then on they take turns.
    busiest = sorted(taken.values(), reverse=True)
    assert busiest[0] <= CLIENTS * PIECE_BYTES
    assert busiest[2] <= 6 * PIECE_BYTES
    for _, writer in clients:
        writer.close()
    with suppress(TimeoutError):
        await server.drain(0.1)


async def test_a_client_that_sends_little_waits_for_no_turn(io_loop: AsyncIOLoop) -> None:
    application = Silent()
    server, port = await start(application)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    held: list[Hold] = []
    await until(lambda: len(server.connections) == 1)
    (connection,) = server.connections
    intake = connection._intake  # type: ignore[attr-defined]
    intake.hold = lambda why: held.append(why)
    for number in range(3):
        writer.write(request("POST", "/webhook", body=b"x" * 1000))
        await until(lambda number=number: len(application.requests) == number + 1)
        application.answer(number)
        await reader.readuntil(b"{}")
    assert held == []
    writer.close()
    assert await server.drain(1)
