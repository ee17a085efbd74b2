"""What a server does to a database as it opens it, and what a failure of that means."""

import errno
import logging
import sqlite3
from pathlib import Path
from typing import NamedTuple

from ..errors import Unopenable, Unusable
from . import counts, schema, search, verify

logger = logging.getLogger(__name__)

# STRICT tables came with 3.37, -> and ->> for JSON with 3.38.
LEAST_SQLITE = (3, 38, 0)


class Standing(NamedTuple):
    """How many messages the counts and the search index do not have yet."""

    uncounted: int
    unfolded: int


def require_sqlite() -> None:
    """Raise Unusable for a library that is too old."""
    if sqlite3.sqlite_version_info < LEAST_SQLITE:
        least = ".".join(map(str, LEAST_SQLITE))
        msg = f"this Python has SQLite {sqlite3.sqlite_version}, and {least} is needed"
        raise Unusable(msg)


def prepare(db: sqlite3.Connection) -> int:
    """Bring a database to this version, make it durable, and count anew what does not fit.

    Returns its page size in bytes.
    """
    schema.migrate(db)
    _make_durable(db)
    _repair_counts(db)
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    return int(page_bytes)


def find(db: sqlite3.Connection) -> Standing:
    """Return where a database stands."""
    return Standing(counts.waiting(db), search.backlog(db))


def _make_durable(db: sqlite3.Connection) -> None:
    # After migrate: until then nothing may be written, to a database that is not ours least of all.
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unusable(f"the file system allows no write-ahead log (journal mode {mode})")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()  # see checkpoints.py
    # What is deleted is overwritten; an insert pays nothing for it.
    db.execute("PRAGMA secure_delete = ON").fetchall()


def _repair_counts(db: sqlite3.Connection) -> None:
    """Count anew what does not fit, after INSERT OR REPLACE by hand for one."""
    if not verify.counts_fit(db):
        logger.warning("the counts do not fit the messages: counting anew")
        counts.recount(db, lambda step: logger.info("counting anew: %s", step))


# What only a person can mend; a lock or an I/O error may pass by itself.
_LASTING_CODES = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
}
_LASTING = (
    Unusable,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_LASTING_ERRNOS = {errno.ELOOP, errno.ENAMETOOLONG}


def unopenable(path: Path, error: Exception) -> Unopenable:
    """Return what tells whether a failed start may be tried again."""
    code = getattr(error, "sqlite_errorcode", None)
    lasting = (
        isinstance(error, _LASTING)
        or getattr(error, "errno", None) in _LASTING_ERRNOS
        or (code is not None and code & 0xFF in _LASTING_CODES)
    )
    return (Unusable if lasting else Unopenable)(f"{path}: {error}")
