"""The store as its users see it: opened, asked, closed, and refused what is not its own."""

import asyncio
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from lyftr_server.records import Message, Result
from lyftr_server.schema import MessageQuery
from lyftr_server.store import MessageStore, StoreError, Unopenable
from lyftr_server.store.pages import CHUNK_BYTES
from lyftr_server.store.sqlite.sql import Pieces

from ..conftest import StoreFactory
from ..process import message, native

# Takes many seconds, and still ends.


def make(message_id: str = "m1", **fields: Any) -> Message:
    return Message(*message(message_id, **fields).values())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


# -- open and close


async def test_what_was_stored_is_there_after_a_restart(
    open_store: StoreFactory, path: Path
) -> None:
    store = await open_store(path)
    assert await store.insert(native(make())) == Result.CREATED
    await store.close()
    store = await open_store(path)
    assert await detail(store, "m1") == make()
    assert await store.insert(native(make())) == Result.DUPLICATE
    assert await store.total() == 1
    await store.close()


async def test_close_commits_what_waits(open_store: StoreFactory, path: Path) -> None:
    store = await open_store(path)
    waiting = [store.insert(native(make(f"m{n}"))) for n in range(600)]
    await store.close()
    assert {each.result() for each in waiting} == {Result.CREATED}
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (600,)
    db.close()


async def test_a_closing_store_takes_nothing_more(open_store: StoreFactory, path: Path) -> None:
    store = await open_store(path)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreError):
        await store.insert(native(make()))
    await closing


async def test_the_database_is_synced_fully_and_private(store: MessageStore, path: Path) -> None:
    def pragmas(db: sqlite3.Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "page_size", "auto_vacuum")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await store._writing.run(pragmas) == ["wal", 2, 2048, 2]  # FULL, INCREMENTAL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_readers_cannot_write(store: MessageStore) -> None:
    for reader in (store._listings, store._searches, store._health):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await reader.run(lambda db: db.execute("DELETE FROM messages"))


async def test_a_second_store_on_the_same_file_cannot_open(
    open_store: StoreFactory, store: MessageStore
) -> None:
    with pytest.raises(Unopenable, match="another server"):
        await open_store(store.path)
    assert await store.insert(native(make())) == Result.CREATED


async def test_a_store_that_cannot_open_leaves_nothing_behind(
    open_store: StoreFactory, path: Path
) -> None:
    path.write_bytes(b"my diary\n" * 100)
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(Unopenable, match="not a database"):
            await open_store(path)
    await settled(before)
    assert path.read_bytes() == b"my diary\n" * 100
    path.unlink()
    store = await open_store(path)  # the lock is free again
    await store.close()


@pytest.mark.parametrize("place", ["missing/app.db", "file/app.db", "folder"])
async def test_a_place_that_cannot_be_is_unopenable(
    open_store: StoreFactory, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unopenable, match=place.partition("/")[0]):
        await open_store(tmp_path / place)


async def test_closing_ends_every_thread(open_store: StoreFactory, path: Path) -> None:
    before = threading.active_count()
    store = await open_store(path)
    assert threading.active_count() == before + 5
    await store.close()
    await settled(before)


async def settled(threads: int) -> None:
    """Wait for threads that were told to end."""
    async with asyncio.timeout(30):
        while threading.active_count() > threads:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_path_with_odd_characters_is_a_path(
    open_store: StoreFactory, tmp_path: Path
) -> None:
    path = tmp_path / "a b?mode=ro#é%20.db"
    store = await open_store(path)
    await store.insert(native(make()))
    await store.close()
    assert path.is_file()


async def detail(store: MessageStore, message_id: str) -> Message | None:
    found = await store.message(message_id)
    return found and found.message


# -- reading


async def test_one_message_or_none(store: MessageStore) -> None:
    await store.insert(native(make("m1", text=None)))
    assert await detail(store, "m1") == make("m1", text=None)
    assert await store.message("m2") is None


async def test_a_page_has_its_total_and_cursors(store: MessageStore) -> None:
    await asyncio.gather(*(store.insert(native(make(f"m{n}"))) for n in range(5)))
    page = await store.page(MessageQuery(limit=2, offset=2))
    assert ([row.message_id for row in page.data], page.total) == (["m2", "m3"], 5)
    assert page.next_cursor is not None
    assert page.previous_cursor is not None


async def test_an_export_goes_through_all_in_chunks(
    store: MessageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lyftr_server.store.sqlite.store.EXPORT_ROWS", 4)
    await asyncio.gather(*(store.insert(native(make(f"m{n:02}"))) for n in range(10)))
    chunks = [[row.message_id for row in chunk] async for chunk in store.export(MessageQuery())]
    assert [len(chunk) for chunk in chunks] == [4, 4, 2]
    assert sum(chunks, []) == [f"m{n:02}" for n in range(10)]  # noqa: RUF017


async def test_a_chunk_of_an_export_is_bounded_in_bytes(store: MessageStore) -> None:
    texts = ["x" * 4096, "🙂" * 4096, "short"]
    sent = [make(f"m{n:03}", text=texts[n * 3 // 300]) for n in range(300)]
    await asyncio.gather(*(store.insert(native(each)) for each in sent))
    chunks = [chunk async for chunk in store.export(MessageQuery())]
    assert [row.message_id for chunk in chunks for row in chunk] == [f"m{n:03}" for n in range(300)]
    sizes = [sum(len((row.text or "").encode()) for row in chunk) for chunk in chunks]
    assert max(sizes) < CHUNK_BYTES + 4 * 4096
    assert len(chunks) < 20


async def test_a_reader_that_leaves_ends_its_read(store: MessageStore) -> None:
    begun = threading.Event()

    def long_read(db: sqlite3.Connection) -> Pieces[None]:
        while True:
            db.execute("SELECT count(*) FROM messages").fetchone()
            begun.set()
            yield

    reading = asyncio.create_task(store._searches.run_in_pieces(long_read))
    await asyncio.to_thread(begun.wait, 10)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    # And the lane is free for the next.
    await store.insert(native(make(text="find")))
    assert (await store.page(MessageQuery(q="find"))).total == 1


async def test_one_that_leaves_while_it_waits_stops_nobody_else(store: MessageStore) -> None:
    release = threading.Event()
    first = asyncio.create_task(store._listings.run(lambda db: release.wait(10)))
    second = asyncio.create_task(store.message("m1"))
    third = asyncio.create_task(store.message("m1"))
    await asyncio.sleep(0.02)
    second.cancel()
    await asyncio.sleep(0.02)
    release.set()
    assert (await first, await third) == (True, None)
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_a_long_search_delays_no_listing_and_no_commit(store: MessageStore) -> None:
    release = threading.Event()
    searching = asyncio.create_task(store._searches.run(lambda db: release.wait(10)))
    await asyncio.sleep(0.02)
    async with asyncio.timeout(30):
        assert await store.insert(native(make())) == Result.CREATED
        assert (await store.page(MessageQuery())).total == 1
        assert (await store.stats(0))["total_messages"] == 1
    assert not searching.done()
    release.set()
    await searching


async def test_an_error_of_sqlite_is_the_stores_and_counted(store: MessageStore) -> None:
    def fail(db: sqlite3.Connection) -> None:
        db.execute("SELECT * FROM missing")

    with pytest.raises(StoreError, match="no such table"):
        await store._read(store._listings, fail)
    assert store.metrics.errors == 1
    assert await store.total() == 0


# -- sizes


async def test_sizes_are_those_of_the_files(store: MessageStore, path: Path) -> None:
    await store.insert(native(make()))
    assert store.files.database_bytes() == path.stat().st_size
    assert store.files.wal_bytes() == path.with_name("app.db-wal").stat().st_size
    free, size = store.files.disk_bytes() or (0, 0)
    assert 0 < free < size


async def test_the_search_index_catches_up_when_nobody_comes(store: MessageStore) -> None:
    await asyncio.gather(*(store.insert(native(make(f"m{n}"))) for n in range(50)))
    async with asyncio.timeout(30):
        while await store.search_backlog():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await store.page(MessageQuery(q="hello", limit=1))).total == 50


async def test_an_older_sqlite_is_refused(
    open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    with pytest.raises(Unopenable, match=r"3\.38\.0 is needed"):
        await open_store(tmp_path / "app.db")
    assert not (tmp_path / "app.db").exists()
