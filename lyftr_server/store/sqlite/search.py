"""The upkeep of the search index, on the connection that writes.

An FTS5 trigram index over casefolded text covers the rows up to a watermark; fold() moves it in
bulks, when there is time. A search (see hits.py) adds what a scan finds above the watermark.
"""

import json
import sqlite3
import time

from .schema import FORGET_INDEX
from .sql import json_row, statements, transaction

# A bulk goes in piece by piece, so that it ends in time for a message that waits. What a piece
# costs goes by its characters, not its rows. FTS5 writes one segment each time; merging them is as
# much work again, and done in measured steps too: by itself FTS5 would merge 16 at once, and with
# 500 on one level it merges hundreds, which held everybody up for seconds. Merging for 1.5 times as
# long as the indexing took keeps fewer than ten on a level, however long the texts are.
PIECE_ROWS = 100
PIECE_CHARACTERS = 40_000
INDEX_SECONDS = 0.003
# As much as was just committed is taken in, if it fits in this: a backlog does not grow under load.
MOST_INDEX_SECONDS = 0.015
MERGE_SHARE = 1.5
IDLE_MERGE_SECONDS = 0.008
MERGE_PAGES = 16
# backlog() counts so many rows, and takes the difference of seqs for more.
COUNTED = 10_000


def fold(db: sqlite3.Connection, most_rows: int = 1000, least_rows: int = 0) -> int:
    """Let the index forget deleted rows and take in the next ones, in one transaction.

    Return how many rows the watermark passed: at most `most_rows`, and fewer when time is up, which
    comes later while they are not yet `least_rows`; 0 when the index is up to date.
    """
    start = time.monotonic()
    moved = 0
    with transaction(db):
        purged = _purge(db, start + INDEX_SECONDS)
        upto = watermark(db)
        while moved < most_rows and (not moved or _has_time(start, moved, least_rows)):
            rows = _next_rows(db, upto, min(PIECE_ROWS, most_rows - moved))
            if not rows:
                break
            _index(db, rows)
            moved += len(rows)
            upto = rows[-1][0]
        if moved:
            db.execute("UPDATE search_state SET watermark = ?", (upto,))
        if moved or purged:
            now = time.monotonic()
            _merge(db, now + MERGE_SHARE * (now - start))
    return moved


def _has_time(start: float, moved: int, least_rows: int) -> bool:
    seconds = MOST_INDEX_SECONDS if moved < least_rows else INDEX_SECONDS
    return time.monotonic() < start + seconds


def _next_rows(db: sqlite3.Connection, after: int, most_rows: int) -> list[tuple[int, str | None]]:
    """Return the rows after a seq that make a piece: at least one, if there is one."""
    return json_row(
        db,
        "SELECT json_group_array(json_array(seq, text)) FROM (SELECT seq, text,"
        " sum(size) OVER (ORDER BY seq) - size AS before"
        " FROM (SELECT seq, text, coalesce(length(text), 0) AS size"
        " FROM messages WHERE seq > ? ORDER BY seq LIMIT ?)) WHERE before < ?",
        (after, most_rows, PIECE_CHARACTERS),
    )


def merge(db: sqlite3.Connection) -> bool:
    """Merge segments of the index for some milliseconds; tell whether more is to do.

    fold() does about as much as it makes necessary. This is for idle moments.
    """
    with transaction(db):
        return _merge(db, time.monotonic() + IDLE_MERGE_SECONDS)


def deleted(db: sqlite3.Connection) -> bool:
    """Tell whether the index still knows the text of rows that are gone."""
    return bool(db.execute("SELECT EXISTS (SELECT * FROM search_deleted)").fetchone()[0])


def backlog(db: sqlite3.Connection) -> int:
    """Return how many rows the index does not cover yet: exact up to COUNTED, else by seq."""
    span, rows = db.execute(
        "WITH tail AS MATERIALIZED ("
        " SELECT watermark, (SELECT coalesce(max(seq), 0) FROM messages) - watermark AS span"
        " FROM search_state)"
        " SELECT span, CASE WHEN span <= ? THEN (SELECT count(*) FROM messages"
        " WHERE seq > watermark) END FROM tail",
        (COUNTED,),
    ).fetchone()
    return int(span if rows is None else rows)


def forget(db: sqlite3.Connection) -> None:
    """Empty the index, inside the caller's transaction; fold() fills it again."""
    for statement in statements(FORGET_INDEX):
        db.execute(statement)


def watermark(db: sqlite3.Connection) -> int:
    """Return up to which seq the index knows all rows."""
    (found,) = db.execute("SELECT watermark FROM search_state").fetchone()
    return int(found)


def _index(db: sqlite3.Connection, rows: list[tuple[int, str | None]]) -> None:
    folded = [(seq, text.casefold()) for seq, text in rows if text is not None]
    db.execute(
        "INSERT INTO search (rowid, text) SELECT value ->> 0, value ->> 1 FROM json_each(?)",
        (json.dumps(folded, ensure_ascii=False),),
    )


def _purge(db: sqlite3.Connection, until: float) -> bool:
    """Let the index forget deleted rows until then; tell whether there were any."""
    purged = False
    while rows := db.execute(
        "SELECT seq, text FROM (SELECT seq, text, sum(length(text)) OVER (ORDER BY seq)"
        " - length(text) AS before FROM (SELECT * FROM search_deleted ORDER BY seq LIMIT ?))"
        " WHERE before < ?",
        (PIECE_ROWS, PIECE_CHARACTERS),
    ).fetchall():
        # An index without content cannot look up what it knows of a row: it must be told.
        db.executemany(
            "INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?)",
            [(seq, text.casefold()) for seq, text in rows],
        )
        db.execute("DELETE FROM search_deleted WHERE seq <= ?", (rows[-1][0],))
        purged = True
        if time.monotonic() > until:
            break
    return purged


def _merge(db: sqlite3.Connection, until: float) -> bool:
    """Merge until then; tell whether more is to do. FTS5 changes fewer than two rows when not."""
    while True:
        before = db.total_changes
        db.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (MERGE_PAGES,))
        if db.total_changes - before < 2:
            return False
        if time.monotonic() >= until:
            return True
