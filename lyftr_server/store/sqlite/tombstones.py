"""What must not come back: a keyed hash of each message_id that expired or was erased, for a time.

Nobody can tell an id from a tombstone without the key, and nobody can tell whose it was with it.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence

from ...signature import keyed_hash
from ..filter import Filter
from .sql import json_row

HASH_BYTES = 16
# Rows in one statement of a look at all tombstones.
_PIECE = 50_000


class Tombstones:
    """Tells which ids are buried. For the thread of the connection that writes.

    A delivery pays for none: without tombstones nothing is asked, and with them a filter in memory
    answers for nearly all ids that are new.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        (key,) = db.execute("SELECT key FROM keys WHERE name = 'tombstone'").fetchone()
        self._key = bytes(key)
        self._filter = Filter()
        after: bytes | None = b""
        while after is not None:
            after = self._read(db, after)

    @classmethod
    def opened(cls, db: sqlite3.Connection) -> "Tombstones | None":
        """Return a database's tombstones, None where the key is lost."""
        there = db.execute("SELECT 1 FROM keys WHERE name = 'tombstone'").fetchone()
        return cls(db) if there else None

    def buried(self, db: sqlite3.Connection, ids: Iterable[str], now: float) -> Collection[str]:
        """Return those of `ids` that must not be stored again. `now`: seconds since 1970."""
        if not self._filter:
            return ()
        likely = {each: name for name in ids if (each := self._hash(name)) in self._filter}
        if not likely:
            return ()
        found = db.execute(
            f"SELECT hash FROM tombstones WHERE hash IN ({','.join('?' * len(likely))})"
            " AND until > ?",
            (*likely, now),
        )
        return {likely[each] for (each,) in found}

    def bury(self, db: sqlite3.Connection, ids: Sequence[str], until: float) -> None:
        """Keep these ids out until then (seconds since 1970); inside the caller's transaction."""
        hashes = [self._hash(name) for name in ids]
        db.executemany(
            "INSERT INTO tombstones VALUES (?, ?)"
            " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
            [(each, int(until)) for each in hashes],
        )
        for each in hashes:
            self._filter.add(each)

    @property
    def any(self) -> bool:
        """Whether there is any, as far as is known without a look."""
        return bool(self._filter)

    def _hash(self, message_id: str) -> bytes:
        return keyed_hash(self._key, message_id.encode())[:HASH_BYTES]

    def _read(self, db: sqlite3.Connection, after: bytes) -> bytes | None:
        """Take in a piece of the table; return where the next begins, None at the end."""
        hashes = json_row(
            db,
            "SELECT json_group_array(hex(hash)) FROM"
            " (SELECT hash FROM tombstones WHERE hash > ? ORDER BY hash LIMIT ?)",
            (after, _PIECE),
        )
        for each in hashes:
            self._filter.add(bytes.fromhex(each))
        return bytes.fromhex(hashes[-1]) if len(hashes) == _PIECE else None


def forget(db: sqlite3.Connection, most: int, now: float) -> int:
    """Drop up to `most` tombstones whose time is over; return how many. In a transaction."""
    return db.execute(
        "DELETE FROM tombstones WHERE hash IN"
        " (SELECT hash FROM tombstones WHERE until <= ? ORDER BY until LIMIT ?)",
        (now, most),
    ).rowcount
