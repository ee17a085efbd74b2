"""The search index: which messages contain q, exactly, while messages keep coming.

An FTS5 trigram index over casefolded text covers the rows up to a watermark; fold() moves it in
bulks, when there is time. A search adds what a scan finds above the watermark. With the positions
that detail=full keeps, a phrase of trigrams is a substring, and no match needs a second look.
"""

import json
import sqlite3
import time
from typing import Any, NamedTuple

from .letters import CONFUSED, condition
from .listing import Scope
from .schema import FORGET_INDEX
from .sql import json_row, snapshot, statements, transaction

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

# How many rows of the table a piece of a search covers at most: that the index looks through, that
# a scan reads, and that a scan hands over to be folded here. Within that it goes by measured time.
INDEX_ROWS = 2_000_000
SCAN_ROWS = 100_000
FOLD_ROWS = 2_000
# The index looks for longer phrases by their two ends, and their texts are looked at: what a phrase
# costs it grows with its length and the text's, to a minute for 256 equal letters in such texts.
PHRASE = 16
PHRASE_END = 6
CANDIDATES = 200


class Piece(NamedTuple):
    """What one piece of a search found: the rows after one seq, up to `upto`."""

    upto: int
    n: int
    seqs: list[int] | None  # None: more than were asked for


def piece(
    db: sqlite3.Connection,
    folded: str,
    scope: Scope,
    after: int,
    bound: int,
    most: int,
    rows: int = INDEX_ROWS,
) -> Piece:
    """Find rows of the scope that contain `folded`, with seq in after + 1 .. bound or a part of it.

    The part has at most `rows`.
    Their seqs come too unless there are more than `most`. Rows never change and get ever larger
    seqs; so a search made of pieces, each a short snapshot, is exact for the moment of `bound`.
    """
    with snapshot(db):
        (first,) = db.execute("SELECT min(seq) FROM messages WHERE seq > ?", (after,)).fetchone()
        if first is None:
            return Piece(bound, 0, [])
        # A row that somebody gave a far seq by hand leaves a gap of any size.
        after = max(after, min(first - 1, bound))
        watermark = _watermark(db)
        if indexed(folded) and after < watermark:
            upto = min(bound, watermark, after + min(rows, INDEX_ROWS))
            if len(folded) > PHRASE:
                return _look_up_and_see(db, folded, scope, after, upto, most)
            return _look_up(db, folded, scope, after, upto, most)
        return _scan(db, folded, scope, after, bound, most, rows)


def indexed(folded: str) -> bool:
    """Tell whether the index knows which texts contain `folded`."""
    return len(folded) >= 3 and CONFUSED.isdisjoint(folded)


def _look_up(
    db: sqlite3.Connection, folded: str, scope: Scope, after: int, upto: int, most: int
) -> Piece:
    join, where = "", "true"
    values: list[Any] = []
    if scope != Scope():
        join = "CROSS JOIN messages ON messages.seq = search.rowid"
        where, values = scope.where("instant >= ? AND instant < ?", scope.since, scope.until)
    elif deleted(db):
        where = "search.rowid NOT IN (SELECT seq FROM search_deleted)"
    found = (
        f"SELECT search.rowid AS seq FROM search {join}"
        f" WHERE search MATCH ? AND search.rowid > ? AND search.rowid <= ? AND {where}"
    )
    return _collect(db, found, [_phrase(folded), after, upto, *values], upto, most)


def _look_up_and_see(
    db: sqlite3.Connection, folded: str, scope: Scope, after: int, upto: int, most: int
) -> Piece:
    """Look up both ends of the phrase, and look at the texts that have them."""
    ends = {_phrase(folded[:PHRASE_END]), _phrase(folded[-PHRASE_END:])}
    where, values = scope.where("instant >= ? AND instant < ?", scope.since, scope.until)
    candidates = json_row(
        db,
        "SELECT json_group_array(json_array(seq, text)) FROM (SELECT messages.seq,"
        " messages.text FROM search CROSS JOIN messages ON messages.seq = search.rowid"
        " WHERE search MATCH ?"
        f" AND search.rowid > ? AND search.rowid <= ? AND {where} ORDER BY search.rowid LIMIT ?)",
        (" AND ".join(sorted(ends)), after, upto, *values, CANDIDATES),
    )
    if len(candidates) == CANDIDATES:
        upto = candidates[-1][0]
    seqs = containing(candidates, folded)
    return Piece(upto, len(seqs), seqs if len(seqs) <= most else None)


def _phrase(folded: str) -> str:
    return '"' + folded.replace('"', '""') + '"'


def _scan(
    db: sqlite3.Connection,
    folded: str,
    scope: Scope,
    after: int,
    bound: int,
    most: int,
    rows: int,
) -> Piece:
    sql, letters, exact = condition(folded)
    upto = min(bound, after + min(rows, SCAN_ROWS if exact else FOLD_ROWS))
    where = "true"
    values: list[Any] = []
    if scope != Scope():
        where, values = scope.where("instant >= ? AND instant < ?", scope.since, scope.until)
    found = (
        "SELECT seq, text FROM messages NOT INDEXED"
        f" WHERE seq > ? AND seq <= ? AND ({sql}) AND {where}"
    )
    parameters = [after, upto, *letters, *values]
    if exact:
        return _collect(db, found, parameters, upto, most)
    candidates = json_row(
        db, f"SELECT json_group_array(json_array(seq, text)) FROM ({found})", parameters
    )
    seqs = containing(candidates, folded)
    return Piece(upto, len(seqs), seqs if len(seqs) <= most else None)


def containing(candidates: list[tuple[int, str]], folded: str) -> list[int]:
    """Return the seqs of the candidates that do match."""
    return [seq for seq, text in candidates if folded in text.casefold()]


def _collect(
    db: sqlite3.Connection, found: str, parameters: list[Any], upto: int, most: int
) -> Piece:
    if most:
        count, seqs = db.execute(
            f"SELECT count(*), json_group_array(seq) FROM (SELECT seq FROM ({found}) LIMIT ?)",
            (*parameters, most + 1),
        ).fetchone()
        if count <= most:
            return Piece(upto, count, json.loads(seqs))
    (count,) = db.execute(f"SELECT count(*) FROM ({found})", parameters).fetchone()
    return Piece(upto, count, None)


# -- upkeep, on the connection that writes


def fold(db: sqlite3.Connection, most_rows: int = 1000, least_rows: int = 0) -> int:
    """Let the index forget deleted rows and take in the next ones, in one transaction.

    Return how many rows the watermark passed: at most `most_rows`, and fewer when time is up, which
    comes later while they are not yet `least_rows`; 0 when the index is up to date.
    """
    start = time.monotonic()
    moved = 0
    with transaction(db):
        purged = _purge(db, start + INDEX_SECONDS)
        watermark = _watermark(db)
        while moved < most_rows and (not moved or _has_time(start, moved, least_rows)):
            rows = _next_rows(db, watermark, min(PIECE_ROWS, most_rows - moved))
            if not rows:
                break
            _index(db, rows)
            moved += len(rows)
            watermark = rows[-1][0]
        if moved:
            db.execute("UPDATE search_state SET watermark = ?", (watermark,))
        if moved or purged:
            now = time.monotonic()
            _merge(db, now + MERGE_SHARE * (now - start))
    return moved


def _has_time(start: float, moved: int, least_rows: int) -> bool:
    seconds = MOST_INDEX_SECONDS if moved < least_rows else INDEX_SECONDS
    return time.monotonic() < start + seconds


def _next_rows(
    db: sqlite3.Connection, watermark: int, most_rows: int
) -> list[tuple[int, str | None]]:
    """Return the rows after the watermark that make a piece: at least one, if there is one."""
    return json_row(
        db,
        "SELECT json_group_array(json_array(seq, text)) FROM (SELECT seq, text,"
        " sum(size) OVER (ORDER BY seq) - size AS before"
        " FROM (SELECT seq, text, coalesce(length(text), 0) AS size"
        " FROM messages WHERE seq > ? ORDER BY seq LIMIT ?)) WHERE before < ?",
        (watermark, most_rows, PIECE_CHARACTERS),
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


def _watermark(db: sqlite3.Connection) -> int:
    (watermark,) = db.execute("SELECT watermark FROM search_state").fetchone()
    return int(watermark)


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
