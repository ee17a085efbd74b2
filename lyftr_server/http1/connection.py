"""One client: its bytes become requests, and those are answered one after the other."""

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from .exchange import REASONS, Exchange, Request, Upload
from .reader import Reader

if TYPE_CHECKING:
    from .server import Server

logger = logging.getLogger(__name__)

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")
# Parsed between two looks at what has piled up: 64 KiB of the shortest requests take 1 MB.
_PIECE = 64 << 10


class Connection(asyncio.Protocol):
    """One client, from its first byte to its last.

    An upload is being received, earlier ones wait for their turn, one exchange is being answered.
    Whoever changes these sets `deadline`; there is none while the application works.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport
        self._reader = Reader(server.limits, self)
        self._waiting: deque[Upload] = deque()
        self._current: Exchange | None = None
        self._ended = False  # the client sends no more
        self._held = b""  # received, and not parsed before some of what waits is answered
        self._reading = True
        self._writable: asyncio.Future[None] | None = None  # while the client does not read
        self._unsent = 0
        self._linger_end = 0.0
        self.deadline = monotonic() + self._limits.head_seconds

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._reader.client = str(transport.get_extra_info("peername", ("",))[0])
        self._server.connections.add(self)
        if self._server.draining:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PIECE and not self._held:
            self._parse(data)
            return
        data, self._held = self._held + data, b""
        for start in range(0, len(data), _PIECE):
            if not self._reading:
                self._held = data[start:]
                return
            self._parse(data[start : start + _PIECE])

    def _parse(self, data: bytes) -> None:
        if not self._reader.discarding:
            self._reader.feed(data)
            if self._waiting and self._piled_up:
                self._pause()
        elif self._linger_end:
            self.deadline = min(monotonic() + self._limits.linger_seconds, self._linger_end)

    def eof_received(self) -> bool:
        """The client has sent all it will; it may still read what it is owed."""
        self._abandon()
        self._ended = True
        if self._current is not None and self._writable is None:
            self.deadline = monotonic() + self._limits.half_closed_seconds
        return self._current is not None or bool(self._waiting)  # or close now

    def connection_lost(self, error: Exception | None) -> None:
        self._server.closed(self)
        self._held = b""
        while self._waiting:
            upload = self._waiting.popleft()
            self._record(upload, upload.refusal or 499)
        self._abandon()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        current, self._current = self._current, None
        if current is not None:
            current.client_gone()

    def pause_writing(self) -> None:
        """A client that does not read is neither read nor answered any more."""
        self._writable = asyncio.get_running_loop().create_future()
        self._expect_reader()
        self._pause()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        if self._transport.is_closing() or self._linger_end:
            self._resume()
        elif self._current is None:
            self._advance()
        else:
            self.deadline = _NEVER
            self._resume()

    # -- from the reader

    def begun(self, upload: Upload) -> None:
        if self._current is None and self._writable is None:
            self.deadline = upload.started + self._limits.head_seconds

    def awaits_body(self, upload: Upload) -> None:
        if self._current is None and self._writable is None:
            self._await_body(upload)

    def submit(self, upload: Upload) -> None:
        if self._current is None and self._writable is None and not self._waiting:
            self._serve(upload)
        else:
            self._waiting.append(upload)

    # -- one exchange after the other

    def _serve(self, upload: Upload) -> None:
        self.deadline = _NEVER
        if self._ended:
            self.deadline = monotonic() + self._limits.half_closed_seconds
        self._current = exchange = Exchange(self, upload)
        self._server.in_flight += 1
        status = upload.refusal
        if not status:
            try:
                request = Request(upload, exchange)
            except ValueError:
                status = 400
            else:
                try:
                    self._server.application(request)
                except Exception:
                    logger.exception("the application failed before it had a handler")
                    status = 500 if self._current is exchange else 0
        if status:
            self._waiting.clear()
            request_id = self._record(upload, status)
            exchange.closes = True
            detail = REASONS[status].lower().encode()
            body = b'{"detail": "' + detail + b'"}'
            exchange.respond(status, [("X-Request-ID", request_id)], body)

    def finished(self, exchange: Exchange) -> None:
        """The exchange's answer is written: on to the next."""
        self._server.ended()
        if exchange is not self._current:
            return  # its client is gone
        self._current = None
        if exchange.closes:
            self._close_gently()
        elif self._writable is None:
            self._advance()

    def _advance(self) -> None:
        """Nothing is being answered, and the client reads: take what comes next."""
        if self._waiting:
            self._serve(self._waiting.popleft())
        elif self.ending:
            self._close_gently()
        else:
            self._rest()
        self._resume()

    def _rest(self) -> None:
        """Set the deadline for what the client does next."""
        upload = self._reader.upload
        if upload is None:
            self.deadline = monotonic() + self._limits.idle_seconds
        elif upload.headers_complete:
            self._await_body(upload)
        else:
            self.deadline = monotonic() + self._limits.head_seconds

    def _await_body(self, upload: Upload) -> None:
        self.deadline = monotonic() + self._limits.body_seconds
        if upload.expects_continue and not upload.size:
            upload.expects_continue = False
            self.send(_CONTINUE)

    @property
    def ending(self) -> bool:
        """Whether no answer follows the current one."""
        return (self._reader.last or self._server.draining) and not self._waiting

    @property
    def busy(self) -> bool:
        return bool(self._current or self._reader.upload or self._waiting)

    # -- the ends

    def close_if_idle(self) -> None:
        if not self.busy:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def time_out(self) -> None:
        """The deadline has passed: for a request's rest, the next request, or a reader."""
        unsent = self._transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._expect_reader()  # slow, but it reads
        elif unsent or self._reader.discarding or self._transport.is_closing():
            self._transport.abort()
        elif self._current is not None:
            if self._current.begun:
                self.deadline = _NEVER  # writing shows whether it is still there
            else:
                self._transport.abort()
        elif self._reader.upload is not None:
            self._reader.refuse(408)
        else:
            self._close_gently()

    def _abandon(self) -> None:
        """Nothing more is read, perhaps in the middle of a request."""
        upload = self._reader.stop()
        if upload is not None:
            self._record(upload, 499)

    def _record(self, upload: Upload, status: int) -> str:
        latency_ms = (monotonic() - upload.started) * 1000
        return self._server.application.unserved(upload, status, latency_ms)

    def _close_gently(self) -> None:
        """Close; but while a client still sends, a plain close would reset what it has not read."""
        transport = self._transport
        sending = (self._reader.discarding or self.busy) and not self._ended
        self._abandon()
        self._reader.discarding = True
        now = monotonic()
        if sending and not transport.is_closing():
            self._linger_end = now + self._limits.body_seconds
            transport.write_eof()
            self._resume()
        else:
            transport.close()
        self.deadline = now + self._limits.linger_seconds
        if self._writable is not None:
            self._expect_reader()

    def _expect_reader(self) -> None:
        self._unsent = self._transport.get_write_buffer_size()
        self.deadline = monotonic() + self._limits.write_seconds

    @property
    def _piled_up(self) -> bool:
        sizes = [upload.size for upload in self._waiting]
        return len(sizes) >= self._limits.pipelined or sum(sizes) > self._limits.body_bytes

    def _pause(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Read on, when the client reads too and not too much waits."""
        if self._reading or self._writable is not None or self._transport.is_closing():
            return
        if self._waiting and self._piled_up:
            return
        self._reading = True
        if self._held:
            self.data_received(b"")
        if self._reading and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- for exchanges

    def send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def flow(self) -> bool:
        """Wait until the client has room for more; False: it is gone, or was cut."""
        if self._writable is not None and not self._transport.is_closing():
            await self._writable
        return not self._transport.is_closing()

    def date(self) -> str:
        return self._server.date()
