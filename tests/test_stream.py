"""GET /messages/stream: every stored message that fits, once, in the order of storing."""

import asyncio
import contextlib
import random
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from lyftr_server import feed
from lyftr_server.app import Application
from lyftr_server.commands.following import BEGINNING
from lyftr_server.handlers.messages import WAITING_READS
from lyftr_server.records import Delivery, Message
from lyftr_server.schema import MessageQuery
from lyftr_server.store import MessageStore

from .conftest import ServerFactory
from .process import RunningServer, ServerSocket, message, samples
from .sse import Stream

pytestmark = pytest.mark.every_engine


def deliver(server: RunningServer, *ids: str, **fields: Any) -> None:
    for name in ids:
        assert server.deliver(message(name) | fields).status == 200


def ids(stream: Stream, n: int) -> list[str]:
    """Wait for `n` messages."""
    found = [row["message_id"] for row in islice(stream.rows(), n)]
    assert len(found) == n
    return found


def test_a_message_comes_the_moment_it_is_stored(server: RunningServer) -> None:
    deliver(server, "before")
    with Stream(server.port) as stream:
        assert stream.answer.status == 200
        assert stream.answer.headers["Content-Type"] == "text/event-stream"
        assert stream.answer.headers["Cache-Control"] == "no-store"
        first = next(stream.blocks())
        assert (first.event, first.data) == ("", ""), "only the place to resume from"
        deliver(server, "m1", text="line one\nline two \u2028 é")
        event = next(stream.blocks())
    assert event.event == "message"
    (listed,) = server.get("/messages?q=line").json()["data"]
    assert event.row() == listed
    assert event.id > first.id


def test_a_repeat_does_not_come_again(server: RunningServer) -> None:
    with Stream(server.port).begun() as stream:
        deliver(server, "m1", "m1", "m2")
        assert ids(stream, 2) == ["m1", "m2"]


def test_a_reader_resumes_after_its_last_place_however_long_ago(server: RunningServer) -> None:
    with Stream(server.port).begun() as stream:
        deliver(server, "m1")
        assert ids(stream, 1) == ["m1"]
    names = [f"n{n}" for n in range(30)]
    deliver(server, *names)
    with Stream(server.port, place=stream.place) as resumed:
        assert ids(resumed, 30) == names
        deliver(server, "last")
        assert ids(resumed, 1) == ["last"]
    with Stream(server.port, f"?after={stream.place}") as again:
        assert ids(again, 31) == [*names, "last"]
    # The header of a browser that resumes is newer than the address.
    with Stream(server.port, f"?after={stream.place}", resumed.place) as newest:
        deliver(server, "very last")
        assert ids(newest, 1) == ["very last"]


def test_a_place_is_given_before_anything_comes(server: RunningServer) -> None:
    with Stream(server.port).begun() as stream:
        pass
    deliver(server, "m1")
    with Stream(server.port, place=stream.place) as resumed:
        assert ids(resumed, 1) == ["m1"]


@pytest.mark.parametrize("resumed", [False, True], ids=["live", "resumed"])
@pytest.mark.parametrize(
    "query, expected",
    [
        ("?from=+911", ["a", "c"]),
        ("?from_msisdn=911", ["a", "c"]),
        ("?since=2025-01-15T10:00:00.5Z", ["b", "c"]),
        ("?q=STRASSE", ["b", "c"]),
        ("?q=strasse&from=911", ["c"]),
        ("?q=%25", ["a"]),
    ],
)
def test_the_filters_are_the_listing_s(
    server: RunningServer, query: str, expected: list[str], resumed: bool
) -> None:
    with Stream(server.port).begun() as start:
        pass
    stored = [
        message("a") | {"from": "+911", "ts": "2025-01-15T10:00:00Z", "text": "100 %"},
        message("b") | {"from": "+922", "ts": "2025-01-15T10:00:00.500Z", "text": "Straße"},
        message("c") | {"from": "+911", "ts": "2025-01-15T10:00:01Z", "text": "STRAẞE"},
        message("end") | {"from": "+911", "ts": "2026-01-01T00:00:00Z", "text": "strasse 100%"},
    ]
    if resumed:
        for each in stored:
            assert server.deliver(each).status == 200
    with (
        Stream(server.port, query, start.place).begun()
        if not resumed
        else Stream(server.port, query, start.place) as stream
    ):
        if not resumed:
            for each in stored:
                assert server.deliver(each).status == 200
        assert ids(stream, len(expected) + 1) == [*expected, "end"]
    listed = server.get(f"/messages{query}").json()["data"]
    assert [row["message_id"] for row in listed] == [*expected, "end"]


@pytest.mark.parametrize(
    "query, place, fault",
    [
        ("?until=2025-01-15T10:00:00Z", "", "until"),
        ("?limit=5", "", "limit"),
        ("?order=desc", "", "order"),
        ("?since=yesterday", "", "since"),
        ("?after=x", "", "after"),
        ("?after=1&after=2", "", "after"),
        ("", "-1", "after"),
        ("", "99", "after"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(
    server: RunningServer, query: str, place: str, fault: str
) -> None:
    with Stream(server.port, query, place) as stream:
        assert stream.answer.status == 422
        assert f'["query", "{fault}"]'.encode() in stream.answer.read()


def test_it_is_behind_the_token(server_factory: ServerFactory) -> None:
    server = server_factory(READ_TOKEN="let-me-read")
    with Stream(server.port) as refused:
        assert refused.answer.status == 401
    with Stream(server.port, token="let-me-read").begun():
        pass


def test_head_has_the_headers_and_ends(server: RunningServer) -> None:
    head = server.request("HEAD", "/messages/stream")
    assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")


def test_a_drain_waits_for_no_reader(server_factory: ServerFactory) -> None:
    server = server_factory(DRAIN_SECONDS="90")
    with Stream(server.port).begun() as reading, Stream(server.port).begun():
        # More than all buffers hold, for one reader that takes it and one that takes nothing.
        taking = threading.Thread(target=lambda: list(reading.rows()))
        taking.start()
        deliver(server, *(f"m{n}" for n in range(700)), text="é" * 4096)
        server.process.terminate()
        assert server.wait(30) == 0
        taking.join()
    assert server.events("drain_timed_out") == []
    assert {line["status"] for line in server.requests("/messages/stream")} == {200, 499}


def test_a_drained_reader_is_told_to_come_back(server: RunningServer) -> None:
    with Stream(server.port).begun() as stream:
        server.process.terminate()
        assert list(stream.rows()) == []
        assert stream.retry
    assert server.wait() == 0


def test_how_long_a_reader_stays_is_no_latency(server: RunningServer) -> None:
    with Stream(server.port).begun() as stream:
        time.sleep(1.2)
        deliver(server, "m1")
        assert ids(stream, 1) == ["m1"]
    # A reader that is gone is noticed when something is written to it.
    while not server.requests("/messages/stream"):
        deliver(server, "m2")
        deliver(server, f"n{time.monotonic()}")
    found = samples(server.get("/metrics").body)
    name = 'http_request_duration_seconds_bucket{le="1.0",method="GET",path="/messages/stream"}'
    assert found[name] == 1


def test_a_reader_that_leaves_makes_room_before_the_next_comment(server: RunningServer) -> None:
    def requests() -> float:
        return samples(server.get("/metrics").body)["lyftr_requests_in_flight"]

    with Stream(server.port).begun():
        assert requests() == 2
    # Nothing that is written betrays that it has gone.
    deadline = time.monotonic() + feed.HEARTBEAT_SECONDS - 2
    while requests() > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- many readers, and slow ones


@pytest.mark.slow
def test_readers_that_never_read_take_nothing_from_those_that_do(server: RunningServer) -> None:
    deliver(server, "first")
    before = resident_bytes(server)
    counts = [0] * 30

    def read(number: int, stream: Stream) -> None:
        for row in stream.rows():
            counts[number] += 1
            if row["message_id"] == "last":
                return

    with contextlib.ExitStack() as stack:
        reading = [stack.enter_context(Stream(server.port).begun()) for _ in counts]
        for _ in range(feed.READERS - len(counts)):
            stack.enter_context(Stream(server.port).begun())
        with Stream(server.port) as refused:
            assert refused.answer.status == 503
        assert server.get("/messages").status == 200, "who follows may still read"
        threads = [threading.Thread(target=read, args=each) for each in enumerate(reading)]
        for thread in threads:
            thread.start()
        deliver(server, *(f"m{n}" for n in range(400)), "last", text="é" * 4096)
        for thread in threads:
            thread.join(60)
        assert counts == [401] * len(counts)
        assert resident_bytes(server) - before < 150e6


def resident_bytes(server: RunningServer) -> int:
    statm = Path(f"/proc/{server.process.pid}/statm").read_text()
    return int(statm.split()[1]) * resource.getpagesize()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(feed, "PAUSE_SECONDS", 0.001)


def stored(n: int, **fields: Any) -> Delivery:
    given = {"from_msisdn": "+1", "to_msisdn": "+2", "ts": "2025-01-15T10:00:00Z", "text": "Hello"}
    return Delivery("native", (Message(f"m{n}", **(given | fields)),))


@pytest.mark.usefixtures("impatient")
async def test_silence_is_broken_by_a_comment_with_the_place(store: MessageStore) -> None:
    live = feed.Feed(store)
    batches = live.follow(MessageQuery(sender="+9"), None)
    first = await anext(batches)
    await store.insert(stored(1))
    places = {first.place}
    while len(places) < 2:
        batch = await anext(batches)
        assert batch.rows == []
        places.add(batch.place)
    await batches.aclose()
    # From there nothing is looked at twice.
    assert (await store.follow(MessageQuery(), max(p for p in places if p), 9))[0] == []


@pytest.mark.usefixtures("impatient")
async def test_a_reader_that_falls_behind_is_ended_and_may_resume(
    store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT_ROWS", 10)
    live = feed.Feed(store)
    slow, quick = live.follow(MessageQuery(), None), live.follow(MessageQuery(), None)
    begun = await anext(slow)
    await anext(quick)
    seen = 0
    for n in range(40):
        await store.insert(stored(n))
        live.wake()
        while seen <= n:
            seen += len((await anext(quick)).rows)
    with pytest.raises(feed.Behind):
        await anext(slow)
    await quick.aclose()
    resumed = live.follow(MessageQuery(), begun.place)
    batch = await anext(resumed)
    assert [row.message.message_id for row in batch.rows] == [f"m{n}" for n in range(40)]
    await resumed.aclose()


@pytest.mark.usefixtures("impatient")
async def test_what_is_erased_while_it_is_read_is_not_shown(
    store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = feed.Feed(store)
    batches = live.follow(MessageQuery(), None)
    await anext(batches)
    read = store.follow

    async def erased_meanwhile(*arguments: Any) -> Any:
        messages, places = await read(*arguments)
        if messages:
            live.erased(["m1"])
        return messages, places

    monkeypatch.setattr(store, "follow", erased_meanwhile)
    await store.insert(stored(1))
    await store.insert(stored(2))
    live.wake()
    events = b""
    while b'"m2"' not in events:
        events += b"".join(row.event for row in (await anext(batches)).rows)
    shown = [block for block in events.split(b"\n\n") if block.startswith(b"event: message")]
    assert [b'"m1"' in block for block in shown] == [False]
    assert b"event: erased" in events
    await batches.aclose()


@pytest.mark.usefixtures("impatient")
async def test_a_reader_that_catches_up_hears_what_has_gone_meanwhile(
    store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "READ_ROWS", 2)
    await asyncio.gather(*(store.insert(stored(n)) for n in range(1, 6)))
    live = feed.Feed(store)
    batches = live.follow(MessageQuery(), BEGINNING)
    first = await anext(batches)
    live.erased(["m1"])
    second = await anext(batches)
    assert [row.message and row.message.message_id for row in second.rows] == [None, "m3", "m4"]
    assert b"event: erased" in second.rows[0].event
    # It is not led past what it has not had yet.
    assert second.rows[0].place == first.rows[-1].place
    third = await anext(batches)
    assert [row.message and row.message.message_id for row in third.rows] == ["m5"]
    await batches.aclose()


async def test_readers_of_the_stream_are_no_waiting_reads(app: Application, client: Any) -> None:
    port = int(client.url.rpartition(":")[2])
    with ExitStack() as stack:
        for _ in range(WAITING_READS):
            reader = stack.enter_context(ServerSocket(port))
            reader.send(b"GET /messages/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            while app.feed.readers < WAITING_READS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await client.get("/messages")).code == 200


async def test_the_hundredth_and_first_reader_is_turned_away(
    app: Application, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "READERS", 2)
    readers = [app.feed.follow(MessageQuery(), None) for _ in range(2)]

    async def read(reader: Any) -> None:
        async for _ in reader:
            pass

    tasks = [asyncio.create_task(read(reader)) for reader in readers]
    while app.feed.readers < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    refused = await client.get("/messages/stream")
    assert (refused.code, refused.headers["Retry-After"]) == (503, "1")
    app.feed.end()
    await asyncio.gather(*tasks)
    assert app.feed.readers == 0


@pytest.mark.usefixtures("impatient")
@pytest.mark.one_engine  # named here: PostgreSQL, whose places are many numbers, is among them
@pytest.mark.parametrize("engine", ["sqlite", "memory", "postgres"], indirect=True)
@pytest.mark.parametrize("seed", range(6))
async def test_readers_that_are_cut_and_resume_see_each_row_once(
    store: MessageStore, engine: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "READ_ROWS", 7)
    monkeypatch.setattr(feed, "KEPT_ROWS", 50)
    rng = random.Random(seed)
    live = feed.Feed(store)
    queries = [MessageQuery(), MessageQuery(sender="+1"), MessageQuery(q="ß"), MessageQuery()]
    places = [await store.head()] * len(queries)
    seen: list[list[str]] = [[] for _ in queries]
    rows = [
        stored(n, from_msisdn=f"+{rng.randint(1, 2)}", text=rng.choice(["Strasse", "x", None]))
        for n in range(400)
    ]
    done = asyncio.Event()

    async def read(number: int) -> None:
        fits = feed._filter(queries[number])
        messages = [row.messages[0] for row in rows]
        expected = [each.message_id for each in messages if fits(each)]
        while len(seen[number]) < len(expected):
            batches = live.follow(queries[number], places[number])
            left = rng.randint(1, 6)
            try:
                async for batch in batches:
                    seen[number] += [row.message.message_id for row in batch.rows]
                    places[number] = batch.rows[-1].place if batch.rows else batch.place or ""
                    left -= 1
                    if not left or len(seen[number]) >= len(expected):
                        break
                    if rng.random() < 0.1:
                        await asyncio.sleep(0.01)
            except feed.Behind:
                pass
            await batches.aclose()
        # Several connections of PostgreSQL commit at a time: what they store together has no order.
        assert seen[number] == expected or engine == "postgres"
        assert sorted(seen[number]) == sorted(expected)

    async def write() -> None:
        for start in range(0, len(rows), 5):
            await asyncio.gather(*(store.insert(row) for row in rows[start : start + 5]))
            if rng.random() < 0.7:
                live.wake()
        done.set()

    await asyncio.gather(write(), *(read(number) for number in range(len(queries))))
    assert done.is_set()


@pytest.mark.slow
def test_no_message_is_missed_or_doubled_over_kills_and_restarts(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    server = server_factory(folder)
    with Stream(server.port).begun() as stream:
        place = stream.place
    seen: list[str] = []
    sent: list[str] = []
    rng = random.Random(3)

    def read(port: int) -> Iterator[None]:
        """Read until the connection breaks, or by itself a few messages later."""
        nonlocal place
        try:
            stream = Stream(port, place=place, timeout=5)
        except OSError:
            return
        with stream:
            for row in islice(stream.rows(), rng.randint(1, 60)):
                seen.append(row["message_id"])
                place = stream.place
                yield

    for round_number in range(4):
        stop = threading.Event()

        def send(server: RunningServer, stop: threading.Event, name: str) -> None:
            for n in range(10_000):
                if stop.is_set():
                    return
                try:
                    if server.deliver(message(f"{name}-{n}")).status == 200:
                        sent.append(f"{name}-{n}")
                except OSError:
                    return

        sender = threading.Thread(target=send, args=(server, stop, f"r{round_number}"))
        sender.start()
        before = len(seen)
        while len(seen) < before + 150:
            for _ in read(server.port):
                pass
        if round_number % 2:
            server.kill()
        else:
            server.stop()
        stop.set()
        sender.join()
        server = server_factory(folder)
    stored = server.get("/stats").json()["total_messages"]
    while len(seen) < stored:
        for _ in read(server.port):
            pass
    assert len(seen) == len(set(seen)) == stored
    assert set(sent) <= set(seen)
    # One sender, one message after the other: the order of storing is the order of sending.
    assert [name for name in seen if name in set(sent)] == sent
