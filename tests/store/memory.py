"""A second engine, a dictionary in memory: what it passes is the contract's and not SQLite's."""

import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lyftr_server import records
from lyftr_server.metrics import Gauge
from lyftr_server.records import Delivery, Message, Refusal, Result
from lyftr_server.schema import (
    EventQuery,
    Fault,
    Invalid,
    MessageQuery,
    RefusedQuery,
    TimelineQuery,
)
from lyftr_server.store import MessageStore, Page, Rows, StoreError, timeline
from lyftr_server.store.commits import Item

from .model import Model, chosen, paged


class MemoryStore(MessageStore):
    """Every question is answered by looking at everything."""

    name = "memory"
    build: Mapping[str, str] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._model = Model()
        self._came: dict[str, tuple[str, str | None]] = {}  # message_id -> source, own JSON
        self._events: dict[tuple[str, str], records.StoredEvent] = {}  # by source and own JSON
        self._refused: list[records.StoredRefusal] = []

    async def _open(self) -> None: ...

    async def _close(self) -> None: ...

    async def probe(self) -> None: ...

    async def answers(self) -> None: ...

    async def gauges(self) -> Sequence[Gauge]:
        return []

    # -- writing

    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]:
        events = [each for item in batch if isinstance(item, Delivery) for each in item.events]
        if not all(isinstance(event.body, str) for event in events):
            raise StoreError("an event without a body")
        now_us = time.time_ns() // 1000
        return [self._store(item, now_us) for item in batch]

    def _store(self, item: Item, now_us: int) -> Result:
        if isinstance(item, Refusal):
            self._refused.append(records.StoredRefusal(len(self._refused), now_us, *item))
            return Result.REFUSED
        payloads = item.payloads or (None,) * len(item.messages)
        each = zip(item.messages, payloads, strict=True)
        results = {self._store_message(item, one, payload, now_us) for one, payload in each}
        for event in item.events:
            if (item.source, event.body) not in self._events:
                stored = records.StoredEvent(len(self._events) + 1, now_us, item.source, *event)
                self._events[item.source, event.body] = stored
                results.add(Result.CREATED)
        if Result.CONFLICT in results:
            return Result.CONFLICT
        return Result.CREATED if Result.CREATED in results else Result.DUPLICATE

    def _store_message(self, item: Delivery, new: Message, payload: Any, now_us: int) -> Result:
        name = new.message_id
        if name not in self._came:
            self._model.insert([new], now_us)
            self._came[name] = (item.source, payload)
            return Result.CREATED
        stored = self._model.rows[name][0]
        if new == stored or (payload and new._replace(ts=stored.ts) == stored):
            return Result.DUPLICATE
        detail = '[{"loc": ["body", "message_id"], "msg": "differs", "type": "conflict"}]'
        refusal = Refusal(item.source, "conflict", item.request_id, name, detail, item.body)
        self._store(refusal, now_us)
        return Result.CONFLICT

    # -- reading

    async def page(self, query: MessageQuery) -> Page:
        rows = self._model.matching(query)
        if query.order != "stored":
            data, later, earlier = paged(rows, query, "message_id")
            return Page(data, len(rows), later, earlier)
        place = query.cursor or "0"
        data, places = self._following(query, place, query.limit, "cursor")
        return Page(data, len(rows), places[-1] if places else place, None)

    async def message(self, message_id: str) -> records.StoredMessage | None:
        if message_id not in self._came:
            return None
        message, received_us = self._model.rows[message_id]
        return records.StoredMessage(message, self._came[message_id][0], received_us)

    async def payload(self, message_id: str) -> str | None:
        return self._came.get(message_id, ("", None))[1]

    async def events(self, query: EventQuery) -> Rows[records.StoredEvent]:
        rows = chosen(self._events.values(), query)
        return Rows(*paged(rows[:: -1 if query.descending else 1], query, "seq")[:2])

    async def refused(self, query: RefusedQuery) -> Rows[records.StoredRefusal]:
        return Rows(*paged(chosen(self._refused, query)[::-1], query, "id")[:2])

    async def total(self) -> int:
        return len(self._came)

    async def stats(self, now_us: int | None = None) -> dict[str, Any]:
        return self._model.stats(time.time_ns() // 1000 if now_us is None else now_us)

    async def export(self, query: MessageQuery) -> AsyncGenerator[list[Message], None]:
        if rows := self._model.matching(query):
            yield rows

    async def timeline(self, query: TimelineQuery) -> list[tuple[str, int]]:
        rows = self._model.matching(MessageQuery())
        names = timeline.buckets(query, rows[-1].ts if rows else None)
        width = len("2025-01-15") if query.by == "day" else len("2025-01-15T10")
        return timeline.filled(names, Counter(row.ts[:width] for row in rows))

    async def head(self) -> str:
        return str(len(self._came))

    async def follow(self, query: MessageQuery, after: str, limit: int) -> Any:
        return self._following(query, after, limit, "after")

    def _following(self, query: MessageQuery, after: str, limit: int, name: str) -> Any:
        if not (after.isascii() and after.isdigit() and int(after) <= len(self._came)):
            raise Invalid(Fault(("query", name), "must be a place", "place_invalid"))
        places = {message_id: n for n, message_id in enumerate(self._came, 1)}
        rows = self._model.matching(replace(query, order="stored"))
        rows = [row for row in rows if places[row.message_id] > int(after)][:limit]
        return rows, [str(places[row.message_id]) for row in rows]
