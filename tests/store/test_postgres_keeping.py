"""Keeping less on PostgreSQL, where others deliver, index and read at the same moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest

from lyftr_server.records import Erased, Result
from lyftr_server.store import StoreError
from lyftr_server.store.postgres import erasure, keeping, schema, tombstones, upkeep
from lyftr_server.store.postgres.insert import Options, Slot, insert
from lyftr_server.store.postgres.store import PostgresStore

from ..conftest import ErrorLog
from ..postgres import PostgresServer
from ..process import native
from .databases import message


@asynccontextmanager
async def connected(url: str, many: int) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        found = [await asyncpg.connect(url) for _ in range(many)]
        for each in found:
            stack.push_async_callback(each.close)
        yield found


async def until_it_waits(watching: Any, waiting: Any) -> None:
    sql = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    async with asyncio.timeout(30):
        while not await watching.fetchval(sql, waiting.get_server_pid()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_who_waited_for_what_was_buried_is_not_let_in(postgres_url: str) -> None:
    """The delivery's snapshot is older than the tombstone: it sees neither row nor tombstone."""
    async with connected(postgres_url, 3) as (burying, delivering, watching):
        seen = await tombstones.seen(burying)
        await seen.catch_up(burying)
        assert seen.version == 0
        for slot in range(2):
            await burying.execute("INSERT INTO slots VALUES ($1)", slot)
        options = Options(seen=seen)
        batch = [native(message("m1"))]
        await insert(burying, batch, Slot(0, 0), options)
        (seq,) = await burying.fetchrow("SELECT seq FROM messages")
        async with burying.transaction():
            assert await tombstones.bury(burying, [seq], 2 * 10**9, seen.pads) == ["m1"]
            late = asyncio.create_task(insert(delivering, batch, Slot(1, 0), options))
            await until_it_waits(watching, delivering)
        with pytest.raises(asyncpg.SerializationError, match="buried meanwhile"):
            await late  # a lane does it again at once
        # The filter is behind, then it knows.
        for version in (0, 1):
            assert seen.version == version
            again, _ = await insert(delivering, batch, Slot(1, 0), options)
            assert again == [Result.DUPLICATE]
            await seen.catch_up(watching)
            assert seen.suspects(["m1", "m2"]) == [True, False]
        other = [native(message("m2"))]
        assert (await insert(delivering, other, Slot(1, 5), options))[0] == [Result.CREATED]
        await watching.execute("DELETE FROM messages")
        assert await watching.fetchval("SELECT count(*) FROM messages") == 0


async def test_what_is_deleted_while_it_is_indexed_leaves_the_index(postgres_url: str) -> None:
    async with connected(postgres_url, 3) as (indexing, deleting, watching):
        await indexing.execute("INSERT INTO slots VALUES (0)")
        await insert(indexing, [native(message("m1"))], Slot(0, 0), Options())
        async with indexing.transaction():
            await upkeep.index(indexing)
            gone = asyncio.create_task(deleting.execute("DELETE FROM messages"))
            await until_it_waits(watching, deleting)
        await gone
        assert await watching.fetchval("SELECT count(*) FROM search") == 0


async def test_every_server_hears_what_one_of_them_erased(postgres_url: str) -> None:
    heard: list[list[str]] = [[], []]
    stores = [PostgresStore(postgres_url) for _ in heard]
    async with AsyncExitStack() as stack:
        for store, ids in zip(stores, heard, strict=True):
            store.on_erased = ids.extend
            await store.open()
            stack.push_async_callback(store.close)
        await stores[0].insert(native(message("m1")))
        assert await stores[1].insert(native(message("m1"))) == Result.DUPLICATE
        assert await stores[0].erase(message_id="m1") == Erased(1)
        assert heard == [["m1"], ["m1"]]
        for store in stores:
            assert await store.insert(native(message("m1"))) == Result.DUPLICATE


async def test_an_erasure_is_not_done_while_somebody_still_sees_it(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        async with connected(postgres_url, 1) as (reader,):
            await store.insert(native(message("m1")))
            async with reader.transaction(isolation="repeatable_read"):
                assert await reader.fetchval("SELECT count(*) FROM messages") == 1
                erasing = asyncio.create_task(store.erase(message_id="m1"))
                async with asyncio.timeout(30):
                    while await store.total():  # noqa: ASYNC110 - nobody is told
                        await asyncio.sleep(0.01)
                done, _ = await asyncio.wait([erasing], timeout=0.5)
                assert not done
            assert await erasing == Erased(1)
    finally:
        await store.close()


async def test_a_database_of_before_learns_to_keep_less(postgres_url: str) -> None:
    async with connected(postgres_url, 1) as (db,):
        await db.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await db.execute(schema.STEPS[0])
        await db.execute("UPDATE lyftr SET version = 1")
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        await store.insert(native(message("m1")))
        assert await store.erase(person="+1") == Erased(1)
        assert await store.insert(native(message("m1"))) == Result.DUPLICATE
    finally:
        await store.close()


async def test_a_failure_is_counted_and_told_once(
    postgres_url: str, error_log: ErrorLog, caplog: pytest.LogCaptureFixture
) -> None:
    error_log.expected = True
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        async with connected(postgres_url, 1) as (db,):
            await db.execute("ALTER TABLE erasures RENAME TO mislaid")
            async with asyncio.timeout(30):
                while not store.metrics.errors:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.02)
            assert caplog.text.count("keeping less failed") == 1
            await db.execute("ALTER TABLE mislaid RENAME TO erasures")
        await store.insert(native(message("m1")))
    finally:
        await store.close()


async def test_an_erasure_is_told_again_to_who_did_not_hear(postgres_url: str) -> None:
    """The answer that said so may be lost with its connection."""
    async with connected(postgres_url, 1) as (db,):
        number = await erasure.order(db, person="+1")
        assert await erasure.taken(db, number) is None
        await erasure.finish(db, await erasure.ordered(db))
        assert [await erasure.taken(db, number) for _ in range(2)] == [Erased()] * 2


async def test_an_erasure_that_was_lost_is_waited_for_no_longer(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the primary that it was ordered from was alone with it, and is gone."""
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        monkeypatch.setattr(store._keeping, "wake", lambda: None)
        async with connected(postgres_url, 1) as (db,):
            await db.execute("SELECT pg_advisory_lock($1)", keeping._LOCK)  # nobody carries it out
            erasing = asyncio.create_task(store.erase(message_id="m1"))
            async with asyncio.timeout(30):
                while await db.execute("DELETE FROM erasures") == "DELETE 0":  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            with pytest.raises(StoreError, match="lost"):
                await erasing
    finally:
        await store.close()


WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@asynccontextmanager
async def without_standbys(db: Any, beside: Any) -> AsyncIterator[None]:
    """Let commits wait for a standby that never comes; the first connection's own do not."""
    await db.execute("SET synchronous_commit = local")
    await db.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await db.execute("SELECT pg_reload_conf()")
    try:
        # From some moment on, which nobody is told.
        waiting = asyncio.ensure_future(asyncio.sleep(0))
        while not await db.fetchval(f"SELECT EXISTS (SELECT {WAITING})"):
            if waiting.done():
                sql = "SELECT pg_logical_emit_message(true, '', '')"
                waiting = asyncio.ensure_future(beside.execute(sql))
            await asyncio.wait([waiting], timeout=0.02)
        await in_vain(waiting, db)
        yield
    finally:
        await db.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await db.execute("SELECT pg_reload_conf()")


async def in_vain(work: Awaitable[Any], db: Any) -> None:
    """Cancel every wait for a standby, as a person may, until the work has ended."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait([task], timeout=0.02))[0]:
        await db.execute(f"SELECT pg_cancel_backend(pid) {WAITING}")
    await task


async def test_an_erasure_that_only_the_primary_has_is_not_done(
    own_postgres: PostgresServer, error_log: ErrorLog
) -> None:
    """A wait for a standby that is cancelled is told as a success, with a warning."""
    error_log.expected = True
    with own_postgres.database() as url:
        store = PostgresStore(url)
        await store.open()
        try:
            async with connected(url, 2) as (db, beside):
                await db.execute("SELECT pg_advisory_lock($1)", keeping._LOCK)  # it is not begun
                number = await erasure.order(db, message_id="m1")
                await erasure.finish(db, await erasure.ordered(db))
                async with without_standbys(db, beside):
                    for work in (
                        store.erase(message_id="m2"),
                        store._upkeep.run(lambda db: erasure.taken(db, number), 30),
                    ):
                        with pytest.raises(StoreError, match="only the primary has it"):
                            await in_vain(work, db)
        finally:
            await store.close()
