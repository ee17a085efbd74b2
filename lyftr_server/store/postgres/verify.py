"""Recounts everything that the database derives from its messages, and makes it anew."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from ..cursor import instant
from . import sender_days
from .connection import keep_servers_off
from .listing import snapshot
from .schema import SLOT_BITS, folded

PIECE_ROWS = 2000

# A table of counts, its key, the column of the deltas, and what it must hold.
_RECOUNTS = (
    ("hour_counts", "hour", "hours", "substr(instant, 1, 13)"),
    ("sender_counts", "from_msisdn", "senders", "from_msisdn"),
    ("recipient_counts", "to_msisdn", "recipients", "to_msisdn"),
    ("minute_counts", "minute", "minutes", "created_at / 60000000"),
)

_WRONG = """
SELECT count(*) FROM (
    SELECT name, sum(n) AS n FROM (
        SELECT {key} AS name, n FROM {table}
        UNION ALL SELECT name, n FROM deltas CROSS JOIN LATERAL unnest({column}) AS name
    ) AS both_ GROUP BY name HAVING sum(n) <> 0
) AS kept FULL JOIN (SELECT {counted} AS name, count(*) AS n FROM messages GROUP BY 1) AS counted
USING (name) WHERE kept.n IS DISTINCT FROM counted.n
"""

_WRONG_DAYS = """
SELECT count(*) FROM (
    SELECT name, sum(n) FROM (
        SELECT (from_msisdn, day) AS name, n FROM sender_day_counts
        UNION ALL SELECT (sender, left(hour, 10)), n
        FROM deltas CROSS JOIN LATERAL unnest(hours, senders) AS pair (hour, sender)
        WHERE sender IN (SELECT from_msisdn FROM sender_counts WHERE by_day)
        UNION ALL SELECT (from_msisdn, left(instant, 10)), -1 FROM messages
        WHERE from_msisdn IN (SELECT from_msisdn FROM sender_counts WHERE by_day)
    ) AS every GROUP BY name HAVING sum(n) <> 0
) AS wrong
"""

_NUMBER = f"seq & {(1 << SLOT_BITS) - 1}"
# What each query finds breaks a promise.
_PROMISES = (
    ("counts of nobody are kept", "SELECT FROM sender_counts WHERE n <= 0"),
    (
        "a row has a number that its slot has not given",
        f"SELECT FROM messages LEFT JOIN slots ON slot = seq >> {SLOT_BITS}"
        f" WHERE {_NUMBER} > coalesce(last, 0)",
    ),
    (
        "the search index has a text that no message has",
        "SELECT FROM search LEFT JOIN messages AS m USING (seq)"
        " WHERE search.folded IS DISTINCT FROM coalesce(m.folded, m.text)",
    ),
    (
        "the search index lacks a text below its watermark",
        f"SELECT FROM messages AS m JOIN indexed ON slot = seq >> {SLOT_BITS}"
        f" AND {_NUMBER} <= upto LEFT JOIN search USING (seq)"
        " WHERE m.text IS NOT NULL AND search.seq IS NULL",
    ),
    ("a tombstone is no hash", "SELECT FROM tombstones WHERE octet_length(hash) <> 16"),
)


async def verify(db: Any, deep: bool) -> tuple[int, Sequence[str]]:
    """Return how many messages there are, and what is wrong, in words; if deep, of each text."""
    async with snapshot(db):
        found = [each async for each in _problems(db, deep)]
        return int(await db.fetchval("SELECT count(*) FROM messages")), found


async def figures(db: Any) -> str:
    """Return how much there is beside the messages, in words."""
    return f"{await db.fetchval('SELECT count(*) FROM tombstones')} tombstones"


async def _problems(db: Any, deep: bool) -> AsyncIterator[str]:
    for table, key, column, counted in _RECOUNTS:
        sql = _WRONG.format(table=table, key=key, column=column, counted=counted)
        if wrong := await db.fetchval(sql):
            yield f"{table}: {wrong} rows are wrong or missing"
    if wrong := await db.fetchval(_WRONG_DAYS):
        yield f"sender_day_counts: {wrong} rows are wrong or missing"
    for promise, broken in _PROMISES:
        if await db.fetchval(f"SELECT EXISTS ({broken})"):
            yield promise
    if deep:
        wrong = 0
        async for rows in _texts(db):
            wrong += len(_mended(rows))
        if wrong:
            yield f"messages: {wrong} rows have another folded text or instant than theirs"


async def _texts(db: Any) -> AsyncIterator[Sequence[Any]]:
    after = -1
    while rows := await db.fetch(
        "SELECT seq, ts, instant, text, folded FROM messages WHERE seq > $1 ORDER BY seq LIMIT $2",
        after,
        PIECE_ROWS,
    ):
        yield rows
        after = rows[-1]["seq"]


def _mended(rows: Sequence[Any]) -> list[tuple[int, str, str | None]]:
    """Return the seq, the instant and the folded text of those rows that have others."""
    return [
        (seq, instant(ts), folded(text))
        for seq, ts, moment, text, kept in rows
        if folded(text) != kept or instant(ts) != moment
    ]


_LAST_NUMBERS = f"""
INSERT INTO slots (slot, last) SELECT seq >> {SLOT_BITS}, max({_NUMBER}) FROM messages GROUP BY 1
ON CONFLICT (slot) DO UPDATE SET last = greatest(slots.last, excluded.last)
"""
_WRONG_TEXTS = """
DELETE FROM search WHERE NOT EXISTS (SELECT FROM messages AS m
    WHERE m.seq = search.seq AND coalesce(m.folded, m.text) = search.folded)
"""
_MISSING_TEXTS = f"""
INSERT INTO search SELECT seq, coalesce(folded, text) FROM messages
JOIN indexed ON slot = seq >> {SLOT_BITS} AND {_NUMBER} <= upto WHERE text IS NOT NULL
ON CONFLICT DO NOTHING
"""


async def repair(db: Any) -> None:
    """Make anew what is derived from the messages. Unusable while servers use the database."""
    await keep_servers_off(db)
    async with db.transaction():
        # One that starts all the same waits.
        await db.execute("LOCK TABLE messages, deltas, search")
        async for rows in _texts(db):
            sql = "UPDATE messages SET instant = $2, folded = $3 WHERE seq = $1"
            await db.executemany(sql, _mended(rows))
        await db.execute(_LAST_NUMBERS)
        await db.execute("TRUNCATE deltas, sender_day_counts")
        for table, key, _, counted in _RECOUNTS:
            counts = f"SELECT {counted}, count(*) FROM messages GROUP BY 1"
            await db.execute(f"TRUNCATE {table}; INSERT INTO {table} ({key}, n) {counts}")
        await sender_days.begin(db)
        await db.execute(_WRONG_TEXTS)
        await db.execute(_MISSING_TEXTS)
