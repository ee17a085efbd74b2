"""What the store must answer, in plain Python over a list of rows."""

from collections import Counter
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from lyftr_server.records import Message
from lyftr_server.schema import MessageQuery

DAY_US = 86_400_000_000


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
        return sorted(rows, key=lambda row: (instant(row.ts), row.message_id))

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
        and (
            query.q is None
            or (message.text is not None and query.q.casefold() in message.text.casefold())
        )
    )
