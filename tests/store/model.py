"""What the store must answer, in plain Python over a list of rows."""

from collections import Counter
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from lyftr_server.records import Message
from lyftr_server.schema import MessageQuery, TimelineQuery
from lyftr_server.store import cursor
from lyftr_server.store.pages import bounded

DAY_US = 86_400_000_000
KEY = b"signs cursors"


class Model:
    """Messages in a dictionary, and every question answered by looking at all of them."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Message, int]] = {}

    def insert(self, messages: list[Message], now_us: int) -> None:
        for message in messages:
            self.rows.setdefault(message.message_id, (message, now_us))

    def delete(self, message_id: str) -> None:
        self.rows.pop(message_id, None)

    def matching(self, query: MessageQuery) -> list[Message]:
        """Return all rows that match, in the listing's order."""
        rows = [message for message, _ in self.rows.values() if _matches(message, query)]
        if query.order == "stored":
            return rows
        reverse = query.order == "desc"
        return sorted(rows, key=lambda row: (instant(row.ts), row.message_id), reverse=reverse)

    def timeline(self, query: TimelineQuery) -> list[tuple[str, int]]:
        """Return every bucket by stepping through time."""
        step = timedelta(hours=1) if query.by == "hour" else timedelta(days=1)
        rows = self.matching(MessageQuery())
        if query.until is None and not rows:
            return []

        def floor(ts: str) -> datetime:
            moment = datetime.fromisoformat(ts[:19].rstrip("Z"))
            return moment.replace(minute=0, second=0, hour=moment.hour if query.by == "hour" else 0)

        if query.until is None:
            end = floor(rows[-1].ts) + step
        else:
            end = floor(query.until)
            end += step if instant(query.until) > instant(f"{end.isoformat()}Z") else timedelta()
        start = end - step * (48 if query.by == "hour" else 90)
        if query.since is not None:
            start = floor(query.since)
        buckets = []
        while start < end:
            inside = sum(start <= floor(row.ts) < start + step for row in rows)
            buckets.append((f"{start.isoformat()}Z", inside))
            start += step
        return buckets

    def stats(self, now_us: int) -> dict[str, Any]:
        rows = self.matching(MessageQuery())
        senders = Counter(row.from_msisdn for row in rows)
        top = sorted(senders.items(), key=lambda item: (-item[1], item[0]))[:10]
        return {
            "total_messages": len(rows),
            "senders_count": len(senders),
            "messages_per_sender": [{"from": sender, "count": n} for sender, n in top],
            "first_message_ts": rows[0].ts if rows else None,
            "last_message_ts": rows[-1].ts if rows else None,
            "recipients_count": len({row.to_msisdn for row in rows}),
            "messages_last_24h": sum(at >= now_us - DAY_US for _, at in self.rows.values()),
            "top_sender": top[0][0] if top else None,
        }


def instant(ts: str) -> Fraction:
    """Return a `ts` in seconds, to the nanosecond, another way than the store does."""
    seconds, _, fraction = ts.removesuffix("Z").partition(".")
    whole = (datetime.fromisoformat(seconds) - datetime.min) // timedelta(seconds=1)
    return whole + Fraction(int(fraction or 0), 10 ** len(fraction))


def _matches(message: Message, query: MessageQuery) -> bool:
    return (
        (query.sender is None or message.from_msisdn == query.sender)
        and (query.since is None or instant(message.ts) >= instant(query.since))
        and (query.until is None or instant(message.ts) < instant(query.until))
        and (
            query.q is None
            or (message.text is not None and query.q.casefold() in message.text.casefold())
        )
    )


def chosen(rows: Any, query: Any) -> list[Any]:
    """Return the events, or the refused bodies, that a query asks for."""
    names = [name for name in ("source", "kind", "message_id", "result") if hasattr(query, name)]
    wanted = {name: value for name in names if (value := getattr(query, name)) is not None}
    since, until = query.since_us or 0, getattr(query, "until_us", None) or 2**63
    return [
        row
        for row in rows
        if all(getattr(row, name) == value for name, value in wanted.items())
        and since <= row.received_us < until
    ]


def paged(rows: list[Any], query: Any, identity: str) -> tuple[list[Any], str | None, str | None]:
    """Return a page's rows, and the cursors of the next one and the one before."""
    places = [getattr(row, identity) for row in rows]
    fields = asdict(replace(query, limit=0, cursor=None)) | {"offset": 0, "of": identity}
    filters = sorted(fields.items())
    start = getattr(query, "offset", 0)
    end = start + query.limit
    if query.cursor:
        backward, place = cursor.unseal(KEY, query.cursor, filters)
        at = places.index(place) if place in places else len(places)
        start, end = (max(0, at - query.limit), at) if backward else (at + 1, at + 1 + query.limit)
    if identity != "message_id":
        end = start + len(bounded(rows[start:], query.limit)[0])
    shown = places[start:end] or [""]
    later = cursor.seal(KEY, [0, shown[-1]], filters) if end < len(rows) else None
    earlier = cursor.seal(KEY, [1, shown[0]], filters) if start > 0 and rows else None
    return rows[start:end], later, earlier
