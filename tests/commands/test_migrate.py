"""lyftr-server migrate: from a file to a server, whole and in its order."""

import asyncio
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Delivery, Event, Message, Refusal, Result
from lyftr_server.schema import EventQuery, MessageQuery, RefusedQuery
from lyftr_server.store import MessageStore
from lyftr_server.store.postgres.store import PostgresStore
from lyftr_server.store.sqlite.store import SqliteStore

from ..conftest import ServerFactory
from ..postgres import PostgresServer
from ..process import message, native
from .conftest import MANY
from .running import Ended, Terminal, contents, run, sample, slowed, url


def migrate(path: Path, target: str) -> Ended:
    return run(path.parent, "migrate", str(path), DATABASE_URL=target)


@pytest.fixture
def target(postgres: PostgresServer) -> Iterator[str]:
    """An empty database, which no server ever saw."""
    with postgres.database("template0") as url:
        yield url


async def on(store: MessageStore, work: Callable[[Any], Awaitable[Any]]) -> Any:
    await store.open()
    try:
        return await work(store)
    finally:
        await store.close()


QUERY = MessageQuery(limit=7)
STORED = replace(QUERY, order="stored")


async def fill(store: SqliteStore) -> None:
    """Store everything that there is: what is kept, what is gone, what came with it."""
    await asyncio.gather(*(store.insert(native(each)) for each in sample()))
    for n in range(3):
        one = Message(*message(f"wamid{n}", text=None if n else "Straße").values())
        event = Event("status.read", one.message_id if n else None, f'{{"n": {n}}}')
        await store.insert(Delivery("whatsapp", (one,), (f'{{"id": {n}}}',), (event,)))
        await store.refuse(Refusal("native", "conflict", f"r{n}", None, "[]", bytes([0, 255, n])))
    await store.erase(message_id="wamid2")


async def everything(store: MessageStore) -> dict[str, Any]:
    """Return what a reader can see of all this."""
    exported = {
        order: [row async for rows in store.export(MessageQuery(order=order)) for row in rows]
        for order in ("asc", "stored")
    }
    events = (await store.events(EventQuery())).data
    refused = (await store.refused(RefusedQuery())).data
    found = [await store.message(row.message_id) for row in exported["asc"]]
    payloads = [await store.payload(row.message_id) for row in exported["asc"]]
    stats = await store.stats(1_800_000_000_000_000)
    searched = (await store.page(MessageQuery(q="STRASSE"))).total
    seen = {"events": events, "refused": refused, "found": found, "payloads": payloads}
    return {**exported, **seen, "stats": stats, "searched": searched}


def test_all_is_there_and_goes_on(tmp_path: Path, target: str) -> None:
    path = tmp_path / "app.db"

    async def before(store: SqliteStore) -> Any:
        await fill(store)
        page = await store.page(QUERY)
        stored = await store.page(STORED)
        return await everything(store), page.next_cursor, stored.next_cursor, await store.head()

    known, cursor, place, head = asyncio.run(on(SqliteStore(path), before))
    files = contents(tmp_path)
    ended = migrate(path, target)
    assert (ended.status, ended.stderr) == (0, "")
    assert [line.partition(":")[0] for line in ended.lines] == [
        "messages", "events", "refused", "tombstones"
    ]  # fmt: skip
    assert contents(tmp_path) == files
    again = migrate(path, target)  # nothing is left to do
    assert again == ended
    checked = run(tmp_path, "verify", DATABASE_URL=target)
    assert (checked.status, checked.stderr) == (0, "")

    async def after(store: PostgresStore) -> None:
        assert await everything(store) == known
        # What was given before is good: cursors, and places in the order of storing.
        rows = known["asc"]
        assert (await store.page(replace(QUERY, cursor=cursor))).data == rows[7:14]
        rows = known["stored"]
        assert (await store.page(replace(STORED, cursor=place))).data == rows[7:14]
        assert await store.follow(QUERY, head, 5) == ([], [])
        # What is there is a repeat, and so is what went.
        erased = Message(*message("wamid2", text=None).values())
        for each in (sample()[0], erased):
            assert await store.insert(native(each)) == Result.DUPLICATE
        new = Message(*message("new").values())
        assert await store.insert(Delivery("whatsapp", (new,), ("{}",), (Event("x", None, "1"),)))
        await store.refuse(Refusal("native", "conflict", "r9", None, "[]", b""))
        assert [row.message_id for row in (await store.follow(QUERY, head, 5))[0]] == ["new"]
        assert (await store.events(EventQuery())).data[-1].kind == "x"
        assert (await store.refused(RefusedQuery())).data[0].request_id == "r9"

    asyncio.run(on(PostgresStore(target), after))
    used = migrate(path, target)
    assert (used.status, "messages of its own" in used.stderr) == (2, True)


def test_what_was_broken_off_goes_on(large: Path, target: str, postgres: PostgresServer) -> None:
    terminal = Terminal(
        large.parent, "migrate", str(large), program=slowed(0.2), DATABASE_URL=target
    )
    terminal.wait_for(" messages")
    assert terminal.end(signal.SIGINT).status == 130

    def count(db: Any) -> Awaitable[Any]:
        return db.fetchval("SELECT count(*) FROM messages")  # type: ignore[no-any-return]

    assert 0 < postgres.ask(count, target.rpartition("/")[2]) < MANY
    ended = migrate(large, target)
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.lines[0].startswith(f"messages: {MANY} rows, SHA-256 ")
    assert run(large.parent, "verify", "--quick", DATABASE_URL=target).status == 0


def test_a_row_that_differs_is_seen(database: Path, target: str, postgres: PostgresServer) -> None:
    assert migrate(database, target).status == 0
    name = target.rpartition("/")[2]
    postgres.ask(lambda db: db.execute("UPDATE messages SET ts = ts || ' ' WHERE seq = 9"), name)
    ended = migrate(database, target)
    assert ended.status == 1
    assert "messages: 158 rows" in ended.lines[0]
    assert " instead of " in ended.lines[0]


def test_nobody_uses_either_database(
    database: Path, server_factory: ServerFactory, postgres_url: str
) -> None:
    ended = migrate(database, url(database))
    assert (ended.status, "postgresql://" in ended.stderr) == (2, True)
    ended = migrate(database.parent / "missing.db", postgres_url)
    assert (ended.status, "no such database" in ended.stderr) == (2, True)
    server = server_factory(database.parent)
    ended = migrate(server.database, postgres_url)
    assert (ended.status, "another server" in ended.stderr) == (1, True)
    server.stop()
    server = server_factory(DATABASE_URL=postgres_url)
    ended = migrate(database, postgres_url)
    assert (ended.status, "stop them" in ended.stderr) == (2, True)
    server.deliver(message("m1"))
    server.stop()
    ended = migrate(database, postgres_url)
    assert (ended.status, "messages of its own" in ended.stderr) == (2, True)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("INSERT INTO erasures (person) VALUES ('+1')")
    ended = migrate(database, postgres_url)
    assert (ended.status, "an erasure waits" in ended.stderr) == (1, True)
