"""Messages by hour or day, from the counts that follow the rows."""

import sqlite3

from ...schema import TimelineQuery
from ..timeline import buckets, filled
from . import listing


def timeline(db: sqlite3.Connection, query: TimelineQuery) -> list[tuple[str, int]]:
    """Return (start, count) of each bucket that the times touch. Invalid for too many."""
    names = buckets(query, listing.edge(db, last=True))
    if not names:
        return []
    by = query.by
    found = db.execute(
        f"SELECT {by}, sum(n) FROM {by}s WHERE {by} BETWEEN ? AND ? GROUP BY {by}",
        (names[0], names[-1]),
    )
    return filled(names, dict(found))
