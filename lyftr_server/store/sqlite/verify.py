"""Recounts everything that the database derives from its messages, and can derive it anew."""

import sqlite3
from collections.abc import Callable, Iterator

from . import search
from .counts import BUSY, recount
from .schema import follow_folding
from .sql import json_row, snapshot, transaction
from .tombstones import HASH_BYTES, Tombstones

# counts_fit() counts the rows of a table up to this size, and samples hours of a larger one.
COUNTED_ROWS = 500_000
SAMPLED_HOURS = 50
# Of texts, which take up to 16 KB each.
PIECE_ROWS = 500

# Those that the counts know.
_COUNTED = "messages WHERE seq <= (SELECT seq FROM counted)"
# A count table's name, and what it must hold.
_RECOUNTS = (
    ("hour_counts", "hour, n", f"substr(instant, 1, 13), count(*) FROM {_COUNTED} GROUP BY 1"),
    ("day_counts", "day, n", f"substr(instant, 1, 10), count(*) FROM {_COUNTED} GROUP BY 1"),
    ("sender_counts", "from_msisdn, n", f"from_msisdn, count(*) FROM {_COUNTED} GROUP BY 1"),
    (
        "sender_day_counts",
        "from_msisdn, day, n",
        f"from_msisdn, substr(instant, 1, 10), count(*) FROM {_COUNTED} AND from_msisdn IN"
        " (SELECT from_msisdn FROM sender_counts WHERE by_day) GROUP BY 1, 2",
    ),
    ("recipient_counts", "to_msisdn, n", f"to_msisdn, count(*) FROM {_COUNTED} GROUP BY 1"),
    (
        "stored_minute_counts",
        "minute, n",
        f"created_at / 60000000, count(*) FROM {_COUNTED} GROUP BY 1",
    ),
    (
        "distinct_counts",
        "what, n",
        f"'senders', count(DISTINCT from_msisdn) FROM {_COUNTED}"
        f" UNION ALL SELECT 'recipients', count(DISTINCT to_msisdn) FROM {_COUNTED}",
    ),
)

# What the search index has beside it: each query finds the rows that are wrong.
_INDEX_PROMISES = (
    (
        "search_deleted has a row that exists, or that the index does not know",
        "SELECT seq FROM search_deleted WHERE seq IN (SELECT seq FROM messages)"
        " OR seq > (SELECT watermark FROM search_state)",
    ),
    (
        "the search index's watermark lies above every seq",
        "SELECT * FROM search_state WHERE watermark >"
        " (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages')",
    ),
)

# Promises of derived rows that are no counts: each query finds the rows that break one.
_PROMISES = (
    (
        "sender_counts.rank_floor is out of its bounds",
        "SELECT * FROM sender_counts WHERE rank_floor > n OR n >= 2 * rank_floor",
    ),
    (
        "a busy sender is not counted by day",
        f"SELECT * FROM sender_counts WHERE n >= {BUSY} AND NOT by_day",
    ),
    (
        "stored_minute_counts does not bound the rows of its minute",
        "SELECT created_at / 60000000 AS at, min(seq) AS first, max(seq) AS last"
        f" FROM {_COUNTED}"
        " GROUP BY 1 HAVING EXISTS (SELECT * FROM stored_minute_counts WHERE minute = at"
        " AND (first_seq > first OR last_seq < last))",
    ),
    (
        "the counts know messages above every seq",
        "SELECT * FROM counted WHERE seq >"
        " (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages')",
    ),
    *_INDEX_PROMISES,
)


def problems(db: sqlite3.Connection, deep: bool) -> Iterator[str]:
    """Yield what is wrong, in words: pages, indexes, counts and, if deep, the search index.

    Reads only. A million rows take some ten seconds, and deep ten times as long.
    """
    try:
        with snapshot(db):
            yield from _problems(db, deep)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        yield f"cannot be read any further: {error}"


def _problems(db: sqlite3.Connection, deep: bool) -> Iterator[str]:
    for (said,) in db.execute("PRAGMA integrity_check").fetchall():
        if said != "ok":
            yield str(said)
    for table, columns, wanted in _RECOUNTS:
        wrong, missing = _compare(db, f"SELECT {columns} FROM {table}", f"SELECT {wanted}")
        if wrong or missing:
            yield f"{table}: {wrong} rows are wrong, {missing} are missing"
    yield from _tombstones(db)
    for promise, broken in _PROMISES:
        if db.execute(f"SELECT EXISTS ({broken})").fetchone()[0]:
            yield promise
    if deep and not _index_fits(db):
        yield "the search index does not fit the texts"


def _tombstones(db: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong with what must not come back."""
    hashes = f"typeof(hash) <> 'blob' OR length(hash) <> {HASH_BYTES}"
    (odd,) = db.execute(f"SELECT count(*) FROM tombstones WHERE {hashes}").fetchone()
    if odd:
        yield f"tombstones: {odd} rows are no keyed hashes"
    tombstones = Tombstones.opened(db)
    if tombstones is None:
        yield "keys has no key for the tombstones: what is buried is not known again"
    elif risen := sum(_risen(db, tombstones)):
        yield f"{risen} messages are stored that were buried then"


def _risen(db: sqlite3.Connection, tombstones: Tombstones) -> Iterator[int]:
    """Yield how many messages were stored while a tombstone kept them out, piece by piece."""
    after = 0
    while tombstones.any and (
        rows := json_row(
            db,
            "SELECT json_group_array(json_array(seq, message_id, created_at)) FROM (SELECT * FROM"
            " messages WHERE seq > ? ORDER BY seq LIMIT ?)",
            (after, PIECE_ROWS),
        )
    ):
        after = rows[-1][0]
        # A second later: the clock is asked once for a batch, and once for the tombstones.
        times = {message_id: created_at / 1e6 + 1 for _, message_id, created_at in rows}
        found = tombstones.buried(db, times, min(times.values()))
        yield sum(bool(tombstones.buried(db, [name], times[name])) for name in found)


def figures(db: sqlite3.Connection) -> str:
    """Return how much there is beside the messages, in words."""
    (buried,) = db.execute("SELECT count(*) FROM tombstones").fetchone()
    free, pages, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("freelist_count", "page_count", "page_size")
    )
    return f"{buried} tombstones; {free} of {pages} pages are free ({free * size / 1e6:,.1f} MB)"


def _compare(db: sqlite3.Connection, stored: str, counted: str) -> tuple[int, int]:
    """Return how many rows only the first query has, and how many only the second."""
    # Once and for both directions; a reader can write temporary tables.
    db.execute(f"CREATE TEMP TABLE recount AS {counted}")
    try:
        recount = "SELECT * FROM temp.recount"
        wrong, missing = db.execute(
            f"SELECT (SELECT count(*) FROM ({stored} EXCEPT {recount})),"
            f" (SELECT count(*) FROM ({recount} EXCEPT {stored}))"
        ).fetchone()
        return wrong, missing
    finally:
        db.execute("DROP TABLE temp.recount")


def counts_fit(db: sqlite3.Connection) -> bool:
    """Tell quickly, as a server starts, whether the counts fit the rows as far as one can see.

    Up to COUNTED_ROWS the rows are counted. In a larger table only some hours are, at random: that
    finds what went wrong on a large scale, and not one row that was replaced by hand. `problems`
    finds everything.
    """
    with snapshot(db):
        sums = db.execute(
            "SELECT coalesce(sum(n), 0) FROM day_counts"
            " UNION SELECT coalesce(sum(n), 0) FROM hour_counts"
            " UNION SELECT coalesce(sum(n), 0) FROM sender_counts"
            " UNION SELECT coalesce(sum(n), 0) FROM recipient_counts"
            " UNION SELECT coalesce(sum(n), 0) FROM stored_minute_counts"
        ).fetchall()
        if len(sums) != 1:
            return False
        ((total,),) = sums
        if total <= COUNTED_ROWS:
            (rows,) = db.execute(f"SELECT count(*) FROM {_COUNTED}").fetchone()
            return bool(rows == total)
        (odd,) = db.execute(
            "SELECT count(*) FROM (SELECT hour, n FROM hour_counts ORDER BY random() LIMIT ?)"
            " WHERE n <> (SELECT count(*) FROM messages INDEXED BY messages_by_instant"
            " WHERE instant >= hour AND instant < hour || ';'"
            " AND seq <= (SELECT seq FROM counted))",
            (SAMPLED_HOURS,),
        ).fetchone()
        return not odd


def rebuild(db: sqlite3.Connection, progress: Callable[[str], None]) -> None:
    """Derive anew all counts, and empty the search index if it is wrong; fold() fills it again."""
    recount(db, progress)
    follow_folding(db)
    progress("comparing the search index with the texts")
    if not _index_is_right(db):
        progress("emptying the search index")
        with transaction(db):
            search.forget(db)


def _index_is_right(db: sqlite3.Connection) -> bool:
    try:
        broken = any(
            db.execute(f"SELECT EXISTS ({broken})").fetchone()[0] for _, broken in _INDEX_PROMISES
        )
        return not broken and _index_fits(db)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT_VTAB:
            raise
        return False


def _index_fits(db: sqlite3.Connection) -> bool:
    """Compare the index with one made anew from the same texts, by a sum over all it holds."""
    db.execute(
        "CREATE VIRTUAL TABLE temp.verify_search USING fts5("
        "text, content = '', columnsize = 0, tokenize = 'trigram case_sensitive 1')"
    )
    try:
        _fill(db)
        found, wanted = (_sum_of_index(db, *name) for name in _INDEXES)
        return found == wanted
    finally:
        db.execute("DROP TABLE temp.verify_search")


_INDEXES = (("main", "search"), ("temp", "verify_search"))


def _fill(db: sqlite3.Connection) -> None:
    after = 0
    while rows := json_row(
        db,
        "SELECT json_group_array(json_array(seq, text)) FROM (SELECT seq, text FROM ("
        " SELECT seq, text FROM messages WHERE seq <= (SELECT watermark FROM search_state)"
        " UNION ALL SELECT seq, text FROM search_deleted)"
        " WHERE seq > ? ORDER BY seq LIMIT ?)",
        (after, PIECE_ROWS),
    ):
        db.executemany(
            "INSERT INTO temp.verify_search (rowid, text) VALUES (?, ?)",
            [(seq, text.casefold()) for seq, text in rows if text is not None],
        )
        after = rows[-1][0]


def _sum_of_index(db: sqlite3.Connection, schema: str, table: str) -> tuple[int, int]:
    """Return the number of trigrams in the index, and a sum over their letters and places."""
    db.execute(
        f"CREATE VIRTUAL TABLE temp.verify_terms USING fts5vocab('{schema}', '{table}', 'instance')"
    )
    try:
        number, places = db.execute(
            "SELECT count(*), coalesce(sum((unicode(term) + unicode(substr(term, 2)) * 131"
            ' + unicode(substr(term, 3)) * 17161) * (doc % 65521) * ("offset" + 1) % 1000003), 0)'
            " FROM temp.verify_terms"
        ).fetchone()
        return int(number), int(places)
    finally:
        db.execute("DROP TABLE temp.verify_terms")
