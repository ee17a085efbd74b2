"""What can wait: deltas folded into the counts, and rows taken into the search index.

Whichever server gets the row of the work's name in `locks` does a piece of it; no other waits.
"""

from typing import Any

from . import sender_days
from .schema import SLOT_BITS

FOLDED_DELTAS = 400
INDEXED_ROWS = 1000

_TABLES = (
    ("hour_counts", "hour", "hours", "text"),
    ("sender_counts", "from_msisdn", "senders", "text"),
    ("recipient_counts", "to_msisdn", "recipients", "text"),
    ("minute_counts", "minute", "minutes", "bigint"),
)


def _fold_sql(most: int) -> str:
    """Return one statement that takes deltas away and adds them to the counts."""
    parts = [
        f"taken AS (DELETE FROM deltas WHERE id IN (SELECT id FROM deltas ORDER BY id LIMIT {most})"
        " RETURNING *)",
        sender_days.FOLD,  # before a part that is called sender_counts
    ]
    parts += [
        f"{table} AS (INSERT INTO {table} AS t ({key}, n) SELECT name, sum(n) FROM taken"
        f" CROSS JOIN LATERAL unnest({column}) AS name GROUP BY name ORDER BY name"
        f" ON CONFLICT ({key}) DO UPDATE SET n = t.n + excluded.n)"
        for table, key, column, _ in _TABLES
    ]
    return f"WITH {', '.join(parts)} SELECT count(*), coalesce(min(n), 1) FROM taken"


async def fold(db: Any, most: int = FOLDED_DELTAS) -> bool:
    """Fold some deltas into the counts; tell whether there may be more."""
    async with db.transaction():
        if not await _have(db, "fold"):
            return False
        taken, least = await db.fetchrow(_fold_sql(most))
        if least < 0:  # somebody deleted rows
            for table in (*(table for table, *_ in _TABLES), "sender_day_counts"):
                await db.execute(f"DELETE FROM {table} WHERE n = 0")
        await sender_days.begin(db)
    return bool(taken == most)


async def index(db: Any, most: int = INDEXED_ROWS) -> bool:
    """Take some rows into the search index; tell whether there may be more.

    Nothing but this writes the index, so its pending list costs no delivery anything.
    """
    async with db.transaction():
        if not await _have(db, "search"):
            return False
        behind = await db.fetchrow(
            "SELECT slot, coalesce(upto, 0) FROM slots LEFT JOIN indexed USING (slot)"
            " WHERE last > coalesce(upto, 0) ORDER BY last - coalesce(upto, 0) DESC LIMIT 1"
        )
        if behind is None:
            return False
        slot, upto = behind
        moved = await db.fetchval(
            f"""
            WITH piece AS MATERIALIZED (
                SELECT seq, coalesce(folded, text) AS folded FROM messages
                WHERE seq > ($1::bigint << {SLOT_BITS}) + $2::bigint
                AND seq < (($1::bigint + 1) << {SLOT_BITS}) ORDER BY seq LIMIT $3::bigint
            ), added AS (
                INSERT INTO search SELECT seq, folded FROM piece WHERE folded IS NOT NULL
                ON CONFLICT DO NOTHING
            ), head AS (
                SELECT CASE WHEN count(*) < $3::bigint THEN
                    (SELECT last FROM slots WHERE slot = $1::bigint)
                    ELSE max(seq) & {(1 << SLOT_BITS) - 1}::bigint END AS upto FROM piece
            )
            INSERT INTO indexed SELECT $1::integer, upto FROM head
            ON CONFLICT (slot) DO UPDATE SET upto = excluded.upto RETURNING upto
            """,
            slot,
            upto,
            most,
        )
    return bool(moved > upto)


async def unfolded(db: Any) -> int:
    """Return how many deltas are not folded."""
    return int(await db.fetchval("SELECT count(*) FROM deltas"))


async def unindexed(db: Any) -> int:
    """Return how many numbers the index is behind."""
    return int(
        await db.fetchval(
            "SELECT coalesce(sum(last - coalesce(upto, 0)), 0)"
            " FROM slots LEFT JOIN indexed USING (slot)"
        )
    )


async def _have(db: Any, name: str) -> bool:
    """Tell whether this work is ours until the transaction ends."""
    sql = "SELECT 1 FROM locks WHERE name = $1 FOR UPDATE SKIP LOCKED"
    return await db.fetchval(sql, name) is not None
