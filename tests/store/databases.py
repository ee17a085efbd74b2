"""Real database files for the tests of the store's plain functions."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lyftr_server.records import Message
from lyftr_server.store.sqlite import counts, schema, search

MINUTE_US = 60_000_000


@contextmanager
def database(path: Path, *, migrate: bool = True) -> Iterator[sqlite3.Connection]:
    """Open a file as the writer does, without syncs."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = OFF")
        if migrate:
            schema.migrate(db)
            _make_senders_busy(db)
        yield db
    finally:
        db.close()


def _make_senders_busy(db: sqlite3.Connection) -> None:
    """Count by day from three messages of a sender on, so that a few rows take every path.

    Not of one that has come to so many at once, and now loses some: with BUSY there is none.
    """
    name = "sender_counts_by_day"
    (sql,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    db.execute(f"DROP TRIGGER {name}")
    db.execute(sql.replace(f">= {counts.BUSY}", ">= 3 AND new.n > old.n"))


@contextmanager
def reader(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    try:
        yield db
    finally:
        db.close()


def insert(
    db: sqlite3.Connection, messages: Sequence[Message], now_us: int = 0, *, count: bool = True
) -> None:
    """Insert as the writer does: one statement, which leaves repeats out."""
    db.execute(
        "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)"
        f" VALUES {','.join(['(?,?,?,?,?,?)'] * len(messages))}"
        " ON CONFLICT (message_id) DO NOTHING",
        [value for message in messages for value in (*message, now_us)],
    )
    if count:
        count_all(db)


def message(
    message_id: str = "m1",
    sender: str = "+1",
    recipient: str = "+2",
    ts: str = "2025-01-15T10:00:00Z",
    text: str | None = "Hello",
) -> Message:
    return Message(message_id, sender, recipient, ts, text)


def texts(*values: str | None) -> list[Message]:
    """Return a message for each text, in the listing's order."""
    return [message(f"m{n:04d}", text=value) for n, value in enumerate(values)]


def count_all(db: sqlite3.Connection) -> None:
    while counts.fold(db):
        pass


def fold_all(db: sqlite3.Connection) -> None:
    while search.fold(db):
        pass


def go_on() -> bool:
    """Never stop."""
    return False
