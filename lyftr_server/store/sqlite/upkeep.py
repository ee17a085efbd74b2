"""What the writing connection does when there is time: the search index, the write-ahead log."""

import logging
import sqlite3
from typing import NamedTuple

from . import search
from .files import Files
from .sql import transaction

logger = logging.getLogger(__name__)

# The search index is brought up to date in idle moments, or once so many messages wait for it that
# searches notice (50,000: 10 to 70 ms).
FOLD_BACKLOG = 50_000
# So often an idle server looks whether somebody deleted messages by hand: their text must not stay.
LOOK_SECONDS = 30.0
# A WAL beyond this is not just waiting for its next automatic checkpoint: a reader held it open.
WAL_LIMIT_BYTES = 256 << 20
WAL_PATIENCE_MS = 50


class Kept(NamedTuple):
    """What a piece of upkeep did: the messages that the index took in, and whether more waits."""

    moved: int
    more: bool


def piece(db: sqlite3.Connection, files: Files, least_rows: int) -> Kept:
    """Do one piece; of the messages that wait for the index take in at least so many, if it can."""
    try:
        kept = _index(db, least_rows)
    except sqlite3.DatabaseError as error:
        if not damaged(error):
            raise
        start_over(db)
        kept = Kept(0, more=True)
    files.check()
    if (files.wal_bytes() or 0) > WAL_LIMIT_BYTES:
        _truncate_wal(db)
    return kept


def damaged(error: sqlite3.Error) -> bool:
    """Tell whether the error says that the search index is damaged, and not the database."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_CORRUPT_VTAB


def start_over(db: sqlite3.Connection) -> None:
    """Empty the search index: all that it had comes from the messages."""
    logger.error("the search index is damaged: building it anew")
    with transaction(db):
        search.forget(db)


def _index(db: sqlite3.Connection, least_rows: int) -> Kept:
    moved = search.fold(db, least_rows=least_rows)
    if moved:
        return Kept(moved, more=True)
    return Kept(0, more=search.merge(db) or search.deleted(db))


def _truncate_wal(db: sqlite3.Connection) -> None:
    """Empty the WAL, unless readers are in it for longer than a message may wait."""
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {WAL_PATIENCE_MS}")
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")
