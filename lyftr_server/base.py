"""What all handlers share: the clock, the request id, signatures, limits, answers, the log line."""

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from time import monotonic
from typing import Any, ClassVar

from tornado.web import HTTPError, RequestHandler

from . import log
from .http1 import ClientGone
from .records import Ended, Unsigned
from .schema import Invalid
from .signature import matches
from .sources import Received, Source
from .store import StoreError

logger = logging.getLogger(__name__)

# Of a stream, sent at a time: what a client that does not read costs.
STREAM_BYTES = 256 << 10
RETRY_AFTER = ("Retry-After", "1")
# For answers that carry messages, or what is known of them.
PRIVATE = (("Cache-Control", "no-store"),)

Headers = Sequence[tuple[str, str]]


class Refused(Exception):
    """The request ends here, with this answer. `detail` is for the caller."""

    def __init__(
        self, status: int, detail: Any, *, result: str | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(status)
        self.status = status
        self.detail = detail
        self.result = result
        self.headers = headers


_FORESEEN = (Refused, Invalid, StoreError, HTTPError, asyncio.CancelledError)


class ServiceMixin:
    """Signature, timing, metrics and the log line of a request; one place ends every one."""

    application: Any  # our Application
    route: ClassVar[str] = "unmatched"
    methods: ClassVar[tuple[str, ...]] = ("GET", "HEAD")
    # Who sends here; None on a route that takes no deliveries.
    source: str | None = None
    senders: ClassVar[tuple[Source, ...]] = ()
    sender: Source  # who signed this one
    received: Received
    request: Any  # http1's Request, and its connection an Exchange

    def initialize(self) -> None:
        # Not in prepare: Tornado may end a request without it.
        self.started: float = self.request.connection.started
        self.status = 0
        self.result: str | None = None
        self.message_id: str | None = None
        self.faults: str | None = None
        given = self.request.headers.get("X-Request-ID", "")
        self.request_id: str = self.application.request_id(given)

    def allowed(self) -> tuple[str, ...]:
        """Return the methods that this route has as the server is configured."""
        return self.methods

    def method_refused(self) -> Refused:
        return Refused(405, "method not allowed", headers=[("Allow", ", ".join(self.allowed()))])

    def check_method(self) -> None:
        if self.request.method not in self.methods:
            raise self.method_refused()

    def check_size(self) -> None:
        if self.request.connection.too_large:
            raise Refused(413, "request body too large", result="too_large")

    def check_signature(self) -> None:
        """Refuse the body unless a sender of this route signed it; nothing may parse it before."""
        request = self.request
        self.received = Received(request.headers, request.body, time.time(), request.query)
        for sender in self.senders:
            key = sender.verify(self.received)
            if key is not None:
                self.sender = sender
                self.source = sender.name
                self.application.metrics.signature(key)
                return
        reason, size = "invalid_signature", len(request.body)
        self.application.unsigned.append(
            Unsigned(self.received.at, self.request_id, self.route, size, reason)
        )
        raise Refused(401, "invalid signature", result=reason)

    def check_host(self) -> None:
        """Refuse a read under a name that is not ours (DNS rebinding; RFC 9110, 7.4)."""
        if not self.application.names.allow(self.request.host):
            raise Refused(421, "this name is not in ALLOWED_HOSTS", headers=PRIVATE)

    def check_site(self) -> None:
        """Refuse a read that a page of another site makes its reader's browser ask for."""
        if self.request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise Refused(403, "pages of other sites may not read here", headers=PRIVATE)

    def check_read_token(self) -> None:
        token = self.application.config.read_token
        if token:
            self._check_token("read", token)

    def check_admin_token(self) -> None:
        """Refuse all but the admin; without an ADMIN_TOKEN the route is not there."""
        token = self.application.config.admin_token
        if not token:
            raise Refused(404, "not found")
        self._check_token("admin", token)

    def _check_token(self, name: str, token: str) -> None:
        given = self.request.headers.get("Authorization", "")
        scheme, _, credentials = given.partition(" ")
        if scheme.lower() != "bearer" or not matches(token, credentials.strip()):
            self.application.metrics.token_refused(name)
            challenge = ("WWW-Authenticate", 'Bearer realm="lyftr"')
            raise Refused(401, "a bearer token is required", headers=[challenge, *PRIVATE])

    def latency_ms(self) -> float:
        return (monotonic() - self.started) * 1000

    def client(self) -> str:
        """Return the address of whoever asks, behind the proxies that we trust."""
        address: str = self.application.client(self.request.remote_ip, self.request.headers)
        return address

    def account(self) -> None:
        """Count the ended request and write its line."""
        self.application.record(
            Ended(
                self.request.method,
                self.route,
                self.request.path,
                self.status,
                self.latency_ms(),
                self.request_id,
                self.client(),
                self.source,
                self.result,
                self.message_id,
                self.faults,
            )
        )


class BaseHandler(ServiceMixin, RequestHandler):
    """A handler whose every answer goes past Tornado's: a status, some headers, and bytes."""

    _streaming = False
    _answered = False

    def __init__(self, application: Any, request: Any) -> None:
        """Take a request, and build nothing of what Tornado's own answers are made of."""
        self.application = application
        self.request = request
        request.connection.set_close_callback(self.on_connection_close)
        self.initialize()

    async def serve(self, *args: bytes) -> None:
        """Answer the request, whatever happens; `args` is what its path holds.

        Tornado's _execute would parse forms that nobody signed, refuse a method before all else,
        and look after cookies that we have not.
        """
        try:
            self.check()
            await getattr(self, self.request.method.lower())(*map(self.decode_argument, args))
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    def check(self) -> None:
        """Refuse what may not go on; in the contract's order."""
        self.check_method()
        self.check_size()

    async def head(self, *args: str) -> None:
        await self.get(*args)  # type: ignore[misc]

    def reply(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Answer, and end the request."""
        self.status = status
        exchange = self._exchange()
        if not exchange.owe(len(body)):
            # Other clients have not read as much as may be kept for all of them.
            self.status, headers = 503, (RETRY_AFTER,)
            body = self._as_json({"detail": "try again later"})
        headers = (("X-Request-ID", self.request_id), *headers)
        exchange.respond(self.status, headers, body)
        self.account()

    async def reply_in_pieces(self, body: bytes, headers: Headers = ()) -> None:
        """Answer 200 with bytes that all requests share: none are copied for a slow reader."""
        self.start_stream(headers, len(body))
        for start in range(0, len(body), STREAM_BYTES):
            await self.send(body[start : start + STREAM_BYTES])
        self.end_stream()

    def start_stream(
        self, headers: Headers = (), length: int | None = None, *, waits: bool = False
    ) -> None:
        """Begin a 200 that is sent piece by piece; an error after this breaks it off.

        `length` is the sum of the pieces in bytes, where it is known. `waits`: a piece may be long
        in coming.
        """
        self.status = 200
        self._streaming = True
        headers = (("X-Request-ID", self.request_id), *headers)
        self.request.connection.begin(200, headers, length, waits=waits)

    async def send(self, data: bytes) -> None:
        """Send a piece of a stream, and wait until its client has room for more.

        Refused with 499 when the client is gone, or was cut because it does not read.
        """
        try:
            await self.request.connection.write(data)
        except ClientGone:
            raise Refused(499, "client closed request") from None

    def end_stream(self) -> None:
        """End a stream well: its client knows that it has everything."""
        self._exchange().finish()
        self.account()

    def _exchange(self) -> Any:
        """Return the way back, once."""
        self._answered = True
        return self.request.connection

    def reply_json(self, status: int, content: Any, headers: Headers = ()) -> None:
        self.reply(status, self._as_json(content), headers)

    def _as_json(self, content: Any) -> bytes:
        body = json.dumps(content, ensure_ascii=False).encode()
        # A newline for who reads it on a terminal; senders get the bytes that were agreed on.
        return body if self.source is not None else body + b"\n"

    # -- errors: one table from what was raised to what is answered

    def _fail(self, raised: BaseException) -> None:
        self._log_unforeseen(raised)
        if not self._answered:
            self._answer_error(raised)
        # The last to see it: frames that keep it, or the future that it came in, are cycles.
        error: BaseException | None = raised
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__

    def _answer_error(self, error: BaseException) -> None:
        if isinstance(error, Refused):
            refusal = error
        elif isinstance(error, Invalid):
            detail = [fault.as_json() for fault in error.faults]
            self.faults = json.dumps([fault.for_log() for fault in error.faults])
            refusal = Refused(422, detail, result="validation_error")
        elif isinstance(error, StoreError):
            refusal = Refused(
                503, "storage is unavailable", result="storage_error", headers=[RETRY_AFTER]
            )
        elif isinstance(error, HTTPError):
            refusal = Refused(error.status_code, "bad request")
        else:
            refusal = Refused(500, "internal error", result="storage_error")
        if self._streaming:
            # The head is gone: all that is left is to break off, so that nobody takes it for whole.
            self.status = refusal.status
            self._exchange().close()
            self.account()
            return
        if self.source is not None and self.result is None:
            self.result = refusal.result
        self.reply_json(refusal.status, {"detail": refusal.detail}, refusal.headers)

    def _log_unforeseen(self, error: BaseException) -> None:
        if not isinstance(error, _FORESEEN):
            log.event(
                logger,
                logging.ERROR,
                "unexpected_error",
                request_id=self.request_id,
                exception=log.describe(error),
            )
