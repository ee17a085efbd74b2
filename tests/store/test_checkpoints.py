"""The write-ahead log goes into the database while messages come, and nobody waits for it."""

import asyncio
import errno
import itertools
import sqlite3
from pathlib import Path

import pytest

from lyftr_server.store import StoreError, health
from lyftr_server.store.sqlite import checkpoints
from lyftr_server.store.sqlite.store import SqliteStore

from ..conftest import ErrorLog, StoreFactory
from ..http1.test_server_alone import until
from .databases import reader
from .test_commits import CREATED, make, put

START = 256 << 10
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is copied when it has some dozen batches."""
    monkeypatch.setattr(checkpoints, "START_BYTES", START)
    monkeypatch.setattr(checkpoints, "REST_BYTES", 16 << 10)


async def fill(store: SqliteStore, name: str, batches: int = 100) -> None:
    for n in range(batches):
        found = await put(store, *(make(f"{name}{n}-{i}", text="x" * 500) for i in range(10)))
        assert found == [CREATED] * 10


async def shrunk(store: SqliteStore) -> None:
    """Store messages until the log is begun anew."""
    held = 0
    async with asyncio.timeout(30):
        while store._checkpoints._log()[0] >= held:
            held, _ = store._checkpoints._log()
            await fill(store, f"more{next(NUMBERS)}-", 5)


@pytest.mark.parametrize("rounds", [0, checkpoints.MOST_ROUNDS])
async def test_the_log_is_begun_anew_without_a_checkpoint_in_any_commit(
    rounds: int, open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without any, the rest that the writing connection copies is all.
    monkeypatch.setattr(checkpoints, "MOST_ROUNDS", rounds)
    store = await open_store(tmp_path / "app.db")
    await store._writing.run(lambda db: db.execute("PRAGMA wal_autocheckpoint = 0").fetchall())
    for _ in range(3):
        await shrunk(store)
    with reader(tmp_path / "app.db") as db:
        found = db.execute("SELECT count(*) FROM messages").fetchone()
    await store.close()
    with reader(tmp_path / "app.db") as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == found


async def test_a_reader_in_the_log_keeps_it_and_costs_no_copy_for_each_commit(
    open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 0
    sync = checkpoints.sync

    def counted(descriptor: int) -> None:
        nonlocal rounds
        rounds += 1
        sync(descriptor)

    monkeypatch.setattr(checkpoints, "sync", counted)
    store = await open_store(tmp_path / "app.db")
    await fill(store, "a", 5)
    with reader(tmp_path / "app.db") as db:
        db.execute("BEGIN")
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (50,)
        await fill(store, "b", 150)
        grown = store.files.wal_bytes()
        assert grown is not None
        assert grown > 3 * START
        each = grown // (START // 8) * checkpoints.MOST_ROUNDS
        assert 0 < rounds <= each
        db.execute("COMMIT")
    await shrunk(store)


async def test_no_copy_begins_when_there_is_nothing_to_copy(
    open_store: StoreFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that begins the log anew beside one might be lost (SQLite before 3.51.3)."""
    store = await open_store(tmp_path / "app.db")
    await fill(store, "a", 5)
    await until(lambda: not store.upkeep_waits, 30)
    log = store._checkpoints
    log._start = 1
    await store._writing.run(checkpoints._checkpoint)
    log.look()
    assert log._log()[0] == log._log()[1] > 1
    assert log._copying is None
    monkeypatch.setattr(checkpoints, "START_BYTES", 1)
    await fill(store, "b", 1)
    assert log._copying is not None
    assert log.busy
    assert not store.upkeep_waits  # nothing else empties the log meanwhile
    assert not store.upkeep_due


async def test_a_sync_that_fails_beside_the_commits_ends_the_process(
    open_store: StoreFactory, tmp_path: Path, error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expected = True

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(checkpoints, "sync", failing)
    fatal: list[str] = []
    store = await open_store(tmp_path / "app.db", on_fatal=fatal.append)
    with pytest.raises(StoreError):
        await fill(store, "a", 1000)
    assert len(fatal) == 1
    assert "broken disk" in fatal[0]


async def test_a_copy_that_fails_is_told_and_made_again(
    open_store: StoreFactory, tmp_path: Path, error_log: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expected = True
    monkeypatch.setattr(health, "UPKEEP_RETRY_SECONDS", 0.05)
    checkpoint, failures = checkpoints._checkpoint, [sqlite3.OperationalError("disk I/O error")]

    def failing(db: sqlite3.Connection) -> int:
        if failures:
            raise failures.pop()
        return checkpoint(db)

    monkeypatch.setattr(checkpoints, "_checkpoint", failing)
    store = await open_store(tmp_path / "app.db")
    await fill(store, "a", 200)
    await until(lambda: store.metrics.errors == 1, 30)
    await shrunk(store)
