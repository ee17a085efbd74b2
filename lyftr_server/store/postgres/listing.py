"""The listing in its order, by sender and time: exact counts and places without a long walk.

Counts by hour and sender, and the deltas that are not folded into them yet, answer most of it. The
caller opens a snapshot where several answers must agree.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...records import Message
from ...schema import MessageQuery
from ..cursor import LAST, Key, instant
from . import sender_days

COLUMNS = "message_id, from_msisdn, to_msisdn, ts, text"

HOURS = """(
    SELECT hour, n FROM hour_counts
    UNION ALL SELECT hour, n FROM deltas CROSS JOIN LATERAL unnest(hours) AS hour
) AS hours"""


def snapshot(db: Any) -> Any:
    """Return a context in which every statement sees the same rows."""
    return db.transaction(isolation="repeatable_read", readonly=True)


class Where:
    """Conditions and their parameters, in the order of their places."""

    def __init__(self, *values: Any) -> None:
        self.conditions: list[str] = []
        self.values: list[Any] = list(values)

    def add(self, condition: str, *values: Any) -> "Where":
        """Add a condition in which each {} is the place of a value."""
        first = len(self.values) + 1
        self.conditions.append(
            condition.format(*(f"${n}" for n in range(first, first + len(values))))
        )
        self.values += values
        return self

    def place(self, value: Any) -> str:
        """Return the place of another parameter."""
        self.values.append(value)
        return f"${len(self.values)}"

    def __str__(self) -> str:
        return " AND ".join(self.conditions) or "true"


class Scope(NamedTuple):
    """The filters that indexes answer: a sender, and instants (least; the first beyond)."""

    sender: str | None = None
    since: str = ""
    until: str = LAST.instant

    @property
    def first(self) -> Key:
        return Key(self.since, "")

    @property
    def last(self) -> Key:
        return Key(self.until, "")

    def where(self, *values: Any) -> Where:
        """Return the conditions, after parameters that stand before theirs."""
        where = Where(*values)
        if self.sender is not None:
            where.add("m.from_msisdn = {}::text", self.sender)
        if self.since:
            where.add("m.instant >= {}::text", self.since)
        if self.until != LAST.instant:
            where.add("m.instant < {}::text", self.until)
        return where

    def side(self, place: Key, backward: bool, inclusive: bool) -> Where:
        """Return the conditions for the rows on one side of a place."""
        sign = ("<" if backward else ">") + ("=" if inclusive else "")
        return self.where().add(
            f"(m.instant, m.message_id) {sign} ({{}}::text, {{}}::text)", *place
        )


def scope(query: MessageQuery) -> Scope:
    return Scope(
        query.sender,
        instant(query.since) if query.since else "",
        instant(query.until) if query.until else LAST.instant,
    )


async def count(db: Any, scope: Scope) -> int:
    """Return how many rows the scope has."""
    if scope == Scope(scope.sender) and scope.sender is not None:
        return await _sum(
            db,
            "SELECT (SELECT sum(n) FROM sender_counts WHERE from_msisdn = $1::text),"
            " (SELECT sum(n) FROM deltas CROSS JOIN LATERAL unnest(senders) AS sender"
            "  WHERE sender = $1::text)",
            scope.sender,
        )
    if scope.since >= scope.until:
        return 0
    if scope == Scope():
        return await _sum(
            db,
            "SELECT (SELECT sum(n) FROM hour_counts),"
            " (SELECT sum(n * cardinality(hours)) FROM deltas)",
        )
    buckets = await _buckets(db, scope)
    if buckets is None:
        return await _range(db, scope)
    return await _by_buckets(db, scope, buckets)


class Buckets(NamedTuple):
    """Counts by the first letters of the instant, and the parameters of their SQL."""

    sql: str
    name: str
    width: int
    values: tuple[Any, ...] = ()

    def end(self, name: str) -> str:
        """Return what is after all instants of a bucket."""
        return name + LAST.instant


async def _buckets(db: Any, scope: Scope) -> Buckets | None:
    """Return the counts of a scope's rows; None where it is as well to count them one by one."""
    if scope.sender is None:
        return Buckets(HOURS, "hour", len("2025-01-15T10"))
    if await sender_days.counted(db, scope.sender):
        return Buckets(sender_days.DAYS, "day", len("2025-01-15"), (scope.sender,))
    return None


async def _by_buckets(db: Any, scope: Scope, buckets: Buckets) -> int:
    """Count whole buckets by their counts, and the rows of the two that are cut."""
    first, last = scope.since[: buckets.width], scope.until[: buckets.width]
    if first == last:
        return await _range(db, scope)
    n = len(buckets.values)
    whole = await _sum(
        db,
        f"SELECT sum(n) FROM {buckets.sql}"
        f" WHERE {buckets.name} > ${n + 1}::text AND {buckets.name} < ${n + 2}::text",
        *buckets.values,
        first,
        last,
    )
    if scope.since:
        end = min(scope.until, buckets.end(first))
        whole += await _range(db, scope._replace(until=end))
    if scope.until != LAST.instant:
        whole += await _range(db, scope._replace(since=max(scope.since, last)))
    return whole


async def _sum(db: Any, sql: str, *values: Any) -> int:
    return sum(int(n) for n in await db.fetchrow(sql, *values) if n is not None)


async def _range(db: Any, scope: Scope) -> int:
    where = scope.where()
    return int(
        await db.fetchval(f"SELECT count(*) FROM messages AS m WHERE {where}", *where.values)
    )


async def seek(db: Any, scope: Scope, offset: int) -> Key | None:
    """Return the place of the scope's row number `offset` (from 0), None beyond the last."""
    if offset >= await count(db, scope):
        return None
    buckets = await _buckets(db, scope)
    if buckets is not None:
        # From here on without `since`: so many more rows come before.
        if scope.since:
            offset += await count(db, Scope(scope.sender, until=scope.since))
        name, before = await db.fetchrow(
            f"SELECT {buckets.name}, upto - n FROM (SELECT {buckets.name}, sum(n) AS n,"
            f" sum(sum(n)) OVER (ORDER BY {buckets.name}) AS upto FROM {buckets.sql}"
            f" GROUP BY {buckets.name}) AS sums WHERE upto > ${len(buckets.values) + 1}::bigint"
            f" ORDER BY {buckets.name} LIMIT 1",
            *buckets.values,
            offset,
        )
        offset -= int(before)
        scope = Scope(scope.sender, since=name, until=buckets.end(name))
    where = scope.where()
    row = await db.fetchrow(
        f"SELECT instant, message_id FROM messages AS m WHERE {where}"
        f" ORDER BY instant, message_id LIMIT 1 OFFSET {where.place(offset)}::bigint",
        *where.values,
    )
    return Key(*row)


async def rows(
    db: Any,
    scope: Scope,
    place: Key,
    limit: int,
    *,
    backward: bool = False,
    inclusive: bool = False,
) -> list[Message]:
    """Return the `limit` rows after `place`, or the nearest before it; ascending in either case."""
    where = scope.side(place, backward, inclusive)
    order = " DESC" if backward else ""
    found = await db.fetch(
        f"SELECT {COLUMNS} FROM messages AS m WHERE {where}"
        f" ORDER BY instant{order}, message_id{order} LIMIT {where.place(limit)}::bigint",
        *where.values,
    )
    messages = as_messages(found)
    return messages[::-1] if backward else messages


async def edge(db: Any, *, last: bool = False) -> str | None:
    """Return the first or the last row's `ts`, None when there is none."""
    order = " DESC" if last else ""
    ts: str | None = await db.fetchval(
        f"SELECT ts FROM messages ORDER BY instant{order}, message_id{order} LIMIT 1"
    )
    return ts


def as_messages(found: Sequence[Any]) -> list[Message]:
    return [Message(*row) for row in found]
