"""Small helpers over a sqlite3.Connection in autocommit mode (isolation_level=None)."""

import json
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ...records import Message
from ..errors import Stopped

T = TypeVar("T")

# Asked between bounded pieces of a long read: True when nobody waits for the answer any more.
Stop = Callable[[], bool]
# A long read: it yields between its pieces, where it has no snapshot open and another reader may
# have the connection, and returns its answer.
Pieces = Generator[None, None, T]
# One that yields rows as well, when it has some.
Chunks = Generator[list[Message] | None, None, None]


def answer(pieces: Pieces[T], stop: Stop) -> T:
    """Do a long read piece by piece; Stopped."""
    while True:
        if stop():
            raise Stopped
        try:
            next(pieces)
        except StopIteration as end:
            found: T = end.value
            return found


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: all or nothing."""
    with _between(db, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """One read transaction: every statement in it sees the same rows.

    Keep it short: the WAL cannot be reset while one is open.
    """
    with _between(db, "BEGIN"):
        yield


@contextmanager
def _between(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    finally:
        # An error such as a full disk may have ended the transaction already.
        if db.in_transaction:
            db.execute("ROLLBACK")


def json_row(db: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[Any]:
    """Return the JSON array that `sql` makes of many rows.

    Every row that SQLite hands to Python gives up the GIL and may wait 5 ms to get it back from a
    busy event loop; so many rows come as one.
    """
    row = db.execute(sql, parameters).fetchone()
    found: list[Any] = json.loads(row[0])
    return found


def statements(script: str) -> Iterator[str]:
    """Split a script. sqlite3's own executescript() would commit before it starts."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
