"""What is older than RETENTION_DAYS goes, in short transactions beside the commits."""

from typing import Any

from ..limits import Policy
from . import tombstones
from .tombstones import Pads

MINUTE_US = 60_000_000
PIECE_ROWS = 500


class Retention:
    """Deletes what is too old; for whichever server keeps less at the moment."""

    def __init__(self, policy: Policy, pads: Pads) -> None:
        self._policy = policy
        self._pads = pads
        # Behind what this run deleted: dead entries of the index are not walked again.
        self._after_us = 0

    async def piece(self, db: Any, now: float | None = None) -> int:
        """Delete some expired rows; return how many. 0: nothing has expired.

        `now`: seconds since 1970; None: by the database's clock, as `created_at` is.
        """
        now = await _now(db) if now is None else now
        if cutoff_us := self._policy.cutoff_us(now):
            deleted = (
                await self._messages(db, cutoff_us, now)
                or await _delete_old(db, "events", "seq", cutoff_us)
                or await _delete_old(db, "refused", "id", cutoff_us)
            )
            if deleted:
                return deleted
        self._after_us = 0
        return await tombstones.forget(db, PIECE_ROWS, int(now))

    async def _messages(self, db: Any, cutoff_us: int, now: float) -> int:
        found = await db.fetch(
            "SELECT seq, created_at FROM messages WHERE created_at >= $1::bigint"
            " AND created_at < $2::bigint ORDER BY created_at LIMIT $3::bigint",
            self._after_us,
            cutoff_us,
            PIECE_ROWS,
        )
        if not found:
            return 0
        until = int(self._policy.forgotten_at(now))
        async with db.transaction():
            await tombstones.bury(db, [seq for seq, _ in found], until, self._pads)
        self._after_us = found[-1]["created_at"]
        return len(found)

    async def backlog(self, db: Any, now: float | None = None) -> int:
        """Return how many messages have expired and are still there, to the minute."""
        cutoff_us = self._policy.cutoff_us(await _now(db) if now is None else now)
        if not cutoff_us:
            return 0
        return int(
            await db.fetchval(
                "SELECT (SELECT coalesce(sum(n), 0) FROM minute_counts WHERE minute < $1::bigint)"
                " + (SELECT coalesce(sum(n), 0) FROM deltas"
                " CROSS JOIN LATERAL unnest(minutes) AS minute WHERE minute < $1::bigint)",
                cutoff_us // MINUTE_US,
            )
        )


async def _now(db: Any) -> float:
    return float(await db.fetchval("SELECT extract(epoch FROM statement_timestamp())"))


async def _delete_old(db: Any, table: str, key: str, cutoff_us: int) -> int:
    async with db.transaction():
        if table == "refused":  # whoever keeps one lets the oldest go
            await db.execute("SELECT FROM locks WHERE name = 'refused' FOR UPDATE")
        return int(
            await db.fetchval(
                f"WITH gone AS (DELETE FROM {table} WHERE {key} = ANY(ARRAY(SELECT {key}"
                f" FROM {table} WHERE created_at < $1::bigint ORDER BY created_at"
                " LIMIT $2::bigint)) RETURNING 1) SELECT count(*) FROM gone",
                cutoff_us,
                PIECE_ROWS,
            )
        )
