"""What the writing connection does when there is time: the search index, the write-ahead log."""

import sqlite3

from . import search
from .files import Files

# The search index is brought up to date in idle moments, or once so many messages wait for it that
# searches notice (50,000: 10 to 70 ms).
FOLD_BACKLOG = 50_000
# A WAL beyond this is not just waiting for its next automatic checkpoint: a reader held it open.
WAL_LIMIT_BYTES = 256 << 20
WAL_PATIENCE_MS = 50


def piece(db: sqlite3.Connection, files: Files) -> int:
    """Do one piece; return how many messages the search index took in, 0 when it has all."""
    moved = search.fold(db)
    files.check()
    if (files.wal_bytes() or 0) > WAL_LIMIT_BYTES:
        _truncate_wal(db)
    return moved


def _truncate_wal(db: sqlite3.Connection) -> None:
    """Empty the WAL, unless readers are in it for longer than a message may wait."""
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {WAL_PATIENCE_MS}")
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")
