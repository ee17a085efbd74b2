"""What only this engine shows in a scrape: of the database, so every server shows the same."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...metrics import Gauge
from ..errors import StoreError
from . import erasure, upkeep

Work = Callable[[Any], Awaitable[int]]


async def _database_bytes(db: Any) -> int:
    return int(await db.fetchval("SELECT pg_database_size(current_database())"))


async def _erasures(db: Any) -> int:
    return len(await erasure.ordered(db))


async def gauges(read: Callable[[Work], Awaitable[int]], expired: Work) -> Sequence[Gauge]:
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
