"""One client: its bytes become requests, and those are answered one after the other."""

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from .exchange import REASONS, Exchange, Request, Upload

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
        self._parser = HttpRequestParser(self)
        self._upload: Upload | None = None
        self._waiting: deque[Upload] = deque()
        self._current: Exchange | None = None
        self._last = False  # no request after those received so far
        self._discarding = False  # whatever else the client sends, nobody wants it
        self._ended = False  # it sends no more
        self._held = b""  # received, and not parsed before some of what waits is answered
        self._reading = True
        self._writable: asyncio.Future[None] | None = None  # while the client does not read
        self._unsent = 0
        self._linger_end = 0.0
        self.deadline = monotonic() + self._limits.head_seconds

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
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
        if self._discarding:
            if self._linger_end:
                self.deadline = min(monotonic() + self._limits.linger_seconds, self._linger_end)
            return
        before = self._upload
        size = before.size if before is not None else 0
        try:
            self._feed(data)
        except HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                raise
            self._refuse(error.__context__.status)
        except HttpParserError:
            if self._last:
                self._discarding = True  # more than the request that was to be the last
            else:
                self._refuse(400)
        else:
            upload = self._upload
            if upload is not None and upload is before and upload.size == size:
                # A header is not seen before its end, chunk extensions and trailers never: what
                # llhttp keeps to itself has to be bounded here.
                upload.fruitless += len(data)
                if upload.fruitless > self._limits.head_bytes:
                    self._refuse(431)
            elif upload is not None:
                upload.fruitless = 0
            if self._waiting and self._piled_up:
                self._pause()

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                upload = self._upload
                if upload is None:
                    self._discarding = True  # after CONNECT comes no HTTP
                    return
                # We speak nothing to upgrade to, and httptools skips the body of such a request
                # (Java's client sends one): the request is read again without the offer.
                self._parser = HttpRequestParser(self)
                data = upload.head_without_upgrade() + data[offer.args[0] :]

    def eof_received(self) -> bool:
        """The client has sent all it will; it may still read what it is owed."""
        self._abandon()
        self._last = self._ended = True
        if self._current is not None and self._writable is None:
            self.deadline = monotonic() + self._limits.half_closed_seconds
        return self._current is not None or bool(self._waiting)  # or close now

    def connection_lost(self, error: Exception | None) -> None:
        self._server.closed(self)
        self._last = self._discarding = True
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

    # -- httptools. Once `_last` is set no upload begins, and what the parser still says is ignored.

    def on_message_begin(self) -> None:
        if not self._last:
            self._upload = Upload(monotonic())
            if self._current is None:
                self.deadline = self._upload.started + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        upload = self._upload
        if upload is not None:
            upload.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        upload = self._upload
        if upload is not None and not upload.headers_complete:  # else a trailer
            if upload.header_count == self._limits.headers:
                raise _Refused(431)
            upload.add_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        upload = self._upload
        if upload is None:
            return
        parser = self._parser
        upload.headers_complete = True
        upload.method = parser.get_method().decode("ascii")
        upload.version = parser.get_http_version()
        upload.keep_alive = parser.should_keep_alive()
        if parser.should_upgrade():
            if upload.method != "CONNECT":
                upload.offers_upgrade = True  # see _feed
                return
            upload.keep_alive = False
        self._check_head(upload)
        if upload.too_large:
            self._submit_too_large(upload)
        elif self._current is None:
            self._await_body(upload)

    def _check_head(self, upload: Upload) -> None:
        """Refuse what llhttp lets pass and we do not."""
        headers, limits = upload.headers, self._limits
        if upload.head_bytes + len(upload.target) > limits.head_bytes:
            raise _Refused(431)
        if upload.version not in ("1.0", "1.1"):
            raise _Refused(505)
        length = headers.get("content-length")
        if length is not None:
            upload.too_large = len(length) > 18 or int(length) > limits.body_bytes
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if upload.version == "1.0":
                raise _Refused(400)
            if coding.lower() != "chunked":
                raise _Refused(501)
        expected = headers.get("expect")
        if expected is not None:
            if expected.lower() != "100-continue":
                raise _Refused(417)
            upload.expects_continue = upload.version == "1.1"

    def on_body(self, chunk: bytes) -> None:
        upload = self._upload
        if upload is None:
            return
        if upload.size + len(chunk) > self._limits.body_bytes:
            upload.too_large = True
            self._submit_too_large(upload)
        else:
            upload.add(chunk)

    def on_message_complete(self) -> None:
        upload = self._upload
        if upload is not None and not upload.offers_upgrade:
            self._upload = None
            self._submit(upload)

    # -- from uploads to exchanges

    def _submit_too_large(self, upload: Upload) -> None:
        """Let the application refuse a body that is too large, and read no more of it."""
        self._upload = None
        self._discarding = True
        upload.drop_body()
        upload.keep_alive = False
        self._submit(upload)

    def _refuse(self, status: int) -> None:
        """Answer a request that cannot be served, in its turn; nothing after it makes sense."""
        upload = self._upload or Upload(monotonic())
        self._upload = None
        self._discarding = True
        upload.drop_body()
        upload.keep_alive = False
        upload.refusal = status
        self._submit(upload)

    def _submit(self, upload: Upload) -> None:
        if not upload.keep_alive:
            self._last = True
        if self._current is None and self._writable is None and not self._waiting:
            self._serve(upload)
        else:
            self._waiting.append(upload)

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
                    status = 500
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
        upload = self._upload
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
        return (self._last or self._server.draining) and not self._waiting

    @property
    def busy(self) -> bool:
        return self._current is not None or self._upload is not None or bool(self._waiting)

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
        elif unsent or self._discarding or self._transport.is_closing():
            self._transport.abort()
        elif self._current is not None:
            if self._current.begun:
                self.deadline = _NEVER  # writing shows whether it is still there
            else:
                self._transport.abort()
        elif self._upload is not None:
            self._refuse(408)
        else:
            self._close_gently()

    def _abandon(self) -> None:
        """The client went away, perhaps in the middle of a request."""
        upload, self._upload = self._upload, None
        if upload is not None and upload.headers_complete:
            self._record(upload, 499)

    def _record(self, upload: Upload, status: int) -> str:
        latency_ms = (monotonic() - upload.started) * 1000
        return self._server.application.unserved(upload.method, upload.path(), status, latency_ms)

    def _close_gently(self) -> None:
        """Close; but while a client still sends, a plain close would reset what it has not read."""
        transport = self._transport
        sending = (self._discarding or self._upload is not None) and not self._ended
        self._abandon()
        self._last = self._discarding = True
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

    def flow(self) -> "asyncio.Future[None]":
        """Return a future that is done when the client has room for more."""
        if self._writable is not None:
            return self._writable
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def date(self) -> str:
        return self._server.date()


class _Refused(Exception):
    """Raised inside a parser's callback: the request ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
