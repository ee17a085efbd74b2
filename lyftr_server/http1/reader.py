"""A client's bytes become requests: llhttp's parser, and what it lets pass and we do not."""

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from .exchange import Upload

if TYPE_CHECKING:
    from .server import Limits


class Taker(Protocol):
    """What the reader tells of."""

    def begun(self, upload: Upload) -> None: ...

    def awaits_body(self, upload: Upload) -> None: ...

    def submit(self, upload: Upload) -> None:
        """Take a request that is whole, or will not be read further."""


class Reader:
    """Parses one client's requests, and hands them on.

    One that is refused, too large, or the last of its connection sets `last`: no upload begins
    after it, and whatever the parser still says is ignored.
    """

    def __init__(self, limits: "Limits", taker: Taker) -> None:
        self.upload: Upload | None = None
        self.last = False
        self.discarding = False  # nobody wants to know what else the client sends
        self.client = ""  # its address
        self._limits = limits
        self._taker = taker
        self._parser = HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        before = self.upload
        size = before.size if before is not None else 0
        try:
            self._parse(data)
        except HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Refused):
                raise
            self.refuse(error.__context__.status)
        except HttpParserError:
            if self.last:
                self.discarding = True  # more than the request that was to be the last
            else:
                self.refuse(400)
        else:
            upload = self.upload
            if upload is not None and upload is before and upload.size == size:
                # A header is not seen before its end, chunk extensions and trailers never: what
                # llhttp keeps to itself has to be bounded here.
                upload.fruitless += len(data)
                if upload.fruitless > self._limits.head_bytes:
                    self.refuse(431)
            elif upload is not None:
                upload.fruitless = 0

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                upload = self.upload
                if upload is None:
                    self.discarding = True  # after CONNECT comes no HTTP
                    return
                # We speak nothing to upgrade to, and httptools skips the body of such a request
                # (Java's client sends one): the request is read again without the offer.
                self._parser = HttpRequestParser(self)
                data = upload.head_without_upgrade() + data[offer.args[0] :]

    def refuse(self, status: int) -> None:
        """End with a request that cannot be served; nothing after it makes sense."""
        upload = self.upload or Upload(monotonic(), self.client)
        upload.refusal = status
        self._submit_last(upload)

    def stop(self) -> Upload | None:
        """Want nothing more; return the request that was not whole, if its head was."""
        upload, self.upload = self.upload, None
        self.last = True
        return upload if upload is not None and upload.headers_complete else None

    def _submit_last(self, upload: Upload) -> None:
        self.upload = None
        self.last = self.discarding = True
        upload.drop_body()
        upload.keep_alive = False
        self._taker.submit(upload)

    # -- httptools

    def on_message_begin(self) -> None:
        if not self.last:
            self.upload = Upload(monotonic(), self.client)
            self._taker.begun(self.upload)

    def on_url(self, url: bytes) -> None:
        upload = self.upload
        if upload is not None:
            upload.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        upload = self.upload
        if upload is not None and not upload.headers_complete:  # else a trailer
            if upload.header_count == self._limits.headers:
                raise _Refused(431)
            upload.add_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        upload = self.upload
        if upload is None:
            return
        parser = self._parser
        upload.headers_complete = True
        upload.method = parser.get_method().decode("ascii")
        upload.version = parser.get_http_version()
        upload.keep_alive = parser.should_keep_alive()
        if parser.should_upgrade():
            if upload.method != "CONNECT":
                upload.offers_upgrade = True  # see _parse
                return
            upload.keep_alive = False
        self._check_head(upload)
        if upload.too_large:
            self._submit_last(upload)  # the application refuses it
        else:
            self._taker.awaits_body(upload)

    def _check_head(self, upload: Upload) -> None:
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
        upload = self.upload
        if upload is None:
            return
        if upload.size + len(chunk) > self._limits.body_bytes:
            upload.too_large = True
            self._submit_last(upload)
        else:
            upload.add(chunk)

    def on_message_complete(self) -> None:
        upload = self.upload
        if upload is not None and not upload.offers_upgrade:
            self.upload = None
            if not upload.keep_alive:
                self.last = True
            self._taker.submit(upload)


class _Refused(Exception):
    """Raised inside a parser's callback: the request ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
