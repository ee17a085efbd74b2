"""Whole bodies: messages, events and refusals in one transaction, each of them once."""

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.metrics import StoreMetrics
from lyftr_server.records import Delivery, Event, Message, Refusal, Result
from lyftr_server.schema import EventQuery, Invalid, MessageQuery, RefusedQuery
from lyftr_server.store import MessageStore, QueueFull, StoreError
from lyftr_server.store.commits import Commits, Item
from lyftr_server.store.limits import Limits

from ..conftest import ErrorLog, StoreFactory
from ..process import message, native

pytestmark = pytest.mark.every_engine

CREATED, DUPLICATE, CONFLICT = Result.CREATED, Result.DUPLICATE, Result.CONFLICT


def make(message_id: str = "m1", **fields: Any) -> Message:
    return Message(*message(message_id, **fields).values())


def body(*messages: Message, events: tuple[Event, ...] = (), **more: Any) -> Delivery:
    """Return what a sender of many messages brings in one body."""
    payloads = tuple(json.dumps({"id": each.message_id}) for each in messages)
    return Delivery("whatsapp", messages, payloads, events, b"the body", "r1")._replace(**more)


def status(n: int, message_id: str = "m1") -> Event:
    return Event("status.delivered", message_id, f'{{"n": {n}, "text": "\\u00e4"}}')


def refusal(n: int = 1, size: int = 10) -> Refusal:
    return Refusal("native", "validation_error", f"r{n}", None, "[]", b"x" * size)


async def put(store: MessageStore, *items: Delivery | Refusal) -> list[Result]:
    """Put all at once, so that they share a batch."""
    return list(
        await asyncio.gather(
            *(
                store.refuse(item) if isinstance(item, Refusal) else store.insert(item)
                for item in items
            )
        )
    )


async def test_a_body_is_stored_whole_and_each_part_once(store: MessageStore) -> None:
    whole = body(make("m1"), make("m2"), events=(status(1), status(2)))
    assert await put(store, whole) == [CREATED]
    assert await put(store, whole, whole) == [DUPLICATE, DUPLICATE]
    assert (await store.page(MessageQuery())).total == 2
    assert len((await store.events(EventQuery())).data) == 2
    # Half of it is new: that is what it says.
    assert await put(store, body(make("m2"), make("m3"), events=(status(2),))) == [CREATED]
    assert await put(store, body(events=(status(2), status(3)))) == [CREATED]
    assert await put(store, body(events=(status(3),))) == [DUPLICATE]


async def test_a_message_keeps_its_own_json_and_who_sent_it(store: MessageStore) -> None:
    text = '{"id": "m1",  "text":"\\u00e4\\ud83d\\ude00" }'
    await put(store, body(make("m1"), payloads=(text,)), native(make("m2")))
    assert await store.payload("m1") == text
    assert await store.payload("m2") is None
    assert await store.payload("m3") is None
    found = [await store.message(name) for name in ("m1", "m2")]
    assert [each and each.source for each in found] == ["whatsapp", "native"]


async def test_a_batch_of_every_kind_tells_each_its_own(store: MessageStore) -> None:
    await put(store, native(make("old")))
    found = await put(
        store,
        native(make("a")),
        refusal(),
        body(make("a"), make("b")),
        native(make("old")),
        body(make("old", text="other"), make("c"), events=(status(1),)),
        body(make("b")),
        body(),
    )
    assert found == [
        CREATED,
        Result.REFUSED,
        CREATED,
        DUPLICATE,
        CONFLICT,
        DUPLICATE,
        DUPLICATE,
    ]
    ids = [row.message_id for row in (await store.page(MessageQuery())).data]
    assert ids == ["a", "b", "c", "old"]


async def test_a_thousand_messages_of_one_body_are_one_transaction(store: MessageStore) -> None:
    messages = tuple(make(f"m{n:04}") for n in range(1000))
    events = tuple(status(n) for n in range(1000))
    assert await put(store, body(*messages, events=events)) == [CREATED]
    assert sum(store.metrics.batch_size.counts) == 1
    assert await store.total() == 1000
    assert await store.payload("m0999") == '{"id": "m0999"}'


async def test_a_body_that_fails_leaves_nothing_of_itself(
    store: MessageStore, error_log: ErrorLog
) -> None:
    error_log.expected = True
    nobody: Any = None
    broken = Event("kind", "m1", nobody)
    with pytest.raises(StoreError):
        await store.insert(body(make("m1"), events=(status(1), broken)))
    assert await store.total() == 0
    assert (await store.events(EventQuery())).data == []


@pytest.mark.parametrize("source", ["native", "whatsapp"])
async def test_a_conflict_is_kept_with_its_body(store: MessageStore, source: str) -> None:
    def one(text: str) -> Delivery:
        made = body(make("m1", text=text), source=source, body=text.encode(), request_id=text)
        return made._replace(payloads=()) if source == "native" else made

    assert await put(store, one("first")) == [CREATED]
    assert await put(store, one("first"), one("second")) == [DUPLICATE, CONFLICT]
    (kept,) = (await store.refused(RefusedQuery())).data
    assert (kept.source, kept.result, kept.request_id) == (source, "conflict", "second")
    assert (kept.message_id, kept.body) == ("m1", b"second")
    assert json.loads(kept.detail)[0]["type"] == "conflict"


async def test_a_time_of_receipt_makes_no_conflict(store: MessageStore) -> None:
    first, later = make("m1"), make("m1", ts="2025-01-15T10:00:09Z")
    assert await put(store, body(first), body(later)) == [CREATED, DUPLICATE]
    assert await put(store, native(later)) == [CONFLICT]


@pytest.mark.one_engine
@pytest.mark.parametrize("settings", [{"dedupe_by": "content"}], indirect=True)
async def test_by_content_the_message_that_was_stored_is_the_one_that_is_new(
    store: MessageStore,
) -> None:
    await put(store, native(make("other", text="known")))
    first, second = make("m1", text="known"), make("m1", text="new")
    assert await put(store, native(first), native(second)) == [CONFLICT, CREATED]
    found = await store.message("m1")
    assert found is not None
    assert found.message == second


# -- events


async def test_events_are_found_by_what_they_are(store: MessageStore) -> None:
    await put(store, body(events=(status(1, "m1"), status(2, "m2"))))
    await put(store, body(events=(Event("account_update", None, "{}"),), source="other"))

    async def found(**query: Any) -> list[str]:
        return [each.body for each in (await store.events(EventQuery(**query))).data]

    one, two, update = status(1).body, status(2).body, "{}"
    assert await found() == [one, two, update]
    assert await found(descending=True) == [update, two, one]
    assert await found(message_id="m2") == [two]
    assert await found(kind="account_update") == [update]
    assert await found(source="whatsapp") == [one, two]
    (at,) = {
        each.received_us for each in (await store.events(EventQuery(kind="account_update"))).data
    }
    assert await found(since_us=at) == [update]
    assert await found(until_us=at) == [one, two]


@pytest.mark.parametrize("descending", [False, True])
async def test_events_are_paged_without_a_gap(store: MessageStore, descending: bool) -> None:
    await put(store, body(events=tuple(status(n) for n in range(25))))
    seqs: list[int] = []
    query = EventQuery(limit=10, descending=descending)
    while True:
        page = await store.events(query)
        seqs += [each.seq for each in page.data]
        if page.next_cursor is None:
            break
        query = EventQuery(limit=10, descending=descending, cursor=page.next_cursor)
    assert seqs == sorted(range(1, 26), reverse=descending)
    with pytest.raises(Invalid):
        await store.events(EventQuery(kind="another", cursor=query.cursor))
    with pytest.raises(Invalid):
        await store.refused(RefusedQuery(cursor=query.cursor))


# -- refused bodies


@pytest.mark.parametrize(
    "limits", [Limits(bodies=10), Limits(size=1000)], ids=["by count", "by bytes"]
)
async def test_the_oldest_refused_bodies_make_room(
    open_store: StoreFactory, tmp_path: Path, limits: Limits
) -> None:
    store = await open_store(tmp_path / "app.db", refused_limits=limits)
    for start in range(0, 50, 25):
        await put(store, *(refusal(n, size=100) for n in range(start, start + 25)))
    kept = [each.request_id for each in (await store.refused(RefusedQuery(limit=100))).data]
    assert kept == [f"r{n}" for n in range(49, 39, -1)]
    with sqlite3.connect(store.path) as db:
        assert db.execute("SELECT n, size FROM refused_totals").fetchone() == (10, 1000)
    db.close()


async def test_a_flood_of_refusals_leaves_deliveries_their_place(store: MessageStore) -> None:
    flood = [store.refuse(refusal(n)) for n in range(500)]
    assert await put(store, native(make("m1"))) == [CREATED]
    assert not all(each.done() for each in flood)
    await asyncio.gather(*flood)


class Slow:
    """An engine whose every commit takes a while; `batches` has what was in them."""

    commits_in_flight = 1
    upkeep_waits = upkeep_due = False

    def __init__(self) -> None:
        self.batches: list[Sequence[Item]] = []

    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]:
        self.batches.append(batch)
        await asyncio.sleep(0.002)
        return [Result.CREATED] * len(batch)

    def commit_began(self) -> None: ...

    async def probe(self) -> None: ...

    async def upkeep(self) -> None: ...


@pytest.mark.one_engine
async def test_refusals_take_a_small_part_of_the_time_while_deliveries_come() -> None:
    engine, one_message = Slow(), native(make())
    commits = Commits(engine, StoreMetrics(), queue_limit=1000)
    await commits.put(one_message)
    waiting = [commits.put(refusal(n)) for n in range(250)]
    with pytest.raises(QueueFull):
        commits.put(refusal())
    for _ in range(200):
        await commits.put(one_message)  # and the queue is not theirs alone
    mixed = sum(any(isinstance(item, Refusal) for item in batch) for batch in engine.batches)
    assert 2 <= mixed <= len(engine.batches) / 8
    # Whoever ends waits for none of that.
    await commits.close()
    assert all(each.done() for each in waiting)


@pytest.mark.one_engine
async def test_refusals_wait_for_nothing_where_no_deliveries_come() -> None:
    commits = Commits(Slow(), StoreMetrics(), queue_limit=1000)
    async with asyncio.timeout(30):
        await asyncio.gather(*(commits.put(refusal(n)) for n in range(250)))
    await commits.close()


async def test_refused_bodies_are_paged_the_newest_first(store: MessageStore) -> None:
    for n in range(5):  # one after the other: two commits may be on their way
        await put(store, refusal(n))
    first = await store.refused(RefusedQuery(limit=3))
    second = await store.refused(RefusedQuery(limit=3, cursor=first.next_cursor))
    found = [each.request_id for page in (first, second) for each in page.data]
    assert (found, second.next_cursor) == (["r4", "r3", "r2", "r1", "r0"], None)
    assert (await store.refused(RefusedQuery(result="conflict"))).data == []


async def test_pages_of_large_bodies_end_early_and_lead_on(store: MessageStore) -> None:
    large = "x" * 100_000
    events = tuple(Event("status", None, f'"{n}{large}"') for n in range(7))
    await put(store, body(events=events), *(refusal(n, size=100_000) for n in range(7)))
    for read, query, name in (
        (store.events, EventQuery(limit=100), "seq"),
        (store.events, EventQuery(limit=100, descending=True), "seq"),
        (store.refused, RefusedQuery(limit=100), "id"),
    ):
        found: list[int] = []
        sizes: list[int] = []
        while True:
            page = await read(query)
            found += [getattr(each, name) for each in page.data]
            sizes.append(len(page.data))
            if page.next_cursor is None:
                break
            query = replace(query, cursor=page.next_cursor)
        assert sizes == [3, 3, 1]
        assert found == sorted(found, reverse=found[0] > found[1])
        assert len(set(found)) == 7
