"""Counts over time: which whole hours or days a query touches, the empty ones too."""

from collections.abc import Mapping
from datetime import date

from ..schema import Fault, Invalid, TimelineQuery
from .cursor import instant

MOST_BUCKETS = 1000
# Without `since`: so many, up to the newest message.
HOURS, DAYS = 48, 90
_HOURS_A_DAY = 24


def buckets(query: TimelineQuery, newest: str | None) -> list[str]:
    """Return the name of each bucket that the times touch. `newest`: the last message's `ts`.

    Buckets are whole: the first begins at or before `since`. Invalid for more than MOST_BUCKETS.
    """
    by = query.by
    end = _end(query, newest)
    if end is None:
        return []
    if query.since is not None:
        first = _number(instant(query.since), by)
    else:
        first = max(end - (HOURS if by == "hour" else DAYS), _number("0001-01-01T00", by))
    if end - first > MOST_BUCKETS:
        msg = f"must leave at most {MOST_BUCKETS} {by}s"
        raise Invalid(Fault(("query", "since"), msg, "too_many"))
    return [_name(number, by) for number in range(first, end)]


def filled(names: list[str], found: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return (start, count) of each bucket."""
    return [(_start(name), found.get(name, 0)) for name in names]


def _end(query: TimelineQuery, newest: str | None) -> int | None:
    """Return the number of the bucket behind the last one; None when there is nothing to show."""
    if query.until is not None:
        until = instant(query.until)
        number = _number(until, query.by)
        # A bucket that `until` only just reaches is not touched.
        return number if _start(_name(number, query.by)).rstrip("Z") == until else number + 1
    return None if newest is None else _number(instant(newest), query.by) + 1


def _number(moment: str, by: str) -> int:
    """Return how many days or hours have begun since the year 1."""
    day = date.fromisoformat(moment[:10]).toordinal()
    return day if by == "day" else day * _HOURS_A_DAY + int(moment[11:13])


def _name(number: int, by: str) -> str:
    if by == "day":
        return date.fromordinal(number).isoformat()
    day, hour = divmod(number, _HOURS_A_DAY)
    return f"{date.fromordinal(day).isoformat()}T{hour:02}"


def _start(name: str) -> str:
    return f"{name}T00:00:00Z" if len(name) == len("2025-01-15") else f"{name}:00:00Z"
