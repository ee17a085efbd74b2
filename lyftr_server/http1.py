"""HTTP/1.1 for a Tornado application over llhttp (httptools): framing, limits, timeouts, drain.

Tornado's own parser is Python and takes 100 of the 165 us of a bare request; llhttp (Node's, and
uvicorn's) takes 5. The application sees what Tornado's HTTPServer would give it: an
HTTPServerRequest, and an HTTPConnection to answer on (RFC 9110, 9112).
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import Any, Protocol

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)
from tornado.escape import parse_qs_bytes
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
# A name or an address, and a port; no list of them (RFC 9112, 3.2).
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")
_MAX_ARGUMENTS = 1000
_BODILESS = frozenset({204, 304})
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STREAM_END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Limits:
    """What one client may ask for. Times in seconds, sizes in bytes."""

    body_bytes: int = 1 << 20
    head_bytes: int = 32 << 10
    headers: int = 100
    # From the first byte of a head to its end, from there to the end of the body, between
    # requests, and for a client to take an answer that it does not read.
    head_seconds: float = 20
    body_seconds: float = 15
    idle_seconds: float = 75
    write_seconds: float = 30
    # For a client to read our refusal of a body that it still sends.
    linger_seconds: float = 3
    # Requests that one client may send before it reads the first answer.
    pipelined: int = 32


class Application(Protocol):
    """What the server needs of the application that it serves."""

    def __call__(self, request: HTTPServerRequest) -> object: ...

    def unserved(self, method: str, path: str, status: int, latency_ms: float) -> None:
        """A request ended before a handler saw it: broken, too slow, or gone (499)."""


class Server:
    """Listens, and knows every connection."""

    def __init__(self, application: Application, limits: Limits) -> None:
        self.application = application
        self.limits = limits
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.draining = False
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()
        self._date_second = 0
        self._date = ""

    async def listen(self, host: str, port: int) -> int:
        """Accept connections; return the port (a free one for 0). OSError when it is taken."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self), host, port, backlog=2048
        )
        self._sweeper = asyncio.create_task(self._sweep())
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def drain(self, seconds: float) -> bool:
        """Stop listening, let requests in flight finish, close. False: some had to be cut."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout(seconds):
                while self.connections or self.in_flight:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass
        whole = not self.in_flight and not any(each.busy for each in self.connections)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        return whole

    def closed(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        self._quiet.set()

    def ended(self) -> None:
        """A request is answered, or would be if its client were still there."""
        self.in_flight -= 1
        if self.draining:
            self._quiet.set()

    def date(self) -> str:
        """Return the Date header's value, made once a second."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second, self._date = second, formatdate(second, usegmt=True)
        return self._date

    async def _sweep(self) -> None:
        """End what takes too long: one timer for all connections, not one for each request."""
        while True:
            await asyncio.sleep(0.5)
            now = monotonic()
            for connection in [each for each in self.connections if each.deadline < now]:
                connection.time_out()


class Connection(asyncio.Protocol):
    """One client: parses its requests, and has them answered one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._limits = server.limits
        self._transport: asyncio.Transport
        self._parser = HttpRequestParser(self)
        self._upload: Upload | None = None
        self._current: Exchange | None = None
        self._waiting: deque[Upload] = deque()
        self._last = False  # no request after those that wait
        self._ended = False  # the client sends no more
        self._discarding = False  # and if it does, nobody wants it
        self._reading = True
        self._writable: asyncio.Future[None] | None = None
        self.deadline = monotonic() + self._limits.head_seconds

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._server.connections.add(self)
        if self._server.draining:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._discarding = True  # what follows is not HTTP
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
            self._watch(len(data))

    def _watch(self, fed: int) -> None:
        """Bound what llhttp keeps to itself, and what a client may pile up."""
        upload = self._upload
        if upload is not None:
            upload.fed += fed
            if not upload.headers_complete:
                # A header is not seen before its end, however long it grows.
                if upload.fed > self._limits.head_bytes:
                    self._refuse(431)
            elif upload.fed > 8 * self._limits.body_bytes + 8 * self._limits.head_bytes:
                # Chunk extensions and trailers count for no body.
                self._refuse(413)
        if len(self._waiting) >= self._limits.pipelined:
            self._pause()

    def eof_received(self) -> bool:
        """The client has sent all it will; it may still read what it is owed."""
        if self._upload is not None and not self._discarding:
            self._abandon()
        self._last = self._ended = True
        return self._current is not None  # or close now

    def connection_lost(self, error: Exception | None) -> None:
        self._server.closed(self)
        self._waiting.clear()
        if self._upload is not None and not self._discarding:
            self._abandon()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        current, self._current = self._current, None
        if current is not None:
            current.client_gone()

    def pause_writing(self) -> None:
        """A client that does not read is not read either."""
        self._writable = asyncio.get_running_loop().create_future()
        self.deadline = monotonic() + self._limits.write_seconds
        self._pause()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        self._rest()
        self._resume()

    # -- httptools

    def on_message_begin(self) -> None:
        self._upload = Upload(monotonic())
        if self._current is None:
            self.deadline = self._upload.started + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        upload = self._upload
        if upload is not None:
            upload.target += url
            upload.head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        upload = self._upload
        if upload is not None and not upload.headers_complete:  # else a trailer
            upload.add_header(name, value)

    def on_headers_complete(self) -> None:
        upload = self._upload
        if upload is None:
            return
        parser = self._parser
        upload.headers_complete = True
        upload.method = parser.get_method().decode("ascii")
        upload.version = parser.get_http_version()
        # We speak nothing to upgrade to: the request is answered as it stands, then that is all.
        upload.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()
        self._check_head(upload)
        if upload.too_large:
            self._submit_too_large(upload)
        elif self._current is None:
            self.deadline = monotonic() + self._limits.body_seconds
            if upload.expects_continue:
                self.send(_CONTINUE)

    def _check_head(self, upload: "Upload") -> None:
        headers, limits = upload.headers, self._limits
        if upload.head_bytes > limits.head_bytes or upload.header_count > limits.headers:
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
        if upload is None or self._discarding:
            return
        upload.size += len(chunk)
        if upload.size > self._limits.body_bytes:
            upload.too_large = True
            self._submit_too_large(upload)
        else:
            upload.chunks.append(chunk)

    def on_message_complete(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None and not self._discarding:
            self._submit(upload)

    # -- from uploads to exchanges

    def _submit_too_large(self, upload: "Upload") -> None:
        """Let the application refuse a body that is too large, and read no more of it."""
        self._upload = None
        self._discarding = True
        upload.chunks.clear()
        upload.keep_alive = False
        self._submit(upload)

    def _submit(self, upload: "Upload") -> None:
        if not upload.keep_alive:
            self._last = True
        if self._current is None:
            self._serve(upload)
        else:
            self._waiting.append(upload)

    def _serve(self, upload: "Upload") -> None:
        self.deadline = float("inf")
        self._current = exchange = Exchange(self, upload)
        self._server.in_flight += 1
        try:
            request = Request(upload, exchange)
        except ValueError:
            self._answer_unserved(upload, 400)
            return
        self._server.application(request)

    def finished(self, exchange: "Exchange") -> None:
        """The exchange's answer is written: on to the next."""
        self._server.ended()
        if exchange is not self._current:
            return  # its client is gone
        self._current = None
        if exchange.closes:
            self._close_gently()
        elif self._waiting:
            self._serve(self._waiting.popleft())
            if not self._waiting:
                self._resume()
        elif self.ending:
            self._close_gently()
        else:
            self._rest()
            self._resume()

    @property
    def ending(self) -> bool:
        """Whether no answer follows the current one."""
        return (self._last or self._server.draining) and not self._waiting

    def _rest(self) -> None:
        """Set the deadline for what the client does next."""
        now, upload = monotonic(), self._upload
        if self._current is not None:
            self.deadline = float("inf")
        elif upload is None:
            self.deadline = now + self._limits.idle_seconds
        elif upload.headers_complete:
            self.deadline = now + self._limits.body_seconds
        else:
            self.deadline = upload.started + self._limits.head_seconds

    # -- the ends

    @property
    def busy(self) -> bool:
        return self._current is not None or self._upload is not None

    def close_if_idle(self) -> None:
        if not self.busy:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def time_out(self) -> None:
        """The deadline has passed: for a request's rest, the next request, or a reader."""
        closing = self._transport.is_closing() or self._discarding
        if closing or self._writable is not None:
            self._transport.abort()
        elif self._upload is not None:
            self._refuse(408)
        else:
            self._close_gently()

    def _refuse(self, status: int) -> None:
        """Answer a request that cannot be served; nothing after it makes sense."""
        upload = self._upload or Upload(monotonic())
        self._upload = None
        self._last = self._discarding = True
        if self._current is not None:
            # Its turn comes after the answers that are owed already, or never.
            self._server.application.unserved(*upload.label(), status, upload.age_ms(monotonic()))
            return
        self._server.in_flight += 1
        self._current = Exchange(self, upload)
        self._answer_unserved(upload, status)

    def _answer_unserved(self, upload: "Upload", status: int) -> None:
        exchange = self._current
        self._server.application.unserved(*upload.label(), status, upload.age_ms(monotonic()))
        if exchange is not None:
            exchange.closes = True
            detail = _REASONS[status].lower().encode()
            exchange.respond(status, (), b'{"detail": "' + detail + b'"}')

    def _abandon(self) -> None:
        """The client went away in the middle of a request."""
        upload, self._upload = self._upload, None
        if upload is not None and upload.headers_complete:
            self._server.application.unserved(*upload.label(), 499, upload.age_ms(monotonic()))

    def _close_gently(self) -> None:
        """Close; but while a client still sends, a plain close would reset what it has not read."""
        transport = self._transport
        self.deadline = monotonic() + self._limits.linger_seconds
        if self._discarding and not self._ended and not transport.is_closing():
            transport.write_eof()
            self._resume()
        else:
            transport.close()

    def _pause(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading and not self._transport.is_closing() and self._writable is None:
            self._reading = True
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


class Upload:
    """A request as far as it has arrived."""

    __slots__ = (
        "chunks",
        "expects_continue",
        "fed",
        "head_bytes",
        "header_count",
        "headers",
        "headers_complete",
        "keep_alive",
        "method",
        "size",
        "started",
        "target",
        "too_large",
        "version",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.method = ""
        self.version = "1.1"
        self.target = b""
        self.headers = Headers()
        self.header_count = 0
        self.head_bytes = 0
        self.headers_complete = False
        self.chunks: list[bytes] = []
        self.size = 0  # of the body
        self.fed = 0  # bytes of all kinds
        self.too_large = False
        self.keep_alive = False
        self.expects_continue = False

    def origin_form(self) -> str:
        """Return the path and query; a target may also be a whole URL (RFC 9112, 3.2.2)."""
        target = self.target.decode("latin-1")
        if target.startswith("/"):
            return target
        scheme, separator, rest = target.partition("://")
        if separator and scheme.lower() in ("http", "https"):
            slash = rest.find("/")
            return rest[slash:] if slash >= 0 else "/"
        return target

    def add_header(self, name: bytes, value: bytes) -> None:
        self.head_bytes += len(name) + len(value) + 4
        self.header_count += 1
        self.headers.add(name.decode("latin-1").lower(), value.decode("latin-1"))

    def host(self) -> str:
        host: str | None = self.headers.get("host")
        if host is None and self.version != "1.0":
            raise ValueError("no Host")
        if host is not None and not _HOST.fullmatch(host):
            raise ValueError("no valid Host")
        return host or ""

    def body(self) -> bytes:
        return self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)

    def label(self) -> tuple[str, str]:
        return self.method, self.origin_form().partition("?")[0]

    def age_ms(self, now: float) -> float:
        return (now - self.started) * 1000


class Headers(dict[str, str]):
    """Header fields by lower-case name. HTTPHeaders checks and spells each once more: 5 us."""

    def add(self, name: str, value: str) -> None:
        """Add a field; the values of a repeated one are joined (RFC 9110, 5.3)."""
        # Tornado parses the body of a form before anybody has checked its signature, when it
        # learns of one. No route takes a form.
        if name != "content-type":
            self[name] = f"{self[name]},{value}" if name in self else value

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Request(HTTPServerRequest):
    """HTTPServerRequest's public attributes, without parsing again what llhttp parsed: 7 us less.

    Raises ValueError for a Host or a query that nobody should see.
    """

    def __init__(self, upload: "Upload", exchange: "Exchange") -> None:
        self.method = upload.method
        self.uri = upload.origin_form()
        self.version = f"HTTP/{upload.version}"
        self.headers = upload.headers  # type: ignore[assignment]
        self.body = upload.body()
        self.connection = exchange
        self.server_connection = None
        self.remote_ip = None
        self.protocol = "http"
        self.host = upload.host()
        self.host_name = self.host.lower()
        self.path, _, self.query = self.uri.partition("?")
        self.arguments = {}
        if self.query:
            self.arguments = parse_qs_bytes(
                self.query, keep_blank_values=True, max_num_fields=_MAX_ARGUMENTS
            )
        self.query_arguments = self.arguments
        self.body_arguments = {}
        self.files = {}


class Exchange(HTTPConnection):
    """One request's way back: Tornado's HTTPConnection, and a short cut for a whole answer."""

    def __init__(self, connection: Connection, upload: Upload) -> None:
        self.started = upload.started
        self.too_large = upload.too_large
        self.closes = not upload.keep_alive
        self._connection = connection
        self._head_only = upload.method == "HEAD"
        self._http10 = upload.version == "1.0"
        self._chunked = False
        self._on_close: Callable[[], None] | None = None

    def respond(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Write a whole answer at once; a Content-Type among `headers` replaces JSON's.

        A quarter of a request's time less than Tornado's set_header, write and flush.
        """
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}\r\n{self._constant_headers()}"]
        content_type = "application/json"
        for name, value in headers:
            if name == "Content-Type":
                content_type = value
            else:
                lines.append(f"{name}: {value}\r\n")
        lines.append(f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n")
        head = "".join(lines).encode("latin-1")
        self._connection.send(head if self._head_only else head + body)
        self._connection.finished(self)

    def _constant_headers(self) -> str:
        self.closes = self.closes or self._connection.ending
        if self.closes:
            connection = "Connection: close\r\n"
        else:
            connection = "Connection: keep-alive\r\n" if self._http10 else ""
        return f"Server: lyftr-server\r\nDate: {self._connection.date()}\r\n{connection}"

    # -- tornado.httputil.HTTPConnection, for answers that are written piece by piece

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        status = start_line.code if isinstance(start_line, ResponseStartLine) else 500
        if "Content-Length" not in headers and status not in _BODILESS:
            self._chunked = not self._http10
            self.closes = self.closes or self._http10
        lines = [f"HTTP/1.1 {status} {_REASONS[status]}\r\n{self._constant_headers()}"]
        lines += [
            f"{name}: {value}\r\n"
            for name, value in headers.get_all()
            if name not in ("Server", "Date", "Connection")
        ]
        if self._chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        self._connection.send(("".join(lines) + "\r\n").encode("latin-1"))
        return self.write(chunk) if chunk else self._connection.flow()

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        if chunk and not self._head_only:
            self._connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
        return self._connection.flow()

    def finish(self) -> None:
        if self._chunked and not self._head_only:
            self._connection.send(_STREAM_END)
        self._connection.finished(self)

    # -- what RequestHandler asks of a connection beside the interface

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        self._on_close = callback

    def detach(self) -> "Exchange":
        """Hand the answer over to whoever calls; see BaseHandler.reply."""
        return self

    def close(self) -> None:
        """Cut an answer short: its reader must see that it is not whole."""
        self._connection.abort()
        self._connection.finished(self)

    def client_gone(self) -> None:
        callback, self._on_close = self._on_close, None
        if callback is not None:
            callback()


class _Refused(Exception):
    """Raised inside a parser's callback: the request ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
