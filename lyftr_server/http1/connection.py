"""One client: its bytes become requests, and those are answered one after the other."""

import asyncio
import json
import logging
from collections import deque
from time import monotonic

from .common import Common
from .exchange import REASONS, Exchange
from .intake import LITTLE_BYTES, Hold, Intake
from .limits import Share
from .outlet import Outlet
from .reader import REQUEST_BYTES, RequestReader
from .upload import Request, Upload

logger = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")


class ClientConnection(asyncio.BufferedProtocol):
    """One client, from its first byte to its last.

    An upload is being received, earlier ones wait for their turn, one exchange is being answered.
    After each event `_settle` reckons from these what is waited for, and until when.
    """

    def __init__(self, common: Common) -> None:
        self._common = common
        self._limits = common.limits
        self._transport: asyncio.Transport
        self._intake: Intake
        self._outlet: Outlet
        self._share = Share(common.budget, common.limits.own_bytes)
        self._reader = RequestReader(common.limits, self._share, self)
        self._waiting: deque[Upload] = deque()
        self._current: Exchange | None = None
        self._ended = False  # the client sends no more
        self._closing = False  # nor do we
        self._since = monotonic()  # when it turned to what it does now
        self._patience = self._limits.head_seconds  # for the next request to begin
        self._linger_end = 0.0
        self.deadline = self._since + self._patience

    # -- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._intake = Intake(self._common.turns, self._transport)
        self._outlet = Outlet(self._transport, self._common.unread)
        self._reader.client = str(transport.get_extra_info("peername", ("",))[0])
        self._common.connections.add(self)
        if self._common.draining:
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._common.inbox

    def buffer_updated(self, nbytes: int) -> None:
        if nbytes > LITTLE_BYTES:
            self._intake.take_turns()
        if not self._reader.discarding:
            self._reader.feed(bytes(self._common.inbox[:nbytes]))
        elif self._closing:
            self._since = monotonic()
        self._settle()

    def eof_received(self) -> bool:
        """The client has sent all it will; it may still read what it is owed."""
        self._abandon()
        self._ended = True
        self._since = monotonic()
        self._settle()
        return self._current is not None or bool(self._waiting)  # or close now

    def connection_lost(self, error: Exception | None) -> None:
        self._common.closed(self)
        self._drop_waiting()
        self._abandon()
        self._outlet.release()
        current, self._current = self._current, None
        if current is not None:
            current.client_gone()

    def pause_writing(self) -> None:
        """A client that does not read is neither read nor answered any more."""
        self._outlet.block()
        self._intake.hold(Hold.UNREAD)
        self._settle()

    def resume_writing(self) -> None:
        self._outlet.release()
        self._intake.release(Hold.UNREAD)
        if self._current is None and not self._closing:
            self._advance()
        self._settle()

    # -- what is waited for, and until when

    def _settle(self) -> None:
        """Reckon anew; to be called after each event."""
        upload = self._reader.upload
        if upload is not None and upload.expects_continue and self._free:
            upload.expects_continue = False
            if not upload.size:
                self._outlet.send(_CONTINUE)
        if self._waiting and self._piled_up:
            self._intake.hold(Hold.UNANSWERED)
        elif self._intake.holds:
            self._intake.release(Hold.UNANSWERED)
        self.deadline = self._reckon()

    def _reckon(self) -> float:
        """Return when the client will have had enough time for what it does now."""
        limits = self._limits
        if self._outlet.blocked or self._closing:
            since = self._outlet.stuck_since()
            if since is not None:
                return since + limits.write_seconds
        if self._closing:
            return min(self._since + limits.linger_seconds, self._linger_end)
        if self._current is not None:
            # While pieces go out, writing shows whether the client is still there.
            gone = self._ended and self._current.safe and not self._current.flowing
            return self._since + limits.half_closed_seconds if gone else _NEVER
        upload = self._reader.upload
        if upload is None:
            return self._since + self._patience
        if upload.head_complete:
            return max(self._since, upload.body_since) + limits.body_seconds
        return max(self._since, upload.started) + limits.head_seconds

    def time_out(self) -> None:
        """The deadline has passed: for a request's rest, the next request, or a reader."""
        self._settle()  # it may be slow, but it reads
        if self.deadline > monotonic():
            return
        if self._outlet.blocked or self._closing or self._current is not None:
            self._transport.abort()
        elif self._reader.upload is not None:
            self._reader.refuse(408)
        else:
            self._close_gently()
        self._settle()

    @property
    def _free(self) -> bool:
        return self._current is None and not self._outlet.blocked and not self._waiting

    @property
    def _piled_up(self) -> bool:
        limits = self._limits
        return len(self._waiting) >= limits.pipelined or self._share.used > limits.body_bytes

    @property
    def ending(self) -> bool:
        """Whether no answer follows the current one."""
        return (self._reader.last or self._common.draining) and not self._waiting

    @property
    def busy(self) -> bool:
        return bool(self._current or self._reader.upload or self._waiting)

    # -- from the reader

    def wants_body(self, upload: Upload) -> bool:
        return self._common.service.wants_body(upload)

    def submit(self, upload: Upload) -> None:
        if self._free:
            self._serve(upload)
            return
        size = REQUEST_BYTES + upload.head_bytes
        if self._share.take(size):
            upload.reserved += size
        else:
            self._share.give(upload.reserved)
            upload.drop_body()
            upload.reserved, upload.refusal = 0, upload.refusal or 503
        self._waiting.append(upload)

    # -- one exchange after the other

    def _serve(self, upload: Upload) -> None:
        self._since = monotonic()
        self._current = exchange = Exchange(self, self._outlet, upload)
        self._common.in_flight += 1
        status = upload.refusal
        if not status:
            try:
                request = Request(upload, exchange)
            except ValueError:
                status = 400
            else:
                try:
                    self._common.service(request)
                except Exception:
                    logger.exception("the application failed before it had a handler")
                    status = 500 if self._current is exchange else 0
        if status:
            self._refuse(upload, status, exchange)

    def _refuse(self, upload: Upload, status: int, exchange: Exchange) -> None:
        headers = [("X-Request-ID", self._record(upload, status))]
        if status == 503:
            headers.append(("Retry-After", "1"))
        self._drop_waiting()
        exchange.closes = True
        body = json.dumps({"detail": REASONS[status].lower()}).encode()
        if not self._common.service.wants_body(upload):
            body += b"\n"  # as the application's own: not to who delivers
        exchange.respond(status, headers, body)

    def finished(self, exchange: Exchange) -> None:
        """The exchange's answer is written: on to the next."""
        self._common.ended()
        if exchange.reserved:
            self._share.give(exchange.reserved)
        if exchange is not self._current:
            return  # its client is gone
        self._current = None
        self._outlet.answered()
        self._since, self._patience = monotonic(), self._limits.idle_seconds
        if exchange.closes:
            self._close_gently()
        elif not self._outlet.blocked:
            self._advance()
        self._settle()

    def _advance(self) -> None:
        """Nothing is being answered, and the client reads: take what comes next."""
        if self._waiting:
            self._serve(self._waiting.popleft())
        elif self.ending:
            self._close_gently()

    # -- the ends

    def close_if_idle(self) -> None:
        if not self.busy:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _abandon(self) -> None:
        """Nothing more is read, perhaps in the middle of a request."""
        upload = self._reader.stop()
        if upload is not None:
            self._record(upload, 499)

    def _drop_waiting(self) -> None:
        """Nothing more is answered."""
        while self._waiting:
            upload = self._waiting.popleft()
            self._share.give(upload.reserved)
            self._record(upload, upload.refusal or 499)

    def _record(self, upload: Upload, status: int) -> str:
        latency_ms = (monotonic() - upload.started) * 1000
        return self._common.service.unserved(upload, status, latency_ms)

    def _close_gently(self) -> None:
        """Close; but while a client still sends, a plain close would reset what it has not read."""
        sending = (self._reader.discarding or self.busy) and not self._ended
        self._abandon()
        self._reader.discarding = self._closing = True
        self._since = monotonic()
        if sending and not self._transport.is_closing():
            self._linger_end = self._since + self._limits.body_seconds
            self._transport.write_eof()
        else:
            self._linger_end = self._since + self._limits.linger_seconds
            self._transport.close()

    # -- for exchanges

    def date(self) -> str:
        return self._common.date()
