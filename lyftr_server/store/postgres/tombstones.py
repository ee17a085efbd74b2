"""What must not come back: a keyed hash of each message_id that expired or was erased, for a time.

The same hashes as SQLite's. Who buries raises `buried.version` in the same transaction. Each server
has a filter of the tombstones up to some version: a delivery looks for ids that may be in it, and
for all of its ids when the database's version is another.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...signature import keyed_hash
from ..filter import Filter
from .listing import snapshot

HASH_BYTES = 16
_BLOCK = 64  # SHA-256's (RFC 2104)
# Hashes at a time: some milliseconds of the loop.
PREFETCH = 500


class Pads(NamedTuple):
    """HMAC's key in the two forms that SQL can hash with."""

    inner: bytes
    outer: bytes


def pads_of(key: bytes) -> Pads:
    block = key.ljust(_BLOCK, b"\0")
    return Pads(bytes(byte ^ 0x36 for byte in block), bytes(byte ^ 0x5C for byte in block))


class Seen:
    """What a server knows of the tombstones; `version`: up to which burial (-1: of none)."""

    def __init__(self, key: bytes = b"") -> None:
        self.version = -1
        self.pads = pads_of(key)
        self._key = key
        self._filter = Filter()

    def suspects(self, ids: Iterable[str]) -> list[bool]:
        """Tell of each id whether it may be buried."""
        if not self._filter:
            return [False for _ in ids]
        return [tombstone(self._key, each) in self._filter for each in ids]

    async def catch_up(self, db: Any) -> None:
        """Hear of what was buried since."""
        if await db.fetchval("SELECT version FROM buried") == self.version:
            return
        async with snapshot(db):
            version = await db.fetchval("SELECT version FROM buried")
            sql = "SELECT hash FROM tombstones WHERE version > $1"
            async for (each,) in db.cursor(sql, self.version, prefetch=PREFETCH):
                self._filter.add(each)
        self.version = version


def tombstone(key: bytes, message_id: str) -> bytes:
    return keyed_hash(key, message_id.encode())[:HASH_BYTES]


async def seen(db: Any) -> Seen:
    """Return what is to be known of this database's tombstones; nothing yet."""
    return Seen(bytes(await db.fetchval("SELECT key FROM keys WHERE name = 'tombstone'")))


_BURY = """
WITH old AS MATERIALIZED (
    SELECT seq, message_id FROM messages WHERE seq = ANY($1::bigint[])
), stones AS (
    INSERT INTO tombstones (hash, until, version)
    SELECT tombstone(message_id, $3, $4), $2::bigint, $5::bigint FROM old ORDER BY 1
    ON CONFLICT (hash) DO UPDATE
    SET until = greatest(tombstones.until, excluded.until), version = excluded.version
), gone AS (DELETE FROM messages WHERE seq = ANY($1::bigint[]))
SELECT message_id FROM old
"""


async def bury(db: Any, seqs: Sequence[int], until: int, pads: Pads) -> list[str]:
    """Delete messages and keep their ids out until then (seconds since 1970); return the ids.

    In the caller's transaction.
    """
    # First of all: whoever buries beside us waits here, and has the next version.
    version = await db.fetchval("UPDATE buried SET version = version + 1 RETURNING version")
    found = await db.fetch(_BURY, seqs, until, *pads, version)
    return [message_id for (message_id,) in found]


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
