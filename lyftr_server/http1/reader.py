"""A client's bytes become requests: llhttp's parser, and what it lets pass and we do not."""

import re
from time import monotonic
from typing import Protocol

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from .limits import ClientLimits, Share
from .upload import FIELD_BYTES, Upload

# RFC 9110, 9.1: any token may be a method. llhttp knows its own.
_METHOD = re.compile(rb"(?:\r\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64})( ?)")
_KNOWN = b"PATCH"
# Those of other protocols: behind them it wants no HTTP.
_FOREIGN = frozenset(
    b"PRI ANNOUNCE DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY RECORD REDIRECT SET_PARAMETER SETUP"
    b" TEARDOWN".split()
)
# What a request is taken to need beside its head: the first bytes of its body, too. Those that
# wait pay for it, the one that is received or answered does not.
REQUEST_BYTES = 1 << 10
ROOM_BYTES = 4 << 10


class Receiver(Protocol):
    """Whom the reader tells of requests."""

    def wants_body(self, upload: Upload) -> bool: ...

    def submit(self, upload: Upload) -> None:
        """Take a request that is whole, or will not be read further."""


class RequestReader:
    """Parses one client's requests, and hands them on.

    One that is refused, too large, or the last of its connection sets `last`: no upload begins
    after it, and whatever the parser still says is ignored.
    """

    def __init__(self, limits: ClientLimits, share: Share, receiver: Receiver) -> None:
        self.upload: Upload | None = None
        self.last = False
        self.discarding = False  # nobody wants to know what else the client sends
        self.client = ""  # its address
        self._limits = limits
        self._share = share
        self._receiver = receiver
        self._parser = HttpRequestParser(self)
        self._start = b""  # of a request whose method is not whole yet
        self._at_start = True  # no request has ended in what is being parsed

    def feed(self, data: bytes) -> None:
        before = self.upload
        self._at_start = before is None or bool(self._start)
        data, self._start = self._start + data, b""
        size = before.size if before is not None else 0
        try:
            self._parse(data)
        except HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Faulty):
                raise
            self._remember(before, data)
            self.refuse(error.__context__.status)
        except HttpParserError:
            if self.last:
                self.discarding = True  # more than the request that was to be the last
            else:
                self._name_method(data)
                self._remember(before, data)
                self.refuse(400)
        else:
            upload = self.upload
            if upload is not None:
                self._remember(before, data)
                self._look_after(upload, data, upload is before and upload.size == size)

    def _look_after(self, upload: Upload, data: bytes, idle: bool) -> None:
        upload.head_end = upload.head_end[-FIELD_BYTES:]
        if not upload.target and self._at_start:
            self._start_again(data)
            upload.head_end = b""  # it comes again
        upload.idle_bytes = upload.idle_bytes + len(data) if idle else 0
        # A header is not seen before its end, chunk extensions and trailers never: what
        # llhttp keeps to itself has to be bounded here.
        limits = self._limits
        if upload.idle_bytes > (limits.extra_bytes if upload.head_complete else limits.head_bytes):
            self.refuse(431)

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                upload, self.upload = self.upload, None
                if upload is None:
                    self.discarding = True  # after CONNECT comes no HTTP
                    return
                # We speak nothing to upgrade to, and httptools skips the body of such a request
                # (Java's client sends one): the request is read again without the offer.
                self._parser = HttpRequestParser(self)
                self._at_start = True
                data = upload.head_without_upgrade() + data[offer.args[0] :]
            except (HttpParserInvalidMethodError, HttpParserCallbackError) as error:
                if not isinstance(error.__context__, _Foreign | None):
                    raise
                upload, match = self.upload, _METHOD.match(data)
                if upload is None or not (self._at_start and match) or match[1] == _KNOWN:
                    raise
                if not match[2]:
                    if match.end() < len(data):
                        raise
                    self._start_again(data)
                    return
                # A method that llhttp does not know is read as if it were one that it does.
                self._parser = HttpRequestParser(self)
                upload.method = match[1].decode("ascii")
                data = _KNOWN + data[match.end(1) :]

    def _start_again(self, data: bytes) -> None:
        """Keep the first bytes of a method until it is whole; they are few."""
        self._start = data
        self._parser = HttpRequestParser(self)

    def _name_method(self, data: bytes) -> None:
        """Learn the method of a request whose head is broken: HEAD's answer has no body."""
        upload = self.upload
        if upload is None or upload.method:
            return
        match = _METHOD.match(data)
        if upload.target:
            upload.method = self._parser.get_method().decode("ascii")
        elif self._at_start and match and match[2]:
            upload.method = match[1].decode("ascii")

    def _remember(self, before: Upload | None, data: bytes) -> None:
        """Keep what came of a head that is not whole; `before` is the upload that it came to."""
        upload = self.upload
        if upload is None or upload.head_complete:
            return
        # Else it is the end of another request, too.
        if upload is before or (before is None and self._at_start):
            upload.head_end += data

    def refuse(self, status: int) -> None:
        """End with a request that cannot be served; nothing after it makes sense."""
        upload = self.upload or Upload(monotonic(), self.client)
        if upload.target and not upload.method:
            upload.method = self._parser.get_method().decode("ascii")
        upload.find_request_id()
        upload.refusal = status
        self._submit_last(upload)

    def stop(self) -> Upload | None:
        """Want nothing more; return the request that was not whole, if its head was."""
        upload, self.upload = self.upload, None
        self.last = True
        if upload is None or not upload.head_complete:
            return None
        self._release(upload)
        return upload

    def _submit_last(self, upload: Upload) -> None:
        self.upload = None
        self.last = self.discarding = True
        upload.keep_alive = False
        self._release(upload)
        self._receiver.submit(upload)

    def _release(self, upload: Upload) -> None:
        upload.drop_body()
        self._share.give(upload.reserved)
        upload.reserved = 0

    def _make_room(self, upload: Upload, size: int) -> None:
        """Reserve what a body of `size` takes beyond the room it has."""
        if upload.wants_body:
            if not self._share.take(size - upload.room):
                raise _Faulty(503)
            upload.reserved += size - upload.room
        upload.room = size

    # -- httptools

    def on_message_begin(self) -> None:
        if not self.last and self.upload is None:
            self.upload = Upload(monotonic(), self.client)

    def on_url(self, url: bytes) -> None:
        upload = self.upload
        if upload is not None:
            if not (upload.target or upload.method) and self._parser.get_method() in _FOREIGN:
                raise _Foreign(400)  # read anew, where that can be
            upload.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        upload = self.upload
        if upload is not None and not upload.head_complete:  # else a trailer
            if upload.header_count == self._limits.headers:
                raise _Faulty(431)
            upload.add_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        upload = self.upload
        if upload is None:
            return
        parser = self._parser
        upload.head_complete = True
        upload.method = upload.method or parser.get_method().decode("ascii")
        upload.version = parser.get_http_version()
        upload.keep_alive = parser.should_keep_alive()
        if upload.version == "1.0" and upload.says_close():
            upload.keep_alive = False
        if parser.should_upgrade():
            if upload.method != "CONNECT":
                upload.offers_upgrade = True  # see _parse
                return
            upload.keep_alive = False
        self._check_head(upload)
        if upload.too_large:
            self._submit_last(upload)  # the application refuses it

    def _check_head(self, upload: Upload) -> None:
        headers, limits = upload.headers, self._limits
        if upload.head_bytes + len(upload.target) > limits.head_bytes:
            raise _Faulty(431)
        if upload.version not in ("1.0", "1.1"):
            raise _Faulty(505)
        length = headers.own("content-length")
        coding = headers.own("transfer-encoding")
        if coding is not None:
            if upload.version == "1.0":
                raise _Faulty(400)
            if coding.lower() != "chunked":
                raise _Faulty(501)
        expected = headers.own("expect")
        if expected is not None:
            if expected.lower() != "100-continue":
                raise _Faulty(417)
            upload.expects_continue = upload.version == "1.1"
        if length is not None:
            upload.too_large = len(length) > 18 or int(length) > limits.body_bytes
        if upload.too_large or (length is None and coding is None):
            return
        upload.body_since = monotonic()
        size = limits.body_bytes if length is None else int(length)
        upload.room = min(REQUEST_BYTES, limits.body_bytes)
        # What is small is not worth the question.
        upload.wants_body = size <= REQUEST_BYTES or self._receiver.wants_body(upload)
        if length is not None and size > upload.room:
            self._make_room(upload, size)

    def on_body(self, chunk: bytes) -> None:
        upload = self.upload
        if upload is None:
            return
        size = upload.size + len(chunk)
        if size > upload.room:
            most = self._limits.body_bytes
            if size > most:
                upload.too_large = True
                self._submit_last(upload)
                return
            # Of a body of unknown length some at a time, however small the chunks.
            self._make_room(upload, min(size + ROOM_BYTES, most))
        upload.add(chunk)

    def on_message_complete(self) -> None:
        upload = self.upload
        self._at_start = False
        if upload is not None and not upload.offers_upgrade:
            self.upload = None
            if not upload.keep_alive:
                self.last = True
            self._receiver.submit(upload)


class _Faulty(Exception):
    """Raised inside a parser's callback: the request ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Foreign(_Faulty):
    """The method is one of another protocol's."""
