"""Counts by day for senders of many messages: the others' are counted one by one in no time.

They follow the deltas as the other counts do. A sender who becomes busy is counted once, without
what is not folded yet.
"""

from typing import Any

BUSY = 2000

# The hour and the sender of each row that came or went.
_PAIRS = "CROSS JOIN LATERAL unnest(hours, senders) AS pair (hour, sender)"

DAYS = f"""(
    SELECT day, n FROM sender_day_counts WHERE from_msisdn = $1::text
    UNION ALL SELECT left(hour, 10) AS day, n FROM deltas {_PAIRS} WHERE sender = $1::text
) AS days"""

# Part of the statement that folds: of what was `taken`.
FOLD = f"""days AS (
    INSERT INTO sender_day_counts AS t SELECT sender, left(hour, 10), sum(n) FROM taken {_PAIRS}
    WHERE EXISTS (SELECT FROM sender_counts WHERE from_msisdn = sender AND by_day)
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (from_msisdn, day) DO UPDATE SET n = t.n + excluded.n
)"""

_BEGIN = f"""
WITH busy AS (
    UPDATE sender_counts SET by_day = true WHERE n >= $1 AND NOT by_day RETURNING from_msisdn
)
INSERT INTO sender_day_counts SELECT sender, day, sum(n) FROM (
    SELECT from_msisdn AS sender, left(instant, 10) AS day, 1 AS n FROM messages
    WHERE from_msisdn IN (SELECT from_msisdn FROM busy)
    UNION ALL SELECT sender, left(hour, 10), -n FROM deltas {_PAIRS}
    WHERE sender IN (SELECT from_msisdn FROM busy)
) AS folded GROUP BY 1, 2 HAVING sum(n) <> 0
"""


async def begin(db: Any) -> None:
    """Begin to count by day who has become busy; in the transaction that folds."""
    if await db.fetchval(
        "SELECT EXISTS (SELECT FROM sender_counts WHERE n >= $1 AND NOT by_day)", BUSY
    ):
        await db.execute(_BEGIN, BUSY)


async def counted(db: Any, sender: str) -> bool:
    """Tell whether this sender is counted by day."""
    return bool(
        await db.fetchval("SELECT by_day FROM sender_counts WHERE from_msisdn = $1", sender)
    )
