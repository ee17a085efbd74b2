"""GET /messages/stream: messages as server-sent events, the moment they are stored."""

from contextlib import aclosing
from time import monotonic

from ..base import PRIVATE, RETRY_AFTER, STREAM_BYTES, Refused
from ..feed import Behind, Shown
from ..schema import UNKNOWN, Fault, Invalid, MessageQuery, parse_query, query_place
from .messages import ReadHandler

_FILTERS = ("from", "from_msisdn", "since", "q")
# nginx would hold a stream back until a buffer is full.
_HEADERS = (("Content-Type", "text/event-stream"), *PRIVATE, ("X-Accel-Buffering", "no"))
_BYE = b"retry: 1000\n\n"


class StreamHandler(ReadHandler):
    """GET /messages/stream: each message that fits, once and in the order of storing.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    route = "/messages/stream"
    _began: float | None = None

    async def get(self) -> None:
        query, after = self._parse()
        if self.application.draining_since is not None or self.application.feed.full:
            raise Refused(503, "try again later", headers=[RETRY_AFTER])
        if self.request.method == "GET":
            # No read of the store: it waits for messages, as long as its reader likes.
            await self.while_there(self._follow(query, after))
        else:
            self._begin()
        self.end_stream()

    async def _follow(self, query: MessageQuery, after: str | None) -> None:
        async with aclosing(self.application.feed.follow(query, after)) as batches:
            # Until the first there may be a refusal; it comes at once.
            batch = await anext(batches)
            self._begin()
            await self._send(batch)
            try:
                async for batch in batches:
                    await self._send(batch)
            except Behind:
                pass  # the database has what it missed
        await self.send(_BYE)

    async def _send(self, batch: Shown) -> None:
        """Send a batch; without messages a comment, and the place to resume from."""
        if not batch.rows:
            place = f"id: {batch.place}\n" if batch.place is not None else ""
            await self.send(f"{place}:\n\n".encode())
            return
        piece = bytearray()
        for row in batch.rows:
            piece += row.event
            if len(piece) >= STREAM_BYTES:
                await self.send(bytes(piece))
                piece.clear()
        if piece:
            await self.send(bytes(piece))

    def _begin(self) -> None:
        self.start_stream(_HEADERS, waits=True)
        self._began = monotonic()

    def latency_ms(self) -> float:
        """Return the time until the stream began: it lasts as long as its reader likes."""
        return ((self._began or monotonic()) - self.started) * 1000

    def _parse(self) -> tuple[MessageQuery, str | None]:
        arguments = self.request.query_arguments
        faults = [
            Fault(query_place(name), "is no filter of a stream", UNKNOWN)
            for name in sorted(set(arguments) - {*_FILTERS, "after"})
        ]
        if faults:
            raise Invalid(*faults)
        filters = {name: value for name, value in arguments.items() if name in _FILTERS}
        after = arguments.get("after", [])
        if len(after) > 1:
            raise Invalid(Fault(("query", "after"), "must not be given twice", "duplicate_key"))
        # What a browser sends when it resumes is newer than the address that it began with.
        header: str = self.request.headers.get("Last-Event-ID", "")
        given = header or (after[0].decode("latin-1") if after else "")
        return parse_query(filters), given or None
