"""What is older than RETENTION_DAYS goes, in pieces of some milliseconds between commits."""

import json
import sqlite3
import time

from ..limits import Policy
from .sql import json_row, transaction
from .tombstones import Tombstones, forget

MINUTE_US = 60_000_000
# How long a piece may hold up a commit, and how many rows the first one takes.
PIECE_SECONDS = 0.004
FIRST_ROWS = 20
MOST_ROWS = 500


class Retention:
    """Deletes what is too old. For the thread of the connection that writes."""

    def __init__(self, policy: Policy, tombstones: Tombstones) -> None:
        self._policy = policy
        self._tombstones = tombstones
        self._rows = FIRST_ROWS

    def piece(self, db: sqlite3.Connection, now: float) -> int:
        """Delete some expired rows, in one transaction; return how many. 0: nothing has expired.

        `now`: seconds since 1970. The next piece is as large as this one's time allows.
        """
        started = time.monotonic()
        with transaction(db):
            deleted = self._messages(db, now) if self._policy.retention_days is not None else 0
            deleted += forget(db, max(0, self._rows - deleted), now)
        took = time.monotonic() - started
        if took > PIECE_SECONDS:
            self._rows = max(1, int(self._rows * PIECE_SECONDS / took))
        elif deleted >= self._rows:
            self._rows = min(MOST_ROWS, self._rows * 2)
        return deleted

    def _messages(self, db: sqlite3.Connection, now: float) -> int:
        cutoff_us = self._policy.cutoff_us(now)
        found = _expired(db, cutoff_us, self._rows)
        if found:
            ids = [message_id for _, message_id in found]
            self._tombstones.bury(db, ids, self._policy.forgotten_at(now))
            _delete(db, "messages", "seq", [seq for seq, _ in found])
        deleted = len(found)
        for table, key in (("events", "seq"), ("refused", "id")):
            if deleted < self._rows:
                old = json_row(
                    db,
                    f"SELECT json_group_array({key}) FROM (SELECT {key} FROM {table}"
                    f" WHERE created_at < ? ORDER BY created_at LIMIT ?)",
                    (cutoff_us, self._rows - deleted),
                )
                _delete(db, table, key, old)
                deleted += len(old)
        return deleted

    def backlog(self, db: sqlite3.Connection, now: float) -> int:
        """Return how many messages have expired and are still there, to the minute."""
        return backlog(db, self._policy.cutoff_us(now))


def _delete(db: sqlite3.Connection, table: str, key: str, keys: list[int]) -> None:
    if keys:
        db.execute(
            f"DELETE FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))",
            (json.dumps(keys),),
        )


def _expired(db: sqlite3.Connection, cutoff_us: int, most: int) -> list[tuple[int, str]]:
    """Return (seq, message_id) of some rows stored before the cutoff, the oldest first.

    By the counts of each minute, whose rows' seqs are bounded: no index on created_at is needed,
    and a clock that went back and forth leaves nothing behind.
    """
    found: list[tuple[int, str]] = json_row(
        db,
        "SELECT json_group_array(json_array(seq, message_id)) FROM (SELECT seq, message_id"
        " FROM (SELECT * FROM stored_minute_counts WHERE minute <= ? ORDER BY minute LIMIT 1)"
        " CROSS JOIN messages ON seq BETWEEN first_seq AND last_seq"
        " WHERE created_at < ? AND created_at / 60000000 = minute ORDER BY seq LIMIT ?)",
        (cutoff_us // MINUTE_US, cutoff_us, most),
    )
    return found


def backlog(db: sqlite3.Connection, cutoff_us: int) -> int:
    """Return how many messages have expired and are still there, to the minute."""
    (found,) = db.execute(
        "SELECT coalesce(sum(n), 0) FROM stored_minute_counts WHERE minute < ?",
        (cutoff_us // MINUTE_US,),
    ).fetchone()
    return int(found)
