"""What readers ask: pages, single messages, totals, statistics. Exact, whatever the table holds."""

from dataclasses import astuple, replace
from typing import Any

from ...records import NATIVE, Message, StoredEvent, StoredMessage, StoredRefusal
from ...schema import EventQuery, MessageQuery, RefusedQuery, TimelineQuery
from .. import cursor
from ..cursor import FIRST, LAST, Key, Position
from ..pages import CHUNK_BYTES, Found, Page, Rows, beside, found, page_of
from ..timeline import buckets, filled
from . import following, listing, search
from .listing import Scope, Where, snapshot

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
TOP = 10


async def page(db: Any, query: MessageQuery) -> Page:
    """Return the page that `query` asks for. Invalid for a bad cursor."""
    if query.order == "stored":
        return await _page_as_stored(db, query)
    signing = await _cursor_key(db)
    start = cursor.decode(signing, query.cursor, query) if query.cursor else None
    scope = listing.scope(query)
    async with snapshot(db):
        total = await _count(db, scope, query)
        if start is None:
            found = await _at_offset(db, scope, query, total)
        else:
            found = await _at_position(db, scope, query, start)
    return page_of(found, total, query, signing)


async def _page_as_stored(db: Any, query: MessageQuery) -> Page:
    """Return the page after a place in the order of storing: there is always a next one."""
    place = query.cursor or following.BEGINNING
    async with snapshot(db):
        rows, places = await following.rows(db, query, place, query.limit, name="cursor")
        total = await _count(db, listing.scope(query), query)
    return Page(rows, total, places[-1] if places else place, None)


async def _count(db: Any, scope: Scope, query: MessageQuery) -> int:
    if query.q:
        return await search.count(db, scope, query.q)
    return await listing.count(db, scope)


async def _cursor_key(db: Any) -> bytes:
    """Return the key that this database's cursors are signed with."""
    return bytes(await db.fetchval("SELECT key FROM keys WHERE name = 'cursor'"))


async def _at_offset(db: Any, scope: Scope, query: MessageQuery, total: int) -> Found:
    descending = query.order == "desc"
    if query.offset >= total:
        if not total:
            return Found([], None, None)
        return Found([], FIRST, None) if descending else Found([], None, LAST)
    limit = min(query.limit, total - query.offset)
    offset = total - query.offset - limit if descending else query.offset
    if query.q:
        data = await search.at_offset(db, scope, query.q, offset, limit, total)
    else:
        place = await listing.seek(db, scope, offset) if offset else scope.first
        data = await listing.rows(db, scope, place or LAST, limit, inclusive=True)
    return found(data, scope.first, more=offset + len(data) < total, before=bool(offset))


async def _at_position(db: Any, scope: Scope, query: MessageQuery, start: Position) -> Found:
    data = await _beyond(db, scope, query, start, query.limit + 1)
    more = len(data) > query.limit
    if more:
        del data[0 if start.backward else -1]
    other = Position(not start.backward, start.key)
    behind = bool(await _beyond(db, scope, query, other, 1, inclusive=True))
    return beside(data, start, more=more, behind=behind)


async def _beyond(
    db: Any,
    scope: Scope,
    query: MessageQuery,
    start: Position,
    limit: int,
    *,
    inclusive: bool = False,
) -> list[Message]:
    sides = {"backward": start.backward, "inclusive": inclusive}
    if query.q:
        return await search.rows(db, scope, query.q, start.key, limit, **sides)
    return await listing.rows(db, scope, start.key, limit, **sides)


async def chunk(db: Any, query: MessageQuery, after: Key | None, size: int) -> list[Message]:
    """Return the next `size` rows of the listing after `after`; none at its end."""
    scope = listing.scope(query)
    backward = query.order == "desc"
    place = after or (scope.last if backward else scope.first)
    start = Position(backward, place)
    data = await _beyond(db, scope, query, start, size, inclusive=after is None)
    return data[::-1] if backward else data


async def timeline(db: Any, query: TimelineQuery) -> list[tuple[str, int]]:
    """Return (start, count) of each bucket that the times touch. Invalid for too many."""
    async with snapshot(db):
        names = buckets(query, await listing.edge(db, last=True))
        if not names:
            return []
        rows = await db.fetch(
            f"SELECT left(hour, $3::integer) AS name, sum(n)::bigint FROM {listing.HOURS}"
            " WHERE hour >= $1::text AND hour < $2::text GROUP BY name",
            names[0],
            names[-1] + "~",
            len(names[0]),
        )
    return filled(names, dict(rows))


async def message(db: Any, message_id: str) -> StoredMessage | None:
    """Return the stored message with this id."""
    found = await db.fetchrow(
        f"SELECT {listing.COLUMNS}, source, created_at FROM messages WHERE message_id = $1",
        message_id,
    )
    if found is None:
        return None
    *fields, source, received_us = found
    return StoredMessage(Message(*fields), source or NATIVE, received_us)


async def payload(db: Any, message_id: str) -> str | None:
    """Return a message's own JSON as it came; None when none is kept."""
    found: str | None = await db.fetchval(
        "SELECT payload FROM messages WHERE message_id = $1", message_id
    )
    return found


async def events_page(db: Any, query: EventQuery) -> Rows[StoredEvent]:
    """Return the page of events that `query` asks for. Invalid for a bad cursor."""
    key, filters = await _cursor_key(db), ["events", *_filters(query)]
    where = Where()
    if query.cursor:
        sign = "<" if query.descending else ">"
        place = cursor.unseal(key, query.cursor, filters)
        where.add(f"(created_at, seq) {sign} ({{}}::bigint, {{}}::bigint)", *place)
    _add(where, "source", "=", query.source)
    _add(where, "kind", "=", query.kind)
    _add(where, "message_id", "=", query.message_id)
    _add(where, "created_at", ">=", query.since_us)
    _add(where, "created_at", "<", query.until_us)
    order = " DESC" if query.descending else ""
    columns = "seq, created_at, source, kind, message_id, body"
    rows, more = await _page_of_bodies(
        db, f"{columns} FROM events", where, f"created_at{order}, seq{order}", query.limit
    )
    data = [StoredEvent(*row) for row in rows]
    last = [data[-1].received_us, data[-1].seq] if more else []
    return Rows(data, cursor.seal(key, last, filters) if more else None)


async def refused_page(db: Any, query: RefusedQuery) -> Rows[StoredRefusal]:
    """Return the page of refused bodies that `query` asks for. Invalid for a bad cursor."""
    key, filters = await _cursor_key(db), ["refused", *_filters(query)]
    where = Where()
    if query.cursor:
        where.add("id < {}::bigint", *cursor.unseal(key, query.cursor, filters))
    _add(where, "source", "=", query.source)
    _add(where, "result", "=", query.result)
    _add(where, "created_at", ">=", query.since_us)
    columns = "id, created_at, source, result, request_id, message_id, detail, body"
    rows, more = await _page_of_bodies(db, f"{columns} FROM refused", where, "id DESC", query.limit)
    data = [StoredRefusal(*row) for row in rows]
    return Rows(data, cursor.seal(key, [data[-1].id], filters) if more else None)


async def _page_of_bodies(
    db: Any, what: str, where: Where, order: str, limit: int
) -> tuple[list[tuple[Any, ...]], bool]:
    """Return the rows of a page, and whether there are others. As pages.bounded()."""
    rows = await db.fetch(
        "SELECT sized.* FROM (SELECT *, count(*) OVER () AS n, octet_length(body) AS size,"
        f"  sum(octet_length(body)) OVER (ORDER BY {order}) AS upto"
        f"  FROM (SELECT {what} WHERE {where} ORDER BY {order}"
        f"   LIMIT {where.place(limit + 1)}::bigint) AS first) AS sized"
        f" WHERE upto - size < {where.place(CHUNK_BYTES)}::bigint ORDER BY {order}",
        *where.values,
    )
    found = [tuple(row)[:-3] for row in rows[:limit]]
    return found, bool(rows) and rows[0]["n"] > len(found)


def _add(where: Where, column: str, sign: str, value: str | int | None) -> None:
    if value is not None:
        kind = "bigint" if isinstance(value, int) else "text"
        where.add(f"{column} {sign} {{}}::{kind}", value)


def _filters(query: EventQuery | RefusedQuery) -> list[Any]:
    return list(astuple(replace(query, limit=0, cursor=None)))


async def total(db: Any) -> int:
    """Return how many messages are stored."""
    return await listing.count(db, Scope())


async def stats(db: Any, now_us: int | None) -> dict[str, Any]:
    """Return the statistics, with the contract's keys.

    `now_us`: microseconds since 1970; None: by the database's clock, as `created_at` is.
    """
    if now_us is None:
        now_us = await db.fetchval(
            "SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
        )
    async with snapshot(db):
        senders, recipients, top = await _people(db)
        return {
            "total_messages": await total(db),
            "senders_count": senders,
            "messages_per_sender": [{"from": sender, "count": n} for sender, n in top],
            "first_message_ts": await listing.edge(db),
            "last_message_ts": await listing.edge(db, last=True),
            "recipients_count": recipients,
            "messages_last_24h": await _stored_since(db, now_us - DAY_US),
            "top_sender": top[0][0] if top else None,
        }


# What the deltas change of one table of counts, and the names that they touch.
_CHANGES = """
    SELECT name, sum(n) AS n FROM deltas CROSS JOIN LATERAL unnest({column}) AS name GROUP BY name
"""
# Folded counts of 0 are deleted, so that a row is somebody. Deltas bring names, or take them.
_DISTINCT = """
    SELECT (SELECT count(*) FROM {table}) + (
        SELECT coalesce(sum((coalesce(t.n, 0) + c.n > 0)::int - (t.n IS NOT NULL)::int), 0)
        FROM ({changes}) AS c LEFT JOIN {table} AS t ON t.{key} = c.name)
"""
# Whoever is not among the first by the folded counts and not touched by deltas is not among them.
_TOP = """
    WITH changes AS MATERIALIZED ({changes}), touched AS (
        SELECT name, coalesce(t.n, 0) + c.n AS n FROM changes AS c
        LEFT JOIN sender_counts AS t ON t.from_msisdn = c.name
    ), quiet AS (
        SELECT from_msisdn AS name, n FROM sender_counts
        WHERE NOT EXISTS (SELECT FROM changes WHERE changes.name = from_msisdn)
        ORDER BY n DESC FETCH FIRST {top} ROWS WITH TIES
    )
    SELECT name, n::bigint FROM (SELECT * FROM touched UNION ALL SELECT * FROM quiet) AS every
    WHERE n > 0 ORDER BY n DESC, name COLLATE "C" LIMIT {top}
"""


async def _people(db: Any) -> tuple[int, int, list[tuple[str, int]]]:
    """Return how many senders and recipients there are, and the busiest senders."""
    senders = _CHANGES.format(column="senders")
    counts = []
    for table, key, column in (
        ("sender_counts", "from_msisdn", "senders"),
        ("recipient_counts", "to_msisdn", "recipients"),
    ):
        changes = _CHANGES.format(column=column)
        sql = _DISTINCT.format(table=table, key=key, changes=changes)
        counts.append(int(await db.fetchval(sql)))
    top = await db.fetch(_TOP.format(changes=senders, top=TOP))
    return counts[0], counts[1], [(name, n) for name, n in top]


async def _stored_since(db: Any, cutoff_us: int) -> int:
    """Return how many rows were stored at or after the cutoff: whole minutes, and a part of one."""
    minute = cutoff_us // MINUTE_US
    whole, deltas, part = await db.fetchrow(
        "SELECT (SELECT coalesce(sum(n), 0) FROM minute_counts WHERE minute > $1::bigint),"
        " (SELECT coalesce(sum(n), 0) FROM deltas CROSS JOIN LATERAL unnest(minutes) AS minute"
        "  WHERE minute > $1::bigint),"
        " (SELECT count(*) FROM messages WHERE created_at >= $2::bigint"
        "  AND created_at < ($1::bigint + 1) * 60000000)",
        minute,
        cutoff_us,
    )
    return int(whole) + int(deltas) + int(part)
