"""Signed bodies that could not be stored as asked; the oldest make room for the newest."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from ...records import Refusal, StoredRefusal
from ...schema import RefusedQuery
from ..limits import Limits


def keep(db: sqlite3.Connection, refusals: Sequence[Refusal], limits: Limits, now_us: int) -> None:
    """Keep refused bodies, and let the oldest go; inside the caller's transaction."""
    if not refusals or not limits.bodies:
        return
    db.executemany(
        "INSERT INTO refused"
        " (created_at, source, result, request_id, message_id, detail, size, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(now_us, *each[:-1], len(each.body), each.body) for each in refusals],
    )
    while True:
        n, size = db.execute("SELECT n, size FROM refused_totals").fetchone()
        surplus = max(n - limits.bodies, size > limits.size)
        if surplus <= 0:
            return
        db.execute(
            "DELETE FROM refused WHERE id IN (SELECT id FROM refused ORDER BY id LIMIT ?)",
            (surplus,),
        )


def page(
    db: sqlite3.Connection, query: RefusedQuery, before: int | None, limit: int
) -> Iterator[StoredRefusal]:
    """Return refused bodies, the newest first, from below the id `before` on."""
    conditions = {
        "source = ?": query.source,
        "result = ?": query.result,
        "created_at >= ?": query.since_us,
        "id < ?": before,
    }
    given: dict[str, Any] = {sql: value for sql, value in conditions.items() if value is not None}
    rows = db.execute(
        "SELECT id, created_at, source, result, request_id, message_id, detail, body FROM refused"
        f" WHERE {' AND '.join(given) or 'true'} ORDER BY id DESC LIMIT ?",
        (*given.values(), limit),
    )
    return (StoredRefusal(*row) for row in rows)
