"""What readers ask: pages, single messages, totals, statistics. Exact, whatever the table holds."""

import sqlite3
from collections.abc import Callable
from dataclasses import astuple, replace
from functools import partial
from typing import Any

from ...records import NATIVE, Message, StoredEvent, StoredMessage, StoredRefusal
from ...schema import EventQuery, MessageQuery, RefusedQuery
from .. import cursor
from ..cursor import FIRST, LAST, Key, Position, key_of
from ..pages import Found, Page, Rows, beside, bounded, cut_to_fit, found, page_of
from . import events, following, listing, matching, refused
from .busiest import Busiest
from .listing import Scope
from .sql import Chunks, Pieces, Stop, answer, snapshot

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000


def page(db: sqlite3.Connection, query: MessageQuery, stop: Stop) -> Page:
    """Do page_in_pieces(), until `stop`."""
    return answer(page_in_pieces(db, query), stop)


def page_in_pieces(db: sqlite3.Connection, query: MessageQuery) -> Pieces[Page]:
    """Return the page that `query` asks for. Invalid for a bad cursor."""
    if query.order == "stored":
        return (yield from _page_as_stored(db, query))
    signing = _cursor_key(db)
    start = cursor.decode(signing, query.cursor, query) if query.cursor else None
    if query.q:
        found, total = yield from _page_of_matches(db, query, start)
    else:
        found, total = _page_of_all(db, query, start)
    return page_of(found, total, query, signing)


def _page_as_stored(db: sqlite3.Connection, query: MessageQuery) -> Pieces[Page]:
    """Return the page after a place in the order of storing: there is always a next one."""
    scope = listing.scope(query)
    place = query.cursor or following.BEGINNING
    rows, places = yield from following.in_pieces(db, query, place, query.limit, name="cursor")
    if query.q:
        with matching.search(db, query.q, scope) as search:
            yield from search.find()
            total = search.total
    else:
        with snapshot(db):
            total = listing.count(db, scope)
    return Page(rows, total, places[-1] if places else place, None)


def _window(query: MessageQuery, total: int) -> tuple[int, int]:
    """Return the page's first row, from 0 and in ascending order, and how many it may have."""
    if query.order == "asc":
        return query.offset, query.limit
    limit = max(0, min(query.limit, total - query.offset))
    return max(0, total - query.offset - limit), limit


def _cursor_key(db: sqlite3.Connection) -> bytes:
    """Return the key that this database's cursors are signed with."""
    (found,) = db.execute("SELECT key FROM keys WHERE name = 'cursor'").fetchone()
    return bytes(found)


def _page_of_all(
    db: sqlite3.Connection, query: MessageQuery, start: Position | None
) -> tuple[Found, int]:
    scope = listing.scope(query)
    with snapshot(db):
        total = listing.count(db, scope)
        if start is None:
            return _at_offset(db, scope, query, total), total
        return _at_position(db, scope, query.limit, start), total


def _page_of_matches(
    db: sqlite3.Connection, query: MessageQuery, start: Position | None
) -> Pieces[tuple[Found, int]]:
    with matching.search(db, query.q or "", listing.scope(query)) as search:
        yield from search.find()
        if start is not None:
            found = yield from matching.at_position(search, start, query.limit)
        elif _beyond(query, search.total):
            found = Found([], FIRST, None)
        else:
            window = _window(query, search.total)
            found = yield from matching.at_offset(search, *window)
        return found, search.total


def _beyond(query: MessageQuery, total: int) -> bool:
    """Tell whether a descending page lies beyond the first row of the listing."""
    return query.order == "desc" and 0 < total <= query.offset


def _at_offset(db: sqlite3.Connection, scope: Scope, query: MessageQuery, total: int) -> Found:
    if _beyond(query, total):
        return Found([], FIRST, None)
    offset, limit = _window(query, total)
    place = listing.seek(db, scope, offset) if offset else scope.first
    if place is None:
        return Found([], None, LAST if total else None)
    data = listing.rows(db, scope, place, limit, inclusive=True)
    return found(data, place, more=offset + len(data) < total, before=bool(offset and total))


def _at_position(db: sqlite3.Connection, scope: Scope, limit: int, start: Position) -> Found:
    data = listing.rows(db, scope, start.key, limit + 1, backward=start.backward)
    more = len(data) > limit
    if more:
        del data[0 if start.backward else -1]
    other = not start.backward
    behind = bool(listing.rows(db, scope, start.key, 1, backward=other, inclusive=True))
    return beside(data, start, more=more, behind=behind)


def export(
    db: sqlite3.Connection, query: MessageQuery, size: int, after: Key | None = None
) -> Chunks:
    """Yield the listing's rows in its order, at most `size` at a time; None between pieces.

    Each piece is a short snapshot of its own, so a long export holds back no checkpoint.
    """
    scope = listing.scope(query)
    backward = query.order == "desc"
    start = Position(backward, after or (scope.last if backward else scope.first))
    if not query.q:
        yield from _chunks(partial(_rows, db, scope), start, size)
        return
    with matching.search(db, query.q, scope) as search:
        yield from search.find()
        yield from _chunks(search.page, start, size)


def _chunks(page: Callable[..., Pieces[list[Message]]], start: Position, size: int) -> Chunks:
    wanted = size
    while True:
        rows = yield from page(start, 0, wanted)
        if start.backward:
            rows.reverse()
        # Fewer are the end, even if messages come as fast as they are read.
        last = len(rows) < wanted
        last = not cut_to_fit(rows) and last
        if rows:
            yield rows
        if last:
            return
        start, wanted = Position(start.backward, key_of(rows[-1])), min(size, 2 * len(rows))


def _rows(
    db: sqlite3.Connection, scope: Scope, start: Position, _: int, n: int
) -> Pieces[list[Message]]:
    yield
    return listing.rows(db, scope, start.key, n, backward=start.backward)


def message(db: sqlite3.Connection, message_id: str) -> StoredMessage | None:
    """Return the stored message with this id."""
    found = db.execute(
        "SELECT coalesce(source, ?), created_at, message_id, from_msisdn, to_msisdn, ts, text"
        " FROM messages LEFT JOIN payloads USING (seq) WHERE message_id = ?",
        (NATIVE, message_id),
    ).fetchone()
    if found is None:
        return None
    source, received_us, *fields = found
    return StoredMessage(Message(*fields), source, received_us)


def payload(db: sqlite3.Connection, message_id: str) -> str | None:
    """Return a message's own JSON as it came; None when none is kept."""
    found = db.execute(
        "SELECT body FROM messages JOIN payloads USING (seq) WHERE message_id = ?", (message_id,)
    ).fetchone()
    return found[0] if found else None


def events_page(db: sqlite3.Connection, query: EventQuery) -> Rows[StoredEvent]:
    """Return the page of events that `query` asks for. Invalid for a bad cursor."""
    key, filters = _cursor_key(db), ["events", *_filters(query)]
    after = tuple(cursor.unseal(key, query.cursor, filters)) if query.cursor else ()
    data, more = bounded(events.page(db, query, after, query.limit + 1), query.limit)
    place = [data[-1].received_us, data[-1].seq] if more else []
    return Rows(data, cursor.seal(key, place, filters) if more else None)


def refused_page(db: sqlite3.Connection, query: RefusedQuery) -> Rows[StoredRefusal]:
    """Return the page of refused bodies that `query` asks for. Invalid for a bad cursor."""
    key, filters = _cursor_key(db), ["refused", *_filters(query)]
    before = cursor.unseal(key, query.cursor, filters)[0] if query.cursor else None
    data, more = bounded(refused.page(db, query, before, query.limit + 1), query.limit)
    return Rows(data, cursor.seal(key, [data[-1].id], filters) if more else None)


def _filters(query: EventQuery | RefusedQuery) -> list[Any]:
    return list(astuple(replace(query, limit=0, cursor=None)))


def total(db: sqlite3.Connection) -> int:
    """Return how many messages are stored."""
    return listing.count(db, Scope())


def stats(db: sqlite3.Connection, now_us: int, busiest: Busiest | None = None) -> dict[str, Any]:
    """Return the statistics, with the contract's keys. `now_us`: microseconds since 1970."""
    with snapshot(db):
        senders, recipients = _distinct(db)
        top = (busiest or Busiest()).top(db)
        return {
            "total_messages": total(db),
            "senders_count": senders,
            "messages_per_sender": [{"from": sender, "count": n} for sender, n in top],
            "first_message_ts": listing.edge(db),
            "last_message_ts": listing.edge(db, last=True),
            "recipients_count": recipients,
            "messages_last_24h": _stored_since(db, now_us - DAY_US),
            "top_sender": top[0][0] if top else None,
        }


def _distinct(db: sqlite3.Connection) -> tuple[int, int]:
    """Return how many senders and how many recipients there are."""
    senders, recipients = (
        f"(SELECT n FROM distinct_counts WHERE what = '{what}')"
        f" + (SELECT count(DISTINCT {column}) FROM uncounted"
        f" WHERE {column} NOT IN (SELECT {column} FROM {table}))"
        for what, column, table in (
            ("senders", "from_msisdn", "sender_counts"),
            ("recipients", "to_msisdn", "recipient_counts"),
        )
    )
    found: tuple[int, int] = db.execute(f"SELECT {senders}, {recipients}").fetchone()
    return found


def _stored_since(db: sqlite3.Connection, cutoff_us: int) -> int:
    """Return how many rows were stored at or after the cutoff: whole minutes, and a part of one."""
    minute = cutoff_us // MINUTE_US
    (whole, part) = db.execute(
        "SELECT (SELECT coalesce(sum(n), 0) FROM stored_minute_counts WHERE minute > :minute)"
        "  + (SELECT count(*) FROM uncounted WHERE created_at >= :cutoff),"
        " (SELECT count(*) FROM stored_minute_counts JOIN messages"
        "  ON seq BETWEEN first_seq AND min(last_seq, (SELECT seq FROM counted))"
        "  WHERE minute = :minute"
        "  AND created_at >= :cutoff AND created_at / 60000000 = :minute)",
        {"minute": minute, "cutoff": cutoff_us},
    ).fetchone()
    return int(whole) + int(part)
