"""Events: what was signed and is no message, kept raw and once."""

import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from ...records import Delivery, StoredEvent
from ...schema import EventQuery
from .sql import json_row

# Rows in one statement.
_MOST_ROWS = 256


def insert(db: sqlite3.Connection, deliveries: Sequence[Delivery], now_us: int) -> list[bool]:
    """Insert the events that are new; tell of each delivery whether any of its was."""
    rows = {
        _hash(delivery.source, event.body): (delivery.source, *event, now_us)
        for delivery in deliveries
        for event in delivery.events
    }
    if not rows:
        return [False] * len(deliveries)
    (before,) = db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
    items = list(rows.items())
    for start in range(0, len(items), _MOST_ROWS):
        piece = items[start : start + _MOST_ROWS]
        db.execute(
            "INSERT INTO events (hash, source, kind, message_id, body, created_at)"
            f" VALUES {','.join(['(?,?,?,?,?,?)'] * len(piece))} ON CONFLICT (hash) DO NOTHING",
            [value for hash_, row in piece for value in (hash_, *row)],
        )
    new = set(
        json_row(db, "SELECT json_group_array(hex(hash)) FROM events WHERE seq > ?", (before,))
    )
    return [
        any(_hash(one.source, event.body).hex().upper() in new for event in one.events)
        for one in deliveries
    ]


def page(
    db: sqlite3.Connection, query: EventQuery, after: Sequence[int], limit: int
) -> Iterator[StoredEvent]:
    """Return the events after a place (created_at, seq; none: the first) in the query's order."""
    where, values = _conditions(query)
    order = "DESC" if query.descending else "ASC"
    if after:
        where.append(f"(created_at, seq) {'<' if query.descending else '>'} (?, ?)")
        values += after
    rows = db.execute(
        "SELECT seq, created_at, source, kind, message_id, body FROM events"
        f" WHERE {' AND '.join(where) or 'true'} ORDER BY created_at {order}, seq {order} LIMIT ?",
        (*values, limit),
    )
    return (StoredEvent(*row) for row in rows)


def _conditions(query: EventQuery) -> tuple[list[str], list[Any]]:
    conditions = {
        "source = ?": query.source,
        "kind = ?": query.kind,
        "message_id = ?": query.message_id,
        "created_at >= ?": query.since_us,
        "created_at < ?": query.until_us,
    }
    given = {sql: value for sql, value in conditions.items() if value is not None}
    return list(given), list(given.values())


def _hash(source: str, body: str) -> bytes:
    return sha256(f"{source}\0{body}".encode()).digest()
