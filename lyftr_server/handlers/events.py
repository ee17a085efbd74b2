"""What senders sent beside messages: statuses, edits, updates, and whatever nobody knows yet."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from ..base import PRIVATE
from ..records import StoredEvent, iso
from ..schema import EventQuery, parse_event_query
from ..store import MessageStore, Rows
from .messages import ReadHandler

# Rows of an export that are read at a time: each may be nearly as large as a body.
_CHUNK = 50


class EventsHandler(ReadHandler):
    """GET /events: a page of events."""

    route = "/events"

    async def get(self) -> None:
        query = parse_event_query(self.request.query_arguments)
        page: Rows[StoredEvent] = await self.read(self.application.store.events(query))
        data = ", ".join(_as_json(row) for row in page.data)
        cursor = json.dumps(page.next_cursor)
        body = f'{{"data": [{data}], "limit": {query.limit}, "next_cursor": {cursor}}}'
        self.reply(200, body.encode(), PRIVATE)


class EventsExportHandler(ReadHandler):
    """GET /events.ndjson: every event that matches, one JSON object a line."""

    route = "/events.ndjson"

    async def get(self) -> None:
        query = parse_event_query(self.request.query_arguments, paged=False)
        await self.export(_chunks(self.application.store, query), _as_line)


async def _chunks(
    store: MessageStore, query: EventQuery
) -> AsyncGenerator[Sequence[StoredEvent], None]:
    cursor: str | None = ""
    while cursor is not None:
        query = replace(query, limit=_CHUNK, cursor=cursor or None)
        rows, cursor = await store.events(query)
        if rows:
            yield rows


def _as_json(row: StoredEvent) -> str:
    """Return an event as JSON. Its own JSON stands in it as it came."""
    fields = {
        "id": row.seq,
        "at": iso(row.received_us),
        "source": row.source,
        "kind": row.kind,
        "message_id": row.message_id,
    }
    return f'{json.dumps(fields, ensure_ascii=False)[:-1]}, "body": {row.body}}}'


def _as_line(row: StoredEvent) -> str:
    # Between its tokens JSON may have line ends, and nowhere else.
    return _as_json(row).replace("\n", " ").replace("\r", " ") + "\n"
