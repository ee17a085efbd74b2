"""What only this engine shows in a scrape: of the database, so every server shows the same."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from ...metrics import Gauge
from ..errors import StoreError
from . import erasure, upkeep

Work = Callable[[Any], Awaitable[int | None]]


async def _database_bytes(db: Any) -> int:
    return int(await db.fetchval("SELECT pg_database_size(current_database())"))


async def _erasures(db: Any) -> int:
    return len(await erasure.ordered(db))


async def _standbys(db: Any) -> int:
    return int(await db.fetchval("SELECT count(*) FROM pg_stat_replication"))


async def _standby_lag_bytes(db: Any) -> int | None:
    """Return None without standbys, or without the right to see how far they are (pg_monitor)."""
    try:
        lag = await db.fetchval(
            "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)) FROM pg_stat_replication"
        )
    except asyncpg.PostgresError:  # of a service that does not tell
        return None
    return None if lag is None else int(lag)


async def gauges(read: Callable[[Work], Awaitable[int | None]], expired: Work) -> Sequence[Gauge]:
    """Return each figure, None for what cannot be read. `expired` counts what is to go."""
    figures: Sequence[tuple[str, str, Work]] = (
        (
            "lyftr_search_backlog_messages",
            "Messages the search index does not cover yet.",
            upkeep.unindexed,
        ),
        ("lyftr_database_bytes", "Size of the database.", _database_bytes),
        ("lyftr_unfolded_batches", "Batches whose counts wait to be folded.", upkeep.unfolded),
        (
            "lyftr_retention_backlog_messages",
            "Messages that have expired and are not deleted yet.",
            expired,
        ),
        ("lyftr_erasures_waiting", "Erasures under way.", _erasures),
        ("lyftr_standbys", "Standbys that follow the primary.", _standbys),
        (
            "lyftr_standby_lag_bytes",
            "What the slowest standby has not on its disk yet.",
            _standby_lag_bytes,
        ),
    )
    found: list[Gauge] = []
    failed = False
    for name, help_, work in figures:
        value = None
        if not failed:  # one that fails is enough to wait for
            try:
                value = await read(work)
            except StoreError:
                failed = True
        found.append(Gauge(name, help_, value))
    return found
