"""Connections of PostgreSQL's engine: what is made sure of, whatever a database says."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from lyftr_server.records import Delivery, Event, Result
from lyftr_server.schema import MessageQuery
from lyftr_server.store import StoreError, Unopenable, Unusable
from lyftr_server.store.postgres import connection, following
from lyftr_server.store.postgres.connection import CommitLane, Lane
from lyftr_server.store.postgres.hosts import Hosts
from lyftr_server.store.postgres.insert import Options, insert

from ..postgres import PostgresServer, query
from .databases import message

# As PostgreSQL warns of a wait for standbys that was cancelled; another warning is nothing to us.
WARNS = "DO $$ BEGIN RAISE WARNING 'in vain'; END $$"


def setting(name: str) -> Callable[[Any], Awaitable[Any]]:
    return lambda db: db.fetchval(f"SHOW {name}")


@pytest.mark.parametrize("told, kept", [("off", "on"), ("local", "on"), ("remote_apply",) * 2])
async def test_a_commit_waits_for_the_disk_whatever_the_database_says(
    told: str, kept: str, postgres_url: str
) -> None:
    alter = f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET"
    query(postgres_url, f"{alter} synchronous_commit = {told}")
    query(postgres_url, f"{alter} client_min_messages = error")
    lane = CommitLane(Hosts(postgres_url))
    try:
        assert await lane.run(setting("synchronous_commit"), 10) == kept
        # Or the warning that only the primary has a row would stay unheard.
        assert await lane.run(setting("client_min_messages"), 10) == "warning"
    finally:
        lane.close()


async def test_what_a_commit_rests_on_is_set_for_its_session(postgres_url: str) -> None:
    """A reload of the configuration, which may change defaults, takes nothing away."""
    lane = CommitLane(Hosts(postgres_url))
    try:
        names = "'synchronous_commit', 'client_min_messages'"
        sql = f"SELECT source FROM pg_settings WHERE name IN ({names})"
        assert {*await lane.run(lambda db: db.fetch(sql), 10)} == {("session",)}
    finally:
        lane.close()


@pytest.mark.parametrize("name", ["statement_timeout", "lock_timeout", "idle_session_timeout"])
async def test_the_only_limits_are_ours(name: str, postgres_url: str) -> None:
    """A VACUUM or a migration would never come to its end."""
    query(postgres_url, f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET {name} = '1min'")
    lane = Lane(Hosts(postgres_url))
    try:
        assert await lane.run(setting(name), 10) == "0"
    finally:
        lane.close()


async def test_who_falls_silent_in_the_middle_of_storing_holds_others_up_no_longer(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without power says no farewell; what it had locked, its senders bring to others."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 1)
    silent, other = (CommitLane(Hosts(postgres_url)) for _ in range(2))
    batch = [Delivery("whatsapp", (message("m1"),), ("{}",), (Event("x", None, "{}"),))]
    told, heard = asyncio.Event(), asyncio.Event()

    class Silent:
        """A connection whose server falls silent before the events."""

        def __init__(self, db: Any) -> None:
            self._db = db

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

        async def fetch(self, sql: str, *args: Any) -> Any:
            if "INSERT INTO events" in sql:
                told.set()
                await heard.wait()
            return await self._db.fetch(sql, *args)

    def storing(lane: CommitLane, kind: Callable[[Any], Any]) -> Awaitable[Any]:
        return lane.run(lambda db: insert(kind(db), batch, lane.slot, Options()), 30)

    try:
        asking = asyncio.ensure_future(storing(silent, Silent))
        await told.wait()
        results, _ = await storing(other, lambda db: db)
        assert results == [Result.CREATED]
        heard.set()
        with pytest.raises(StoreError):
            await asking
    finally:
        silent.close()
        other.close()


async def test_another_warning_is_no_failure(postgres_url: str) -> None:
    lane = CommitLane(Hosts(postgres_url))
    try:
        await lane.run(lambda db: db.execute(WARNS), 10)
    finally:
        lane.close()


async def test_what_takes_too_long_is_dropped_and_not_cancelled(postgres_url: str) -> None:
    lane = CommitLane(Hosts(postgres_url))
    try:
        first = await lane.run(lambda db: db.fetchval("SELECT pg_backend_pid()"), 10)
        with pytest.raises(StoreError, match="no answer within"):
            await lane.run(lambda db: db.execute("SELECT pg_sleep(30)"), 0.05)
        slot = lane.slot.number
        assert await lane.run(lambda db: db.fetchval("SELECT pg_backend_pid()"), 10) != first
        # Until the server has ended that backend, its numbers are its own.
        assert lane.slot.number in (slot, slot + 1)
    finally:
        lane.close()


async def test_what_was_committed_is_created_though_a_lock_stood_in_the_way(
    postgres_url: str,
) -> None:
    """A conflict's body is kept in a transaction of its own, which alone is made again."""
    lane = CommitLane(Hosts(postgres_url))
    tries = 0

    class Locked:
        """A connection on which the first try to keep a body meets a deadlock."""

        def __init__(self, db: Any) -> None:
            self._db = db

        def __getattr__(self, name: str) -> Any:
            return getattr(self._db, name)

        async def execute(self, sql: str, *args: Any) -> Any:
            nonlocal tries
            if sql.startswith("INSERT INTO refused"):
                tries += 1
                if tries == 1:
                    raise asyncpg.DeadlockDetectedError("deadlock detected")
            return await self._db.execute(sql, *args)

    batch = [Delivery("native", (each,)) for each in (message("m1"), message("m1", text="Other"))]
    try:
        results, _ = await lane.run(lambda db: insert(Locked(db), batch, lane.slot, Options()), 10)
        assert (results, tries) == ([Result.CREATED, Result.CONFLICT], 2)
    finally:
        lane.close()


async def test_hosts_are_asked_until_one_takes_writes(
    postgres: PostgresServer, postgres_url: str
) -> None:
    nobody = postgres_url.replace(f":{postgres.port}/", f":1,127.0.0.1:{postgres.port}/")
    db, _ = await Hosts(nobody).connect(lambda db: asyncio.sleep(0))
    db.terminate()


async def test_a_database_that_is_read_only_is_called_so(postgres_url: str) -> None:
    alter = f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET"
    query(postgres_url, f"{alter} default_transaction_read_only = on")
    with pytest.raises(Unopenable, match="it takes no writes: a standby, or read-only"):
        await Hosts(postgres_url).connect(lambda db: asyncio.sleep(0))


async def test_what_every_host_says_needs_a_person(postgres: PostgresServer) -> None:
    twice = postgres.url("missing").replace(
        f":{postgres.port}/", f":{postgres.port},127.0.0.1:{postgres.port}/"
    )
    with pytest.raises(Unusable, match="missing"):
        await Hosts(twice).connect(lambda db: asyncio.sleep(0))
    # A host that is down may be the one that knows the database.
    with pytest.raises(Unopenable) as raised:
        await Hosts(twice.replace(f":{postgres.port},", ":1,")).connect(lambda db: asyncio.sleep(0))
    assert not isinstance(raised.value, Unusable)


async def test_nobody_goes_back_to_a_former_primary(postgres_url: str) -> None:
    hosts = Hosts(postgres_url)
    lane, beside = Lane(hosts), Lane(hosts)
    try:
        await lane.open()
        hosts.timeline += 1  # as when another lane has found the new one
        with pytest.raises(Unopenable, match="a former primary"):
            await lane.open()
        with pytest.raises(Unopenable, match="no primary takes writes"):
            await beside.open()
    finally:
        lane.close()
        beside.close()


async def test_numbers_that_a_failover_lost_are_not_given_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever follows, and has seen what only the old primary had, would miss others."""
    lane, beside = (CommitLane(Hosts(postgres_url)) for _ in range(2))

    async def store(lane: CommitLane, message_id: str) -> None:
        batch = [Delivery("native", (message(message_id),))]
        _, last = await lane.run(lambda db: insert(db, batch, lane.slot, Options()), 10)
        lane.slot = lane.slot._replace(last=last)

    async def timeline(db: Any) -> int:
        return 2

    try:
        for each, message_id in ((lane, "m1"), (lane, "m2"), (beside, "n1")):
            await store(each, message_id)
        place = await lane.run(following.head, 10)
        assert place == "2.1"
        lane.drop()
        beside.drop()
        # What the new primary has: nothing of the second slot, and less of the first.
        query(postgres_url, "DELETE FROM messages WHERE message_id <> 'm1'")
        query(postgres_url, "DELETE FROM slots WHERE slot = 1")
        query(postgres_url, "UPDATE slots SET last = 1")
        monkeypatch.setattr(connection, "timeline_of", timeline)
        for each, message_id in ((lane, "m3"), (beside, "n2")):
            await store(each, message_id)
        rows, _ = await lane.run(lambda db: following.follow(db, MessageQuery(), place, 10), 10)
        assert sorted(row.message_id for row in rows) == ["m3", "n2"]
    finally:
        lane.close()
        beside.close()
