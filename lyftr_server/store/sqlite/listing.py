"""The listing in its order, by sender and since: exact counts and places without a long walk.

Counts for each hour and day, and for each sender and day, answer most of it; what they leave over
is a short walk on an index. The caller opens a snapshot where several answers must agree.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...records import Message
from ...schema import MessageQuery
from ..cursor import FIRST, LAST, Key, instant
from .sql import json_row

_ROW = "json_array(message_id, from_msisdn, to_msisdn, ts, text)"

# To look through more for a border would cost more than it spares.
BUCKETS = 2_000


class Scope(NamedTuple):
    """The filters that indexes answer: a sender, and instants from `since` up to before `until`."""

    sender: str | None = None
    since: str = FIRST.instant
    until: str = LAST.instant

    @property
    def first(self) -> Key:
        return Key(self.since, "")

    @property
    def last(self) -> Key:
        """The place behind the last row: none has an empty id."""
        return Key(self.until, "")

    @property
    def table(self) -> str:
        """The messages, by the index that has this scope in the listing's order."""
        by = "instant" if self.sender is None else "sender"
        return f"messages INDEXED BY messages_by_{by}"

    def where(self, condition: str, *values: Any) -> tuple[str, list[Any]]:
        """Return `condition` on the order's columns, and the sender's, with their parameters."""
        if self.sender is None:
            return condition, list(values)
        return f"from_msisdn = ? AND {condition}", [self.sender, *values]

    def rest(self, after: Key, backward: bool, inclusive: bool) -> tuple[str, list[Any]]:
        """Return the condition for the scope's rows on one side of a place."""
        if backward:
            place, bound, beyond = min(after, self.last), self.since, FIRST.instant
            side, other = "<", ">="
        else:
            place, bound, beyond = max(after, self.first), self.until, LAST.instant
            side, other = ">", "<"
        if not place.message_id:  # no row is there
            condition, values = f"instant {'<' if backward else '>='} ?", [place.instant]
        else:
            equal = "=" if inclusive and place == after else ""
            condition, values = f"(instant, message_id) {side}{equal} (?, ?)", [*place]
        # Each condition costs something for each row of a long walk.
        if bound != beyond:
            # Both bounds belong to one column, so that the index takes both.
            condition, values = f"{condition} AND instant {other} ?", [*values, bound]
        return self.where(condition, *values)


def scope(query: MessageQuery) -> Scope:
    return Scope(
        query.sender,
        instant(query.since) if query.since else FIRST.instant,
        instant(query.until) if query.until else LAST.instant,
    )


def count(db: sqlite3.Connection, scope: Scope) -> int:
    """Return how many rows the scope has."""
    found = _from(db, scope._replace(until=LAST.instant))
    if scope.until == LAST.instant:
        return found
    later = _from(db, scope._replace(since=scope.until, until=LAST.instant))
    return max(0, found - later)


def _from(db: sqlite3.Connection, scope: Scope) -> int:
    """Return how many rows a scope without `until` has."""
    if not scope.since:
        return _all(db, scope.sender)
    since, hour, day = scope.since, scope.since[:13], scope.since[:10]
    if scope.sender is None:
        later = _sum(db, "days WHERE day > ?", day)
        if since[13:] < ":30":  # the shorter way
            later += _sum(db, "hours WHERE hour >= ? AND hour < ?", hour, _end_of_day(day))
            return later - _range(db, scope, hour, since)
        later += _sum(db, "hours WHERE hour > ? AND hour < ?", hour, _end_of_day(day))
        return later + _range(db, scope, since, _end_of_hour(hour))
    if not _by_day(db, scope.sender):
        return _range(db, scope, since, LAST.instant)
    days = "sender_days WHERE from_msisdn = ? AND day"
    if since[10:] < "T12":
        return _sum(db, f"{days} >= ?", scope.sender, day) - _range(db, scope, day, since)
    later = _sum(db, f"{days} > ?", scope.sender, day)
    return later + _range(db, scope, since, _end_of_day(day))


def seek(db: sqlite3.Connection, scope: Scope, offset: int) -> Key | None:
    """Return the place of the scope's row number `offset` (from 0), None beyond the last."""
    total = count(db, scope)
    if offset >= total:
        return None
    # From here on without `since`: so many more rows come before.
    skip = _all(db, scope.sender) - _from(db, scope._replace(until=LAST.instant)) + offset
    if scope.sender is None:
        day, skip, _ = _bucket(db, "days", "day", "true", [], skip)
        where, values = "hour > ? AND hour < ?", [day, _end_of_day(day)]
        start, skip, rows = _bucket(db, "hours", "hour", where, values, skip)
        end = _end_of_hour(start)
    elif not _by_day(db, scope.sender):
        start, end, rows = FIRST.instant, LAST.instant, _all(db, scope.sender)
    else:
        where, values = "from_msisdn = ?", [scope.sender]
        start, skip, rows = _bucket(db, "sender_days", "day", where, values, skip)
        end = _end_of_day(start)
    # The shorter way: from the start of the hour or day, or back from its end.
    order, skip = ("", skip) if skip < rows / 2 else (" DESC", rows - 1 - skip)
    where, bounds = scope.where("instant >= ? AND instant < ?", start, end)
    found = db.execute(
        f"SELECT instant, message_id FROM {scope.table} WHERE {where}"
        f" ORDER BY instant{order}, message_id{order} LIMIT 1 OFFSET ?",
        (*bounds, skip),
    ).fetchone()
    return Key(*found)


def border(db: sqlite3.Connection, scope: Scope, after: Key, n: int) -> tuple[str, int] | None:
    """Return an instant that at most `n` rows of the scope lie before, behind a place; how many.

    It goes by whole hours or days, from the one on that the place is in, without those that are not
    counted yet; it looks at no row. None: it finds no such instant soon.
    """
    if scope.sender is None:
        table, column, where, values = "hour_counts", "hour", "hour >= ?", [after.instant[:13]]
    else:
        table, column, where = "sender_day_counts", "day", "from_msisdn = ? AND day >= ?"
        values = [scope.sender, after.instant[:10]]
    found = db.execute(
        f"SELECT start, upto - n FROM (SELECT start, n, sum(n) OVER (ORDER BY start) AS upto"
        f" FROM (SELECT {column} AS start, n FROM {table} WHERE {where} ORDER BY 1"
        f" LIMIT {BUCKETS})) WHERE upto > ? LIMIT 1",
        (*values, n),
    ).fetchone()
    return found if found and after.instant < found[0] < scope.until else None


def rows(
    db: sqlite3.Connection,
    scope: Scope,
    place: Key,
    limit: int,
    *,
    backward: bool = False,
    inclusive: bool = False,
) -> list[Message]:
    """Return the `limit` rows after `place`, or the nearest before it; ascending in either case."""
    where, values = scope.rest(place, backward, inclusive)
    order = " DESC" if backward else ""
    found = json_row(
        db,
        f"SELECT json_group_array({_ROW}) FROM (SELECT * FROM {scope.table} WHERE {where}"
        f" ORDER BY instant{order}, message_id{order} LIMIT ?)",
        (*values, limit),
    )
    if backward:
        found.reverse()
    return [Message(*row) for row in found]


def rows_of(db: sqlite3.Connection, seqs: str, values: Sequence[Any], limit: int) -> list[Message]:
    """Return the first rows whose seqs a subquery has, in its order."""
    found = json_row(
        db,
        f"SELECT json_group_array({_ROW}) FROM (SELECT messages.* FROM {seqs}"
        " CROSS JOIN messages NOT INDEXED USING (seq) LIMIT ?)",
        (*values, limit),
    )
    return [Message(*row) for row in found]


def edge(db: sqlite3.Connection, *, last: bool = False) -> str | None:
    """Return the first or the last row's `ts`, None when there is none."""
    everything = Scope()
    found = rows(db, everything, LAST if last else FIRST, 1, backward=last)
    return found[0].ts if found else None


def _all(db: sqlite3.Connection, sender: str | None) -> int:
    if sender is None:
        return _sum(db, "days")
    return _sum(db, "senders WHERE from_msisdn = ?", sender)


def _by_day(db: sqlite3.Connection, sender: str) -> bool:
    """Tell whether the sender's messages are counted by day; without, there are few."""
    found = db.execute("SELECT 1 FROM sender_counts WHERE from_msisdn = ? AND by_day", (sender,))
    return found.fetchone() is not None


def _sum(db: sqlite3.Connection, source: str, *values: Any) -> int:
    (found,) = db.execute(f"SELECT coalesce(sum(n), 0) FROM {source}", values).fetchone()
    return int(found)


def _range(db: sqlite3.Connection, scope: Scope, start: str, end: str) -> int:
    where, values = scope.where("instant >= ? AND instant < ?", start, end)
    (found,) = db.execute(f"SELECT count(*) FROM {scope.table} WHERE {where}", values).fetchone()
    return int(found)


def _bucket(
    db: sqlite3.Connection, view: str, column: str, where: str, values: Sequence[str], skip: int
) -> tuple[str, int, int]:
    """Return the bucket with row number `skip`, the row's number in it, and its rows."""
    bucket, upto, n = db.execute(
        f"SELECT * FROM (SELECT {column}, sum(n) OVER (ORDER BY {column}) AS upto, n"
        f" FROM (SELECT {column}, sum(n) AS n FROM {view} WHERE {where} GROUP BY {column}))"
        " WHERE upto > ? LIMIT 1",
        (*values, skip),
    ).fetchone()
    return bucket, skip - (upto - n), n


# The first text after all that begin with an hour or day: ';' comes after ':', 'U' after 'T'.
def _end_of_hour(hour: str) -> str:
    return hour + ";"


def _end_of_day(day: str) -> str:
    return day + "U"
