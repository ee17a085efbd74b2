"""Group commit: batches, repeats inside one, failures, and what nobody may hear too early."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Message, Result
from lyftr_server.schema import MessageQuery
from lyftr_server.store import MessageStore, QueueFull, StoreError, health
from lyftr_server.store.commits import Commits
from lyftr_server.store.sqlite import opening, search, upkeep
from lyftr_server.store.sqlite.connection import Connection
from lyftr_server.store.sqlite.insert import CONTENT_DEDUPE

from ..conftest import ErrorLog, StoreFactory
from ..http1.test_server_alone import until
from ..process import message, native

CREATED, DUPLICATE, CONFLICT = Result.CREATED, Result.DUPLICATE, Result.CONFLICT
BY_CONTENT = pytest.mark.parametrize("settings", [{"dedupe_by": "content"}], indirect=True)


def make(message_id: str = "m1", **fields: Any) -> Message:
    return Message(*message(message_id, **fields).values())


async def put(store: MessageStore, *messages: Message) -> list[Result]:
    """Put all at once, so that they share a batch."""
    return list(await asyncio.gather(*[store.insert(native(each)) for each in messages]))


async def stored(store: MessageStore) -> list[str]:
    return [row.message_id for row in (await store.page(MessageQuery(limit=100))).data]


def batches(store: MessageStore) -> tuple[int, float]:
    """Return how many commits there were, and of how many messages."""
    return sum(store.metrics.batch_size.counts), store.metrics.batch_size.sum


# -- batches


async def test_what_waits_together_is_committed_together(store: MessageStore) -> None:
    assert await put(store, *(make(f"m{n}") for n in range(50))) == [CREATED] * 50
    assert batches(store) == (1, 50)


async def test_a_batch_has_at_most_so_many_messages(
    open_store: StoreFactory, tmp_path: Path
) -> None:
    store = await open_store(tmp_path / "app.db", max_batch=7)
    assert await put(store, *(make(f"m{n:02}") for n in range(50))) == [CREATED] * 50
    assert batches(store) == (8, 50)
    assert len(await stored(store)) == 50


async def test_what_comes_during_a_commit_is_in_the_next(store: MessageStore) -> None:
    first = [store.insert(native(make(f"a{n}"))) for n in range(3)]
    await asyncio.sleep(0)
    second = [store.insert(native(make(f"b{n}"))) for n in range(3)]
    assert set(await asyncio.gather(*first, *second)) == {CREATED}
    assert await stored(store) == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_rows_are_stored_in_the_order_of_their_arrival(
    store: MessageStore, tmp_path: Path
) -> None:
    await put(store, *(make(name) for name in ("c", "a", "b")))
    with sqlite3.connect(store.path) as db:
        found = db.execute("SELECT message_id FROM messages ORDER BY seq").fetchall()
    db.close()
    assert found == [("c",), ("a",), ("b",)]


async def test_an_answer_comes_after_the_commit(store: MessageStore) -> None:
    """Another connection sees the row the moment that its sender hears of it."""
    db = sqlite3.connect(store.path)
    for n in range(20):
        await store.insert(native(make(f"m{n}")))
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (n + 1,)
    db.close()


async def test_created_at_is_the_servers_clock(store: MessageStore) -> None:
    before = time.time_ns() // 1000
    await store.insert(native(make(ts="1999-01-01T00:00:00Z")))
    after = time.time_ns() // 1000
    db = sqlite3.connect(store.path)
    ((created_at,),) = db.execute("SELECT created_at FROM messages").fetchall()
    db.close()
    assert before <= created_at <= after


# -- repeats


async def test_repeats_inside_a_batch_and_across(store: MessageStore) -> None:
    await put(store, make("old"))
    found = await put(
        store,
        make("new"),
        make("old"),
        make("new"),
        make("old", text="other"),
        make("new", text="other"),
        make("third"),
    )
    assert found == [CREATED, DUPLICATE, DUPLICATE, CONFLICT, CONFLICT, CREATED]
    # And what the writer knows of the table's end is still right.
    assert await put(store, make("third"), make("fourth"), make("new")) == [
        DUPLICATE,
        CREATED,
        DUPLICATE,
    ]
    assert await put(store, make("fourth"), make("fourth", from_="+1")) == [DUPLICATE, CONFLICT]
    assert await stored(store) == ["fourth", "new", "old", "third"]
    found = await store.message("new")
    assert found is not None
    assert found.message == make("new")


async def test_repeats_are_told_after_a_restart(store: MessageStore, tmp_path: Path) -> None:
    await put(store, make("a"), make("b"))
    await store.close()
    await store.open()
    assert await put(store, make("b"), make("c"), make("a", text=None)) == [
        DUPLICATE,
        CREATED,
        CONFLICT,
    ]


async def test_repeats_are_told_after_rows_were_deleted(store: MessageStore) -> None:
    await put(store, make("a"), make("b"))
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM messages WHERE message_id = 'b'")
    db.close()
    assert await put(store, make("a"), make("b"), make("b")) == [DUPLICATE, CREATED, DUPLICATE]


@BY_CONTENT
async def test_content_is_looked_up_by_an_index(store: MessageStore) -> None:
    def plan(db: sqlite3.Connection) -> str:
        sql = f"EXPLAIN QUERY PLAN {CONTENT_DEDUPE[CONTENT_DEDUPE.index('SELECT 1') :]}"
        sql = sql[: sql.index(")\nBEGIN")].replace("new.", ":")
        return str(db.execute(sql, {"ts": "", "text": ""}).fetchall())

    assert "messages_by_content (ts=? AND <expr>=? AND <expr>=? AND <expr>=?)" in (
        await store._writing.run(plan)
    )


async def test_the_index_on_content_goes_with_its_setting(
    open_store: StoreFactory, tmp_path: Path
) -> None:
    def exists(db: sqlite3.Connection) -> bool:
        sql = "SELECT EXISTS (SELECT * FROM sqlite_schema WHERE name = 'messages_by_content')"
        return bool(db.execute(sql).fetchone()[0])

    for setting, wanted in (("content", True), ("content", True), ("message_id", False)):
        store = await open_store(tmp_path / "app.db", dedupe_by=setting)
        assert await store._writing.run(exists) == wanted
        await store.close()


@BY_CONTENT
async def test_by_content_repeats_inside_a_batch_and_across(store: MessageStore) -> None:
    await put(store, make("m1"))
    assert await put(
        store,
        make("m2"),
        make("m3", text="new"),
        make("m4", text="new", from_="+1"),
        make("m1"),
        make("m1", text="other"),
        make("m5", text=None),
        make("m6", text=None),
    ) == [DUPLICATE, CREATED, DUPLICATE, DUPLICATE, CONFLICT, CREATED, DUPLICATE]
    assert await stored(store) == ["m1", "m3", "m5"]
    assert await put(store, make("m7"), make("m3", text="new")) == [DUPLICATE, DUPLICATE]


# -- limits


@pytest.mark.parametrize("settings", [{"queue_limit": 3}], indirect=True)
async def test_a_full_queue_refuses_at_once(store: MessageStore) -> None:
    waiting = [store.insert(native(make(f"m{n}"))) for n in range(3)]
    assert (store.full, store.queue_depth, store.queue_limit) == (True, 3, 3)
    with pytest.raises(QueueFull):
        store.insert(native(make("m4")))
    assert await asyncio.gather(*waiting) == [CREATED] * 3
    assert (store.full, store.queue_depth) == (False, 0)
    assert await store.insert(native(make("m4"))) == CREATED


async def test_a_sender_that_leaves_has_its_message_stored(store: MessageStore) -> None:
    waiting = [store.insert(native(make(f"m{n}"))) for n in range(3)]
    waiting[1].cancel()
    assert await asyncio.gather(waiting[0], waiting[2]) == [CREATED, CREATED]
    assert await stored(store) == ["m0", "m1", "m2"]


# -- failures


class Failing:
    """Makes whatever is asked of a connection fail, before it reaches SQLite."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        run = Connection.run

        async def maybe(connection: Connection, *args: Any, **kwargs: Any) -> Any:
            if self.error is not None:
                raise self.error
            return await run(connection, *args, **kwargs)

        monkeypatch.setattr(Connection, "run", maybe)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


async def test_a_failed_commit_is_everybodys_error_and_leaves_no_row(
    store: MessageStore, error_log: ErrorLog, caplog: pytest.LogCaptureFixture, failing: Failing
) -> None:
    error_log.expected = True
    failing.error = sqlite3.OperationalError("disk I/O error")
    for _ in range(2):
        waiting = [store.insert(native(make(f"m{n}"))) for n in range(3)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [(type(each), str(each)) for each in found] == [(StoreError, "disk I/O error")] * 3
    assert store.metrics.errors == 2
    failing.error = None
    assert await put(store, make("m0")) == [CREATED]
    assert await stored(store) == ["m0"]
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("ERROR", "the database cannot be written: disk I/O error"),
        ("WARNING", "the database can be written again"),
    ]


async def test_an_unforeseen_failure_of_a_commit_answers_everybody_too(
    store: MessageStore, error_log: ErrorLog, failing: Failing
) -> None:
    error_log.expected = True
    failing.error = KeyError("x")
    with pytest.raises(StoreError):
        await store.insert(native(make("m1")))
    failing.error = None
    assert await store.insert(native(make("m1"))) == CREATED


async def test_after_a_failed_sync_nothing_is_acknowledged(
    open_store: StoreFactory, tmp_path: Path, error_log: ErrorLog, failing: Failing
) -> None:
    error_log.expected = True
    fatal: list[str] = []
    store = await open_store(tmp_path / "app.db", on_fatal=fatal.append)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    failing.error = error
    with pytest.raises(StoreError):
        await store.insert(native(make("m1")))
    assert fatal == ["disk I/O error"]
    failing.error = None
    with pytest.raises(StoreError):
        await store.insert(native(make("m1")))
    with pytest.raises(StoreError):
        await store.ping()


async def test_a_writer_that_ends_leaves_nobody_waiting(
    open_store: StoreFactory, tmp_path: Path, error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expected = True
    fatal: list[str] = []
    store = await open_store(tmp_path / "app.db", on_fatal=fatal.append)

    async def fail(_commits: Commits, *, first: bool) -> None:
        raise KeyError("x")

    monkeypatch.setattr(Commits, "_commit_all", fail)
    waiting = [store.insert(native(make(f"m{n}"))) for n in range(3)]
    async with asyncio.timeout(30):
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in found} == {StoreError}
    assert fatal == ["the writer has ended"]
    with pytest.raises(StoreError):
        await store.insert(native(make("m1")))


# -- the probe


async def test_a_ping_writes_when_nothing_was_written_just_now(store: MessageStore) -> None:
    def probed() -> int:
        db = sqlite3.connect(store.path)
        ((at,),) = db.execute("SELECT at FROM probe").fetchall()
        db.close()
        return int(at)

    assert probed() == 0
    await store.ping()
    first = probed()
    assert first > 0
    await store.ping()  # within a second, what was written is proof enough
    assert probed() == first


async def test_a_ping_fails_while_writes_do_and_then_no_more(
    store: MessageStore, error_log: ErrorLog, path: Path
) -> None:
    error_log.expected = True
    await store.insert(native(make()))
    aside = path.with_name("aside")
    path.rename(aside)
    with pytest.raises(StoreError, match="deleted"):
        await store.insert(native(make("m2")))
    with pytest.raises(StoreError, match="deleted"):
        await store.ping()
    path.touch()
    with pytest.raises(StoreError, match="replaced"):
        await store.ping()
    aside.rename(path)
    await store.ping()


async def test_pings_share_a_probe(store: MessageStore) -> None:
    await asyncio.gather(*(store.ping() for _ in range(20)))


async def test_a_ping_is_answered_between_batches(open_store: StoreFactory, tmp_path: Path) -> None:
    store = await open_store(tmp_path / "app.db", max_batch=1)
    waiting = [store.insert(native(make(f"m{n}"))) for n in range(200)]
    await store.ping()
    assert store.queue_depth > 0
    await asyncio.gather(*waiting)


@pytest.fixture
def path(store: MessageStore) -> Path:
    return store.path


async def test_a_long_backlog_of_the_search_index_holds_nobody_up(
    open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find", lambda db: opening.Standing(0, 10**9))
    monkeypatch.setattr(upkeep, "piece", lambda db, files, least: upkeep.Kept(1, True))
    store = await open_store(tmp_path / "app.db")
    async with asyncio.timeout(30):
        assert await put(store, *(make(f"m{n}") for n in range(600))) == [CREATED] * 600
        await store.close()


async def kept_up(store: MessageStore) -> None:
    """Wait until there is nothing left to keep up with."""
    await until(lambda: not store.upkeep_waits, 30)


def segments(db: sqlite3.Connection) -> int:
    return int(
        db.execute("SELECT count(DISTINCT id >> 37) FROM search_data WHERE id > 10").fetchone()[0]
    )


async def test_idle_moments_merge_what_busy_ones_left(
    store: MessageStore,
) -> None:
    def leave_unmerged(db: sqlite3.Connection) -> int:
        for n in range(40):
            db.execute("INSERT INTO search (rowid, text) VALUES (?, 'some text')", (10**6 + n,))
        return segments(db)

    assert await store._writing.run(leave_unmerged) == 40
    await put(store, make())
    await kept_up(store)
    assert await store._writing.run(segments) < 16


async def test_each_piece_of_upkeep_takes_in_what_was_just_committed(
    open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least: list[int] = []

    def piece(db: sqlite3.Connection, files: Any, rows: int) -> upkeep.Kept:
        least.append(rows)
        return upkeep.Kept(0, more=False)

    monkeypatch.setattr(upkeep, "piece", piece)
    monkeypatch.setattr(upkeep, "FOLD_BACKLOG", 1)
    store = await open_store(tmp_path / "app.db")
    await put(store, *(make(f"m{n}") for n in range(300)))
    await kept_up(store)
    await store.close()
    assert max(least) == 256
    assert sum(least) == 300


async def test_the_text_of_a_message_deleted_by_hand_leaves_the_index(
    store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(health, "UPKEEP_RETRY_SECONDS", 0.05)
    await put(store, make("m1", text="secret"), make("m2", text="kept"))
    await kept_up(store)
    await forgotten(store, "m1")


async def test_the_text_of_a_message_deleted_before_the_start_leaves_the_index(
    open_store: StoreFactory, tmp_path: Path
) -> None:
    store = await open_store(tmp_path / "app.db")
    await put(store, make("m1", text="secret"))
    await kept_up(store)
    await store.close()
    db = sqlite3.connect(tmp_path / "app.db")
    with db:
        db.execute("DELETE FROM messages")
    db.close()
    store = await open_store(tmp_path / "app.db")
    await forgotten(store)
    await store.close()


async def forgotten(store: MessageStore, message_id: str | None = None) -> None:
    """Delete a message by hand, if one is given, and wait until the index knows no deleted text."""
    if message_id:
        db = sqlite3.connect(store.name)
        with db:
            db.execute("DELETE FROM messages WHERE message_id = ?", (message_id,))
            assert search.deleted(db)
        db.close()
    db = sqlite3.connect(store.name)
    await until(lambda: not search.deleted(db), 30)
    db.close()


async def test_a_damaged_search_index_is_built_anew(
    store: MessageStore,
    error_log: ErrorLog,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "UPKEEP_RETRY_SECONDS", 0.05)
    error_log.expected = True
    await put(store, make("m1", text="needle"))
    await kept_up(store)
    await store._writing.run(lambda db: db.execute("DELETE FROM search_data WHERE id > 10"))
    await store._writing.run(lambda db: db.execute("DELETE FROM messages"))
    await put(store, make("m2", text="needle"))
    await kept_up(store)
    with pytest.raises(StoreError, match="malformed"):
        await store.page(MessageQuery(q="needle"))
    await kept_up(store)
    assert (await store.page(MessageQuery(q="needle"))).total == 1
    assert "the search index is damaged" in caplog.text


async def test_a_ping_during_another_is_answered_too(store: MessageStore) -> None:
    store._commits._health._written_at = float("-inf")  # no write that would answer for them
    busy = asyncio.create_task(store._writing.run(lambda db: time.sleep(0.2)))
    await asyncio.sleep(0.02)
    first = asyncio.create_task(store.ping())
    await asyncio.sleep(0.05)  # the first one's write waits for the thread now
    async with asyncio.timeout(30):
        await asyncio.gather(busy, first, store.ping())
