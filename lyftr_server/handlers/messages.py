"""What is stored: a page of messages, one message, all of them as a stream, and statistics."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar
from urllib.parse import urlencode

from ..base import PRIVATE, RETRY_AFTER, STREAM_BYTES, BaseHandler, Refused
from ..records import Message, StoredMessage, iso
from ..schema import MessageQuery, parse_no_query, parse_query, parse_timeline_query
from ..store import Page
from .admin import MessageErasingHandler

# At a time: each may hold rows that its client does not read.
EXPORTS = 32
# Of one client at a time: what waits for the database makes others wait behind it.
WAITING_READS = 16

T = TypeVar("T")


class ReadHandler(BaseHandler):
    """A handler that reads messages: behind READ_TOKEN, and no longer than its client waits."""

    _reading: "asyncio.Future[Any] | None" = None

    def check(self) -> None:
        super().check()
        self.check_host()
        self.check_site()
        self.check_read_token()
        if self.application.reads[self.client()] >= WAITING_READS:
            raise Refused(503, "too many reads of one client at a time", headers=[RETRY_AFTER])

    async def read(self, reading: "asyncio.Future[T] | Any") -> T:
        """Await a read of the store, which stops when the client goes away."""
        reads, client = self.application.reads, self.client()
        reads[client] += 1
        try:
            return await self.while_there(reading)
        finally:
            reads[client] -= 1
            if not reads[client]:
                del reads[client]

    async def while_there(self, reading: "asyncio.Future[T] | Any") -> T:
        """Await what stops when the client goes away."""
        self._reading = asyncio.ensure_future(reading)
        try:
            result: T = await self._reading
            return result
        except asyncio.CancelledError:
            raise Refused(499, "client closed request") from None

    async def export(
        self, chunks: AsyncGenerator[Sequence[T], None], as_line: Callable[[T], str]
    ) -> None:
        """Answer with every row as a line of NDJSON."""
        if self.application.exports >= EXPORTS:
            raise Refused(503, "too many exports at a time", headers=[RETRY_AFTER])
        self.application.exports += 1
        try:
            async with aclosing(chunks):
                await self._export(chunks, as_line)
        finally:
            self.application.exports -= 1
        self.end_stream()

    async def _export(
        self, chunks: AsyncGenerator[Sequence[T], None], as_line: Callable[[T], str]
    ) -> None:
        rows: Sequence[T] | None = await self.read(anext(chunks, None))
        self.start_stream([("Content-Type", "application/x-ndjson"), *PRIVATE])
        while rows and self.request.method == "GET":
            # Waits for the client before more is read: memory stays constant.
            for piece in _pieces(map(as_line, rows)):
                await self.send(piece)
            rows = await self.read(anext(chunks, None))

    def on_connection_close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


class MessagesHandler(ReadHandler):
    """GET /messages: a page of messages."""

    route = "/messages"

    async def get(self) -> None:
        query = parse_query(self.request.query_arguments)
        page: Page = await self.read(self.application.store.page(query))
        content = {
            "data": [message.as_json() for message in page.data],
            "total": page.total,
            "limit": query.limit,
            "offset": query.offset,
            "next_cursor": page.next_cursor,
        }
        links = _links(query, page, "offset" in self.request.query_arguments and not query.cursor)
        self.reply_json(200, content, [*PRIVATE, *links])


class MessageHandler(ReadHandler, MessageErasingHandler):
    """/messages/{message_id}: one message; DELETE erases it."""

    route = "/messages/{message_id}"
    methods = ("GET", "HEAD", "DELETE")

    def check(self) -> None:
        if self.request.method == "DELETE":
            self.check_erasing()
        else:
            super().check()

    async def get(self, message_id: str) -> None:
        parse_no_query(self.request.query_arguments)
        found: StoredMessage | None = await self.read(self.application.store.message(message_id))
        if found is None:
            raise Refused(404, "no such message", headers=PRIVATE)
        content = found.message.as_json() | {
            "source": found.source,
            "received_at": iso(found.received_us),
        }
        self.reply_json(200, content, PRIVATE)


class PayloadHandler(ReadHandler):
    """GET /messages/{message_id}/payload: the message's own JSON, byte for byte as it came."""

    route = "/messages/{message_id}/payload"

    async def get(self, message_id: str) -> None:
        parse_no_query(self.request.query_arguments)
        store = self.application.store
        payload: str | None = await self.read(store.payload(message_id))
        if payload is None:
            found = await self.read(store.message(message_id))
            detail = "no such message" if found is None else "a message in our own format has none"
            raise Refused(404, detail, headers=PRIVATE)
        self.reply(200, payload.encode(), PRIVATE)


class ExportHandler(ReadHandler):
    """GET /messages.ndjson: every message that matches, one JSON object a line."""

    route = "/messages.ndjson"

    async def get(self) -> None:
        query = parse_query(self.request.query_arguments, paged=False)
        await self.export(self.application.store.export(query), Message.as_line)


class StatsHandler(ReadHandler):
    """GET /stats: counts over all messages."""

    route = "/stats"

    async def get(self) -> None:
        parse_no_query(self.request.query_arguments)
        stats: dict[str, Any] = await self.read(self.application.store.stats())
        self.reply_json(200, stats, PRIVATE)


def _pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield the lines as few pieces, none of which is much larger than STREAM_BYTES."""
    piece: list[bytes] = []
    size = 0
    for line in map(str.encode, lines):
        piece.append(line)
        size += len(line)
        if size >= STREAM_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)


class TimelineHandler(ReadHandler):
    """GET /stats/timeline: how many messages there are by hour or day."""

    route = "/stats/timeline"

    async def get(self) -> None:
        query = parse_timeline_query(self.request.query_arguments)
        buckets: list[tuple[str, int]] = await self.read(self.application.store.timeline(query))
        data = [{"start": start, "count": count} for start, count in buckets]
        self.reply_json(200, {"by": query.by, "data": data}, PRIVATE)


def _links(query: MessageQuery, page: Page, by_offset: bool) -> list[tuple[str, str]]:
    """Return the Link header (RFC 8288): by offset for those who page so, else by cursor."""
    links = []
    if page.next_cursor is not None:
        place = (
            {"offset": query.offset + query.limit} if by_offset else {"cursor": page.next_cursor}
        )
        links.append(_link("next", query, place))
    if page.previous_cursor is not None:
        if by_offset:
            place = {"offset": max(0, min(query.offset, page.total) - query.limit)}
        else:
            place = {"cursor": page.previous_cursor}
        links.append(_link("prev", query, place))
    return [("Link", ", ".join(links))] if links else []


def _link(rel: str, query: MessageQuery, place: dict[str, Any]) -> str:
    filters = {
        "from": query.sender,
        "since": query.since,
        "until": query.until,
        "q": query.q,
        "order": query.order if query.order != "asc" else None,
        "limit": query.limit,
    }
    arguments = {name: value for name, value in filters.items() if value is not None} | place
    return f'</messages?{urlencode(arguments)}>; rel="{rel}"'
