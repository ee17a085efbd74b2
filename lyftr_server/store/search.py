"""The search index: which messages contain q, exactly, while messages keep coming.

An FTS5 trigram index over casefolded text covers the rows up to a watermark; fold() moves it in
bulks, when there is time. A search adds what a scan finds above the watermark.
"""

import json
import sqlite3
import time

from .sql import json_row, transaction

# A bulk goes in piece by piece, so that it can end in time for a message that waits.
PIECE_ROWS = 100
FOLD_SECONDS = 0.010
COUNTED = 10_000


def fold(db: sqlite3.Connection, most_rows: int = 1000) -> int:
    """Let the index forget deleted rows and take in the next ones, in one transaction.

    Return how many rows the watermark passed: at most `most_rows`, and fewer when time is up;
    0 when the index is up to date.
    """
    until = time.monotonic() + FOLD_SECONDS
    moved = 0
    with transaction(db):
        _purge(db, until)
        watermark = start = _watermark(db)
        while moved < most_rows:
            rows = json_row(
                db,
                "SELECT json_group_array(json_array(seq, text)) FROM (SELECT seq, text"
                " FROM messages WHERE seq > ? ORDER BY seq LIMIT ?)",
                (watermark, min(PIECE_ROWS, most_rows - moved)),
            )
            if not rows:
                break
            _index(db, rows)
            moved += len(rows)
            watermark = rows[-1][0]
            if time.monotonic() > until:
                break
        if watermark != start:
            db.execute("UPDATE search_state SET watermark = ?", (watermark,))
    return moved


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


def _watermark(db: sqlite3.Connection) -> int:
    (watermark,) = db.execute("SELECT watermark FROM search_state").fetchone()
    return int(watermark)


def _index(db: sqlite3.Connection, rows: list[tuple[int, str | None]]) -> None:
    folded = [(seq, text.casefold()) for seq, text in rows if text is not None]
    db.execute(
        "INSERT INTO search (rowid, text) SELECT value ->> 0, value ->> 1 FROM json_each(?)",
        (json.dumps(folded, ensure_ascii=False),),
    )


def _purge(db: sqlite3.Connection, until: float) -> None:
    while rows := db.execute(
        "SELECT seq, text FROM search_deleted ORDER BY seq LIMIT ?", (PIECE_ROWS,)
    ).fetchall():
        # An index without content cannot look up what it knows of a row: it must be told.
        db.executemany(
            "INSERT INTO search (search, rowid, text) VALUES ('delete', ?, ?)",
            [(seq, text.casefold()) for seq, text in rows],
        )
        db.execute("DELETE FROM search_deleted WHERE seq <= ?", (rows[-1][0],))
        if time.monotonic() > until:
            break
