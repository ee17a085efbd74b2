"""What was erased is nowhere: not in a row, not in a page, not in the search index's own form."""

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Delivery, Erased, Event, Message, Refusal, Result
from lyftr_server.schema import EventQuery, MessageQuery, RefusedQuery
from lyftr_server.store import MessageStore
from lyftr_server.store.mentions import mentions
from lyftr_server.store.postgres.store import PostgresStore
from lyftr_server.store.sqlite import erasure, schema, search, verify
from lyftr_server.store.sqlite.erasure import Eraser, order, ordered
from lyftr_server.store.sqlite.store import SqliteStore
from lyftr_server.store.sqlite.tombstones import Tombstones

from ..conftest import StoreFactory
from ..process import message, native
from .databases import database, fold_all, insert, reader

pytestmark = pytest.mark.every_database

NewStore = Callable[..., MessageStore]

PERSON = "+4917612345678"
# What must not be found, in UTF-8: the number, words of the texts, a name, ids.
TRACES = [b"4917612345678", b"zebrafinch", b"quagmire", b"Ottokar", b"wamid-erased"]
# And the trigrams of those words that no other text has.
GRAMS = [b"zeb", b"ebr", b"gmi", b"quag"]


def make(message_id: str, **fields: Any) -> Message:
    return Message(*message(message_id, **fields).values())


def traces(path: Path) -> dict[str, list[bytes]]:
    """Return what is found of the person, in each of the database's files."""
    found = {}
    for end in ("", "-wal", "-shm", "-lock"):
        file = path.with_name(path.name + end)
        data = file.read_bytes() if file.exists() else b""
        found[file.name] = [trace for trace in TRACES + GRAMS if trace in data]
    return {name: hits for name, hits in found.items() if hits}


async def rows_with_traces(store: PostgresStore) -> dict[str, Any]:
    """Return what is found in rows and in samples of them, and which tables have dead ones."""

    async def look(db: Any) -> dict[str, Any]:
        found = {}
        tables = await db.fetch(
            "SELECT relname, vacuum_count FROM pg_stat_user_tables WHERE relname <> 'slots'"
        )
        for name, vacuumed in tables:
            column = "convert_from(body, 'LATIN1')" if name == "refused" else "t::text"
            for trace in TRACES:
                sql = f"SELECT count(*) FROM {name} AS t WHERE {column} LIKE '%' || $1 || '%'"
                if n := await db.fetchval(sql, trace.decode()):
                    found[f"{name} {trace!r}"] = n
            if not vacuumed and name in ("messages", "search", "events", "refused"):
                found[f"{name} has dead rows"] = 1
        for column in ("most_common_vals", "histogram_bounds"):
            sql = f"SELECT count(*) FROM pg_stats WHERE {column}::text LIKE '%4917612345678%'"
            if n := await db.fetchval(sql):
                found[column] = n
        return found

    return await store._listings.run(look, 60)


async def left(store: MessageStore) -> dict[str, Any]:
    """Return what is left of the person."""
    if isinstance(store, PostgresStore):
        return await rows_with_traces(store)
    assert isinstance(store, SqliteStore)
    return traces(store.path)


@asynccontextmanager
async def running(store: MessageStore) -> AsyncIterator[MessageStore]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def of_person(n: int) -> Delivery:
    """Return the n-th body that tells of the person: from, to, or about it."""
    numbers = {"from_": PERSON} if n % 2 else {"to": PERSON}
    one = make(f"wamid-erased{n}", text=f"zebrafinch quagmire {n}", **numbers)
    payload = f'{{"name": "Ottokar", "from": "{PERSON[1:]}", "n": {n}}}'
    event = Event("status.read", one.message_id, f'{{"to": "{PERSON[1:]}", "n": {n}}}')
    other = Event("contact", None, f'{{"wa_id": "{PERSON[1:]}", "name": "Ottokar", "n": {n}}}')
    return Delivery("whatsapp", (one,), (payload,), (event, other))


def of_others(n: int) -> Delivery:
    number = f"+49176{n % 5000:08d}"
    return native(make(f"m{n}", from_=number, text=f"hello world {n}"))


async def fill(store: MessageStore, others: int, persons: int) -> None:
    deliveries = [of_others(n) for n in range(others)] + [of_person(n) for n in range(persons)]
    random.Random(1).shuffle(deliveries)
    for start in range(0, len(deliveries), 5000):
        await asyncio.gather(*map(store.insert, deliveries[start : start + 5000]))
    await store.refuse(Refusal("whatsapp", "conflict", "r1", None, "[]", PERSON.encode()))
    await store.refuse(Refusal("native", "conflict", "r2", None, "[]", b"\xff of nobody"))


async def test_a_person_leaves_no_trace(new_store: NewStore) -> None:
    async with running(new_store()) as store:
        heard: list[str] = []
        store.on_erased = heard.extend
        await fill(store, 2000, 120)
        assert await left(store)
        assert await store.erasable(PERSON) == Erased(120, 240, 1)
        assert await store.erase(person=PERSON) == Erased(120, 240, 1)
        assert await left(store) == {}
        assert sorted(heard) == sorted(f"wamid-erased{n}" for n in range(120))
        # All others are there, and found.
        assert await store.total() == 2000
        assert (await store.page(MessageQuery(q="world 1999"))).total == 1
        assert (await store.events(EventQuery())).data == []
        assert [each.request_id for each in (await store.refused(RefusedQuery())).data] == ["r2"]
        if isinstance(store, SqliteStore):
            with reader(store.path) as db:
                assert list(verify.problems(db, deep=True)) == []
        assert await store.erase(person=PERSON) == Erased()


async def test_an_erased_message_does_not_come_back(new_store: NewStore) -> None:
    one, other = native(make("m1")), native(make("m2"))
    async with running(new_store()) as store:
        await asyncio.gather(store.insert(one), store.insert(other))
        assert await store.erase(message_id="m1") == Erased(1)
        assert await store.insert(one) == Result.DUPLICATE
        whole = Delivery("whatsapp", (one.messages[0], make("m3")), ("{}", "{}"))
        assert await store.insert(whole) == Result.CREATED
        rows = (await store.page(MessageQuery())).data
        assert [row.message_id for row in rows] == ["m2", "m3"]
        assert await store.message("m1") is None
    async with running(new_store()) as store:
        assert await store.insert(one) == Result.DUPLICATE


async def test_deliveries_go_on_beside_an_erasure(new_store: NewStore) -> None:
    async with running(new_store()) as store:
        await fill(store, 500, 300)
        erasing = asyncio.create_task(store.erase(person=PERSON))
        n = 0
        while not erasing.done():
            assert await store.insert(native(make(f"new{n}"))) == Result.CREATED
            n += 1
        assert (await erasing).messages == 300
        assert await left(store) == {}
        assert await store.total() == 500 + n


def carry_out(eraser: Eraser, db: sqlite3.Connection) -> None:
    while eraser.piece(db) is not None:
        pass


async def test_an_erasure_goes_on_when_its_server_is_gone(new_store: NewStore) -> None:
    first = new_store()
    async with running(first):
        await fill(first, 10, 700)
        asking = asyncio.create_task(first.erase(person=PERSON))
        while await first.total() == 710:  # noqa: ASYNC110 - nobody is told when it begins
            await asyncio.sleep(0)
    asking.cancel()
    async with running(new_store()) as second:
        async with asyncio.timeout(30):
            while await left(second):  # noqa: ASYNC110 - nor when it is done
                await asyncio.sleep(0.05)
        assert await second.total() == 10


@pytest.mark.one_engine
@pytest.mark.parametrize("pieces", [0, 1, 3, 5])
def test_an_erasure_that_was_broken_off_goes_on(tmp_path: Path, pieces: int) -> None:
    path = tmp_path / "app.db"
    with database(path) as db:
        db.execute("PRAGMA secure_delete = ON").fetchall()
        for n in range(700):
            one = of_person(n).messages[0] if n % 3 == 0 else make(f"m{n}", text=f"hello {n}")
            db.execute(
                "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
                " VALUES (?, ?, ?, ?, ?, 0)",
                one,
            )
        fold_all(db)
        order(db, person=PERSON)
        first = Eraser(path, Tombstones(db), 2e9)
        for _ in range(pieces):
            first.piece(db)
    # A new process knows only what is written down.
    with database(path) as db:
        db.execute("PRAGMA secure_delete = ON").fetchall()
        assert [each.person for each in ordered(db)] == [PERSON]
        second = Eraser(path, Tombstones(db), 2e9)
        carry_out(second, db)
        assert ordered(db) == []
        assert traces(path) == {}
        assert list(verify.problems(db, deep=True)) == []


@pytest.mark.one_engine
async def test_no_read_waits_while_the_file_is_made_anew(
    open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(tmp_path / "app.db")
    await store.insert(of_person(0))
    began, go_on = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection, path: Path) -> None:
        began.set()
        go_on.wait(30)

    monkeypatch.setattr(erasure, "make_anew", slow)
    erasing = asyncio.create_task(store.erase(person=PERSON))
    try:
        await asyncio.to_thread(began.wait, 30)
        async with asyncio.timeout(20):
            assert (await store.page(MessageQuery())).total == 0
            assert (await store.page(MessageQuery(q="zebra"))).total == 0
            assert await store.message("wamid-erased0") is None
            assert await store.payload("wamid-erased0") is None
            assert (await store.events(EventQuery())).data == []
            assert (await store.refused(RefusedQuery())).data == []
            assert (await store.stats(0))["total_messages"] == 0
            assert await store.erasable(PERSON) == Erased()
    finally:
        go_on.set()
    assert (await erasing).messages == 1


@pytest.mark.one_engine
@pytest.mark.parametrize("step", ["make_anew", "_emptied"])
def test_an_erasure_that_ended_before_the_files_were_empty_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "app.db"

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with database(path) as db:
        db.execute("PRAGMA secure_delete = ON").fetchall()
        for n in range(300):
            insert(db, [of_person(n).messages[0] if n % 3 == 0 else make(f"m{n}", text="hello")])
        # Nobody is meant by what crosses out the person.
        db.execute(
            "INSERT INTO events VALUES (1, x'00', 'whatsapp', 'x', NULL, ?, 0)", ('{"a": ""}',)
        )
        fold_all(db)
        number = order(db, person=PERSON)
        first = Eraser(path, Tombstones(db), 2e9)
        with monkeypatch.context() as broken:
            broken.setattr(erasure, step, fail)
            with pytest.raises(sqlite3.OperationalError):
                carry_out(first, db)
        assert len(ordered(db)) == 1
        # The same process tries again, and still knows how much it was.
        carry_out(first, db)
        assert (ordered(db), first.done[number]) == ([], Erased(100))
        assert traces(path) == {}
        assert db.execute("SELECT count(*) FROM events").fetchone() == (1,)


@pytest.mark.one_engine
async def test_a_database_of_before_can_erase_too(open_store: StoreFactory, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with sqlite3.connect(path, isolation_level=None) as db:
        for steps in schema.STEPS[:3]:
            db.executescript(steps)
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.execute("PRAGMA user_version = 3")
        chance = random.Random(2)
        db.execute("BEGIN")
        for n in range(3000):
            number = PERSON if n % 10 == 0 else f"+49176{chance.randrange(10**8):08d}"
            text = "zebrafinch quagmire" if n % 10 == 0 else "hello"
            db.execute(
                "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
                " VALUES (?, ?, '+1', '2025-01-15T10:00:00Z', ?, 0)",
                (f"wamid{chance.random()}", number, text),
            )
        db.execute("COMMIT")
    db.close()
    store = await open_store(path)
    assert (await store.erase(person=PERSON)).messages == 300
    assert traces(path) == {}


@pytest.mark.parametrize(
    "name, body, found",
    [
        (PERSON, '{"from": "4917612345678"}', True),
        (PERSON, "From=whatsapp%3A%2B4917612345678&x=1", True),
        (PERSON, '{"from": "49176123456789"}', False),
        (PERSON, '{"from": "14917612345678"}', False),
        ("+123", '{"from": "123"}', True),
        ("+123", '{"from": "+123"}', True),
        ("+123", '{"n": 123, "from": "1234"}', False),
        ("US.13491208655302741918", '{"user_id": "US.13491208655302741918"}', True),
        ("US.1349", '{"user_id": "US.13491"}', False),
    ],
)
def test_a_number_is_found_where_it_stands_alone(name: str, body: str, found: bool) -> None:
    assert bool(mentions(name).search(body.encode())) == found


@pytest.mark.one_engine
def test_the_index_forgets_to_the_last_trigram(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with database(path) as db:
        for n in range(3000):
            text = "zebrafinch" if n % 100 == 0 else f"hello {n}"
            db.execute(
                "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
                " VALUES (?, '+1', '+2', '2025-01-15T10:00:00Z', ?, 0)",
                (f"m{n}", text),
            )
            if n % 500 == 0:
                search.fold(db)
        fold_all(db)
        db.execute("DELETE FROM messages WHERE text = 'zebrafinch'")
        for _ in erasure._forget_index(db):
            pass
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert b"zeb" not in path.read_bytes()
