"""Erasure: a person's messages, or one message, go until no byte of them is left in the files.

What is to go is written down first and crossed out last: an erasure goes on after a crash. Deleting
comes in pieces, between commits. Then the search index is merged, because FTS5 keeps what it has
forgotten until then, and the file is made anew (VACUUM): SQLite overwrites what it deletes
(secure_delete), but a page that was once split keeps copies of what moved away.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...records import Erased
from ..mentions import mentions
from . import search
from .sql import json_row, transaction
from .tombstones import Tombstones

PIECE_ROWS = 100
# Rows that are looked at for a recipient, or bodies for a number: some milliseconds.
SCAN_ROWS = 5_000
SCAN_BODIES = 200
MERGE_PAGES = 64


# In the place of whom it was about, once the rows are gone and only the files are to be emptied.
_ANYBODY = ""


class Erasure(NamedTuple):
    """What is to go: all of a person's, or one message."""

    id: int
    person: str | None
    message_id: str | None


def order(
    db: sqlite3.Connection, *, person: str | None = None, message_id: str | None = None
) -> int:
    """Write down what is to go; return the erasure's id."""
    with transaction(db):
        cursor = db.execute(
            "INSERT INTO erasures (person, message_id) VALUES (?, ?)", (person, message_id)
        )
    return int(cursor.lastrowid or 0)


def ordered(db: sqlite3.Connection) -> list[Erasure]:
    """Return what was written down and is not done."""
    found = db.execute("SELECT id, person, message_id FROM erasures ORDER BY id")
    return [Erasure(*row) for row in found]


class Eraser:
    """Carries out what is ordered at the moment. For the thread of the connection that writes."""

    def __init__(self, path: Path, tombstones: Tombstones, until: float) -> None:
        self.done: dict[int, Erased] = {}
        self._path = path
        self._tombstones = tombstones
        self._until = until  # how long repeats are kept out, in seconds since 1970
        self._pieces: Iterator[list[str]] | None = None

    def piece(self, db: sqlite3.Connection) -> list[str] | None:
        """Do one piece; return the ids of messages that went with it, None when all is done."""
        if self._pieces is None:
            self._pieces = self._all(db)
        try:
            return next(self._pieces, None)
        except BaseException:
            self._pieces = None  # it begins again, with what is left
            raise

    def _all(self, db: sqlite3.Connection) -> Iterator[list[str]]:
        erasures = ordered(db)
        for erasure in erasures:
            self.done.setdefault(erasure.id, Erased())
            if erasure.message_id == _ANYBODY:
                continue
            yield from self._messages(db, erasure)
            yield from self._bodies(db, erasure, "events", "seq")
            yield from self._bodies(db, erasure, "refused", "id")
        for _ in _forget_index(db):
            yield []
        ids = [(erasure.id,) for erasure in erasures]
        # Whom it was about must not stay either; that something is to go must, to the end.
        cross_out = "UPDATE erasures SET person = NULL, message_id = ? WHERE id = ?"
        db.executemany(cross_out, [(_ANYBODY, *each) for each in ids])
        make_anew(db, self._path)
        while not _emptied(db):
            yield []
        db.executemany("DELETE FROM erasures WHERE id = ?", ids)

    def _add(self, erasure: Erasure, **counts: int) -> None:
        done = self.done[erasure.id]
        self.done[erasure.id] = Erased(
            *(getattr(done, name) + counts.get(name, 0) for name in Erased._fields)
        )

    def _messages(self, db: sqlite3.Connection, erasure: Erasure) -> Iterator[list[str]]:
        """Delete messages. What is stored meanwhile stays: it came after the order."""
        (bound,) = db.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()
        for found in _found(db, erasure, bound):
            ids = [message_id for _, message_id in found]
            if ids:
                with transaction(db):
                    self._tombstones.bury(db, ids, self._until)
                    db.execute(
                        "DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))",
                        (json.dumps([seq for seq, _ in found]),),
                    )
                    events = db.execute(
                        "DELETE FROM events WHERE message_id IN (SELECT value FROM json_each(?))",
                        (json.dumps(ids, ensure_ascii=False),),
                    ).rowcount
                self._add(erasure, messages=len(ids), events=events)
            yield ids

    def _bodies(
        self, db: sqlite3.Connection, erasure: Erasure, table: str, key: str
    ) -> Iterator[list[str]]:
        """Delete the events or refused bodies that mention the person or the message."""
        pattern = mentions(erasure.person or erasure.message_id or "")
        (bound,) = db.execute(f"SELECT coalesce(max({key}), 0) FROM {table}").fetchone()
        after = 0
        while after < bound:
            rows = db.execute(
                f"SELECT {key}, message_id, CAST(body AS BLOB) FROM {table}"
                f" WHERE {key} > ? AND {key} <= ? ORDER BY {key} LIMIT ?",
                (after, bound, SCAN_BODIES),
            ).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            hits = [
                row_key
                for row_key, message_id, body in rows
                if pattern.search(body) or (message_id and message_id == erasure.message_id)
            ]
            if hits:
                db.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))",
                    (json.dumps(hits),),
                )
                self._add(erasure, **{table: len(hits)})
            yield []


def _found(db: sqlite3.Connection, erasure: Erasure, bound: int) -> Iterator[list[tuple[int, str]]]:
    """Yield (seq, message_id) of the rows to go, some at a time."""
    if erasure.message_id is not None:
        yield _rows(db, "message_id = ?", erasure.message_id)
        return
    by_sender = f"from_msisdn = ? AND seq <= ? LIMIT {PIECE_ROWS}"
    while found := _rows(db, by_sender, erasure.person, bound):
        yield found
    # No index has recipients: everything is looked at once.
    for after in range(0, bound, SCAN_ROWS):
        upto = min(bound, after + SCAN_ROWS)
        found = _rows(db, "to_msisdn = ? AND seq > ? AND seq <= ?", erasure.person, after, upto)
        for start in range(0, max(len(found), 1), PIECE_ROWS):
            yield found[start : start + PIECE_ROWS]


def _rows(db: sqlite3.Connection, where: str, *values: object) -> list[tuple[int, str]]:
    return json_row(
        db,
        "SELECT json_group_array(json_array(seq, message_id))"
        f" FROM (SELECT seq, message_id FROM messages WHERE {where})",
        values,
    )


def count(db: sqlite3.Connection, person: str) -> Erased:
    """Return how much an erasure of this person would take; it looks at everything."""
    (messages,) = db.execute(
        "SELECT count(*) FROM messages WHERE from_msisdn = ? OR to_msisdn = ?", (person, person)
    ).fetchone()
    pattern = mentions(person)
    found = [
        sum(
            pattern.search(body) is not None
            for (body,) in db.execute(f"SELECT CAST(body AS BLOB) FROM {table}")
        )
        for table in ("events", "refused")
    ]
    return Erased(messages, *found)


def _forget_index(db: sqlite3.Connection) -> Iterator[None]:
    """Make the search index forget what was deleted, to the last byte; a piece at a time.

    FTS5 writes down beside the old entries that they are gone, and drops both when the segments
    that hold them become one. The first negative rank asks for that, whatever their sizes.
    """
    while db.execute("SELECT EXISTS (SELECT * FROM search_deleted)").fetchone()[0]:
        search.fold(db)
        yield
    rank = -MERGE_PAGES
    while True:
        with transaction(db):
            before = db.total_changes
            db.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (rank,))
            if db.total_changes - before < 2:
                return
        rank = MERGE_PAGES
        yield


def make_anew(db: sqlite3.Connection, path: Path) -> None:
    """Write the whole file again. Nothing is committed meanwhile: seconds a million messages."""
    # The temporary copy is as large as the database: it belongs on the same disk, not on /tmp.
    folder = str(path.parent).replace("'", "''")
    db.execute(f"PRAGMA temp_store_directory = '{folder}'")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("VACUUM")


def _emptied(db: sqlite3.Connection) -> bool:
    """Empty the WAL, which still holds pages as they were; False while a reader is in it."""
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 50")
    try:
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")
    return not busy
