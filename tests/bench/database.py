"""Databases: count what is in one, and make a full one for servers to start on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
from pathlib import Path

from lyftr_server.records import Message
from lyftr_server.store.sqlite.store import SqliteStore
from tests.bench.bodies import messages
from tests.process import native

# Rows of six values each: within the 32,766 that a statement of SQLite may bind.
BULK = 5000


def count_rows(path: Path) -> int:
    """Return how many messages are stored and committed."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        database.execute("PRAGMA busy_timeout = 10000")
        return int(database.execute("SELECT count(*) FROM messages").fetchone()[0])


def settled_rows(path: Path, limit_seconds: float = 30.0) -> int:
    """Count once the server has stored what was still in flight: when two looks agree."""
    deadline = time.monotonic() + limit_seconds
    rows = count_rows(path)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        before, rows = rows, count_rows(path)
        if rows == before:
            break
    return rows


def build_database(path: Path, rows: int) -> None:
    """Store `rows` messages through the store itself, and let its search index cover them all."""
    asyncio.run(_fill(path, rows))
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise RuntimeError(f"{path} alone is not the whole database: {log.name} is not empty")


async def _fill(path: Path, rows: int) -> None:
    store = SqliteStore(path, queue_limit=BULK, max_batch=BULK)
    await store.open()
    try:
        waiting = (Message(*message) for message in messages("before", rows))
        while bulk := list(itertools.islice(waiting, BULK)):
            await asyncio.gather(*map(store.insert, map(native, bulk)))
        while await store.search_backlog():  # noqa: ASYNC110 - nobody is told when it is done
            await asyncio.sleep(0.1)
    finally:
        await store.close()
