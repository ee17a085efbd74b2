"""All that a file has, for a database that takes it in."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreError, Unopenable
from ..moving import TABLES, Row, Table, Whole
from .files import lock
from .offline import require_current
from .sql import snapshot

_FROM = {
    "messages": "SELECT m.seq, message_id, from_msisdn, to_msisdn, ts, text, p.source, p.body,"
    " created_at FROM messages AS m LEFT JOIN payloads AS p ON p.seq = m.seq WHERE m.seq > ?"
    " ORDER BY m.seq LIMIT ?"
}


@contextmanager
def kept_off(path: Path) -> Iterator[None]:
    """Keep servers off a file. Unopenable when there is none, StoreError when one runs."""
    if not path.is_file():
        raise Unopenable(f"{path}: there is no such database")
    held = lock(path.resolve())
    try:
        yield
    finally:
        os.close(held)


def whole(db: sqlite3.Connection) -> Whole:
    """Return what there is beside the rows. StoreError while an erasure waits."""
    require_current(db)
    with snapshot(db):
        if db.execute("SELECT EXISTS (SELECT * FROM erasures)").fetchone()[0]:
            raise StoreError("an erasure waits in it: start a server on it until that is done")
        counts = {
            table.name: int(db.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0])
            for table in TABLES
        }
        last = {
            str(name): int(n) for name, n in db.execute("SELECT name, seq FROM sqlite_sequence")
        }
        keys = {str(name): bytes(key) for name, key in db.execute("SELECT name, key FROM keys")}
    return Whole(keys, counts, last)


def rows(db: sqlite3.Connection, table: Table, after: int | bytes, limit: int) -> list[Row]:
    """Return the next rows of a table."""
    sql = _FROM.get(
        table.name,
        f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {table.key} > ?"
        f" ORDER BY {table.key} LIMIT ?",
    )
    return db.execute(sql, (after, limit)).fetchall()
