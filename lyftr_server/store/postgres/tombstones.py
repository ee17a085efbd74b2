"""What must not come back: a keyed hash of each message_id that expired or was erased, for a time.

The same hashes as SQLite's. `buried.version` is 0 until the first of them: then no delivery looks.
Who buries raises it in the same transaction, so that a delivery that began before can tell.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

_BLOCK = 64  # SHA-256's (RFC 2104)


class Pads(NamedTuple):
    """HMAC's key in the two forms that SQL can hash with."""

    inner: bytes
    outer: bytes


def pads_of(key: bytes) -> Pads:
    block = key.ljust(_BLOCK, b"\0")
    return Pads(bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block))


async def pads(db: Any) -> Pads:
    """Return this database's."""
    return pads_of(bytes(await db.fetchval("SELECT key FROM keys WHERE name = 'tombstone'")))


_BURY = """
WITH old AS MATERIALIZED (
    SELECT seq, message_id FROM messages WHERE seq = ANY($1::bigint[])
), stones AS (
    INSERT INTO tombstones SELECT tombstone(message_id, $3, $4), $2::bigint FROM old ORDER BY 1
    ON CONFLICT (hash) DO UPDATE SET until = greatest(tombstones.until, excluded.until)
), version AS (UPDATE buried SET version = version + 1 WHERE EXISTS (SELECT FROM old)
), gone AS (DELETE FROM messages WHERE seq = ANY($1::bigint[]))
SELECT message_id FROM old
"""


async def bury(db: Any, seqs: Sequence[int], until: int, pads: Pads) -> list[str]:
    """Delete messages and keep their ids out until then (seconds since 1970); return the ids.

    In the caller's transaction.
    """
    return [message_id for (message_id,) in await db.fetch(_BURY, seqs, until, *pads)]


async def forget(db: Any, most: int, now: int) -> int:
    """Drop up to `most` tombstones whose time is over; return how many."""
    return int(
        await db.fetchval(
            "WITH gone AS (DELETE FROM tombstones WHERE hash = ANY(ARRAY(SELECT hash"
            " FROM tombstones WHERE until <= $2::bigint ORDER BY until LIMIT $1::bigint))"
            " RETURNING 1) SELECT count(*) FROM gone",
            most,
            now,
        )
    )
