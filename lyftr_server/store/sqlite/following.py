"""Messages in the order of storing: what comes after a place, in short reads."""

import json
import sqlite3
from typing import Any

from ...records import Message
from ...schema import Fault, Invalid, MessageQuery
from ..cursor import instant
from ..pages import cut_to_fit
from .letters import condition
from .sql import Chunks, Pieces, Stop, answer

# Looked at in one statement. A statement is a snapshot; between two of them the WAL can be reset.
PIECE_ROWS = 2000
BEGINNING = "0"
_MAX_SEQ = 2**63 - 1


def head(db: sqlite3.Connection) -> str:
    """Return the place behind the newest message."""
    return str(_last(db))


def follow(
    db: sqlite3.Connection,
    query: MessageQuery,
    after: str,
    limit: int,
    stop: Stop,
) -> tuple[list[Message], list[str]]:
    """Do in_pieces(), until `stop`."""
    return answer(in_pieces(db, query, after, limit), stop)


def in_pieces(
    db: sqlite3.Connection, query: MessageQuery, after: str, limit: int, *, name: str = "after"
) -> Pieces[tuple[list[Message], list[str]]]:
    """Return the first messages after a place that fit, and the place behind each of them.

    Fewer than `limit` say that no other is stored now. Of the query its filters count. Invalid for
    a place that this database never gave; the parameter that had it is called `name`.
    """
    seq = _checked(db, after, name)
    where, values = _filter(query)
    folded = query.q.casefold() if query.q else ""
    rows: list[Message] = []
    places: list[str] = []
    while True:
        last, hits = db.execute(
            "WITH piece AS MATERIALIZED (SELECT seq, message_id, from_msisdn, to_msisdn, ts, text,"
            " instant FROM messages WHERE seq > ? ORDER BY seq LIMIT ?)"
            " SELECT (SELECT max(seq) FROM piece), (SELECT json_group_array(json_array(seq,"
            " message_id, from_msisdn, to_msisdn, ts, text))"
            f" FROM (SELECT * FROM piece WHERE {where} ORDER BY seq))",
            (seq, PIECE_ROWS if where != "true" else limit - len(rows), *values),
        ).fetchone()
        if last is None:
            return rows, places
        for place, *fields in json.loads(hits):
            if folded and folded not in fields[4].casefold():
                continue
            rows.append(Message(*fields))
            places.append(str(place))
            if len(rows) == limit:
                return rows, places
        seq = last
        yield


def export(db: sqlite3.Connection, query: MessageQuery, size: int) -> Chunks:
    """Yield all that is stored now and fits, at most `size` rows at a time; None between pieces."""
    place, wanted = BEGINNING, size
    while True:
        rows, places = yield from in_pieces(db, query, place, wanted)
        last = len(rows) < wanted
        last = not cut_to_fit(rows) and last
        if rows:
            yield rows
        if last:
            return
        place, wanted = places[len(rows) - 1], min(size, 2 * len(rows))


def _filter(query: MessageQuery) -> tuple[str, list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    if query.sender is not None:
        conditions.append("from_msisdn = ?")
        values.append(query.sender)
    if query.since is not None:
        conditions.append("instant >= ?")
        values.append(instant(query.since))
    if query.until is not None:
        conditions.append("instant < ?")
        values.append(instant(query.until))
    if query.q:
        sql, letters, _ = condition(query.q.casefold())
        conditions.append(f"text IS NOT NULL AND ({sql})")
        values += letters
    return " AND ".join(conditions) or "true", values


def _checked(db: sqlite3.Connection, after: str, name: str) -> int:
    """Return the place as a number. A restored backup may be older than a reader's place is."""
    if after.isascii() and after.isdigit() and len(after) < 20:
        seq = int(after)
        if seq <= min(_last(db), _MAX_SEQ):
            return seq
    msg = "must be a place in this server's order of storing"
    raise Invalid(Fault(("query", name), msg, "place_invalid"))


def _last(db: sqlite3.Connection) -> int:
    """Return the largest seq ever given: AUTOINCREMENT keeps it when rows are deleted."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
    return int(row[0]) if row else 0
