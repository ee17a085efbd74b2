"""The database's schema, and the forward-only steps to it from each earlier version."""

import logging
import sqlite3

from ..errors import Unusable
from ..folding import folding_hash, folds_alike
from . import counts
from .sql import statements, transaction

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x4C594654  # "LYFT": which program a SQLite file belongs to

# 1: the messages. `seq` is the order of storing; AUTOINCREMENT never reuses one, so that what
# refers to a seq (the search index) cannot come to mean another row. `instant` is `ts` without
# its Z and trailing zeros: as text it sorts by time, to the nanosecond, from year 1 to 9999, which
# no 64-bit integer does.
MESSAGES = """
CREATE TABLE messages (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id  TEXT NOT NULL UNIQUE,
    from_msisdn TEXT NOT NULL,
    to_msisdn   TEXT NOT NULL,
    ts          TEXT NOT NULL,
    text        TEXT,
    created_at  INTEGER NOT NULL, -- microseconds since 1970, by the server's clock
    instant     TEXT NOT NULL GENERATED ALWAYS AS (
        CASE WHEN instr(ts, '.') THEN rtrim(rtrim(rtrim(ts, 'Z'), '0'), '.') ELSE rtrim(ts, 'Z') END
    ) VIRTUAL
) STRICT;

CREATE INDEX messages_by_instant ON messages (instant, message_id);
CREATE INDEX messages_by_sender ON messages (from_msisdn, instant, message_id);

CREATE TRIGGER messages_are_immutable BEFORE UPDATE ON messages BEGIN
    SELECT RAISE(ABORT, 'messages are immutable: delete the row and insert another');
END;

-- one row that the readiness probe writes
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT;
INSERT INTO probe VALUES (1, 0);

-- random keys of this database (page cursors are signed with one)
CREATE TABLE keys (name TEXT PRIMARY KEY, key BLOB NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO keys VALUES ('cursor', randomblob(32));
"""

# 3: the search index over casefolded text. It covers the rows up to `search_state.watermark`; rows
# deleted from that range wait in `search_deleted` until the index has forgotten them. `unicode` is
# the hash of the case folding (0.1.0 had the version of Unicode): another Python may fold some
# letters another way.
SEARCH = """
CREATE VIRTUAL TABLE search USING fts5(
    text, content = '', columnsize = 0, tokenize = 'trigram case_sensitive 1'
);
-- No merging at a time of FTS5's own choice: search.py does it in steps, of eight segments or more.
INSERT INTO search (search, rank) VALUES ('automerge', 0);
INSERT INTO search (search, rank) VALUES ('crisismerge', 500);
INSERT INTO search (search, rank) VALUES ('usermerge', 8);
CREATE TABLE search_state (
    id INTEGER PRIMARY KEY CHECK (id = 1), watermark INTEGER NOT NULL, unicode TEXT NOT NULL
) STRICT;
INSERT INTO search_state VALUES (1, 0, '');
CREATE TABLE search_deleted (seq INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
CREATE TRIGGER messages_search_delete AFTER DELETE ON messages
WHEN old.text IS NOT NULL AND old.seq <= (SELECT watermark FROM search_state) BEGIN
    INSERT INTO search_deleted VALUES (old.seq, old.text);
END;
CREATE TRIGGER messages_search_insert AFTER INSERT ON messages
WHEN new.seq <= (SELECT watermark FROM search_state) BEGIN
    SELECT RAISE(ABORT, 'seq is the order of storing: leave it out');
END;
"""

FORGET_INDEX = """
INSERT INTO search (search) VALUES ('delete-all');
DELETE FROM search_deleted;
UPDATE search_state SET watermark = 0;
"""

# 4: what other senders bring, and what was refused.
DELIVERIES = """
-- By hand, INSERT OR REPLACE would replace a row without firing the triggers that count it.
CREATE TRIGGER messages_known BEFORE INSERT ON messages
WHEN EXISTS (SELECT 1 FROM messages WHERE message_id = new.message_id) BEGIN
    SELECT RAISE(IGNORE);
END;

-- Of a message that did not come in our own format: who sent it, and its own JSON as it came.
CREATE TABLE payloads (
    seq INTEGER PRIMARY KEY, -- the message's
    source TEXT NOT NULL, body TEXT
) STRICT;
CREATE TRIGGER messages_payload_delete AFTER DELETE ON messages BEGIN
    DELETE FROM payloads WHERE seq = old.seq;
END;

-- What was signed and is no message. `hash`: of source and body, which are its identity.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    source TEXT NOT NULL, kind TEXT NOT NULL, message_id TEXT, body TEXT NOT NULL,
    created_at INTEGER NOT NULL -- microseconds since 1970, by the server's clock
) STRICT;
CREATE INDEX events_by_time ON events (created_at, seq);
CREATE INDEX events_by_kind ON events (kind, created_at, seq);
CREATE INDEX events_by_message ON events (message_id, created_at, seq)
    WHERE message_id IS NOT NULL;

-- Signed bodies that could not be stored as asked; the oldest make room for the newest.
CREATE TABLE refused (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    source TEXT NOT NULL, result TEXT NOT NULL, request_id TEXT NOT NULL, message_id TEXT,
    detail TEXT NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE refused_totals (
    id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL, size INTEGER NOT NULL
) STRICT;
INSERT INTO refused_totals VALUES (1, 0, 0);
CREATE TRIGGER refused_insert AFTER INSERT ON refused BEGIN
    UPDATE refused_totals SET n = n + 1, size = size + new.size;
END;
CREATE TRIGGER refused_delete AFTER DELETE ON refused BEGIN
    UPDATE refused_totals SET n = n - 1, size = size - old.size;
END;
"""

# 5: what must not come back (see tombstones.py), and what is to go (see erasure.py) until it is.
KEEPING_LESS = """
CREATE TABLE tombstones (
    hash BLOB PRIMARY KEY, until INTEGER NOT NULL -- seconds since 1970
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_until ON tombstones (until);
INSERT INTO keys VALUES ('tombstone', randomblob(32));
CREATE TABLE erasures (
    id INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT, message_id TEXT,
    CHECK ((person IS NULL) <> (message_id IS NULL))
) STRICT;
"""

# STEPS[n] brings version n to n + 1. A released step never changes.
STEPS = (
    MESSAGES,
    counts.COUNTS + counts.RECOUNT + counts.COUNT_TRIGGERS,
    SEARCH,
    DELIVERIES,
    KEEPING_LESS,
    counts.WATERMARK,
)
VERSION = len(STEPS)


class NewerDatabase(Unusable):
    """A later version of this program wrote the database."""


class ForeignDatabase(Unusable):
    """The file is another program's database."""


def check(db: sqlite3.Connection) -> int:
    """Return the schema's version, 0 for an empty file; raise NewerDatabase, ForeignDatabase.

    Reads only. A file that is no database raises sqlite3.DatabaseError.
    """
    version = _pragma(db, "user_version")
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    ours = _pragma(db, "application_id") == APPLICATION_ID
    if not ours and (version or tables):
        raise ForeignDatabase("the database belongs to another program")
    if version > VERSION:
        raise NewerDatabase(
            f"the database has schema version {version}, and this program knows none after"
            f" {VERSION}: install a later one"
        )
    return version


def migrate(db: sqlite3.Connection) -> None:
    """Bring the database to this version, each step and its number in one transaction."""
    created = check(db) == 0
    if created:
        # Said before the first table, or never, and in this order. A message dirties a page of each
        # index, whatever its size: of half of SQLite's usual size, a third less is written. And
        # what is deleted can go back to the file system.
        db.execute("PRAGMA page_size = 2048")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    while (version := check(db)) < VERSION:
        _step(db, version, quiet=created)
    follow_folding(db)


def _step(db: sqlite3.Connection, version: int, *, quiet: bool) -> None:
    with transaction(db):
        if check(db) != version:  # another process was faster
            return
        if not quiet:
            (rows,) = db.execute("SELECT count(*) FROM messages").fetchone()
            logger.info(
                "migrating %d messages from schema version %d to %d", rows, version, version + 1
            )
        for statement in statements(STEPS[version]):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version + 1}")
    if not quiet:
        logger.info("migrated to schema version %d", version + 1)


def follow_folding(db: sqlite3.Connection) -> None:
    """Empty the search index if it was made with another folding of letters than ours."""
    ours = folding_hash()
    found, watermark = db.execute("SELECT unicode, watermark FROM search_state").fetchone()
    if found == ours:
        return
    with transaction(db):
        if watermark and not folds_alike(found):
            logger.info("building the search index anew: letters are folded in another way")
            for statement in statements(FORGET_INDEX):
                db.execute(statement)
        db.execute("UPDATE search_state SET unicode = ?", (ours,))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return int(value)
