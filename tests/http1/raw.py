"""A client that sends whatever bytes it is told to, and reads strictly what comes back."""

import itertools
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [A-Za-z '-]+")
_HEADER = re.compile(rb"([A-Za-z0-9-]+): ([\x20-\x7e]*)")


@dataclass
class RawAnswer:
    """One answer as it came, with the interim answers before it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    interim: list[int] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """Return a header's value; it must not be there twice."""
        values = [value for each, value in self.headers if each.lower() == name.lower()]
        assert len(values) <= 1, self.headers
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        return self.header("Connection") == "close"


class Broken(Exception):
    """The server's bytes are no HTTP, or the connection ended inside an answer."""


class Raw:
    """A connection to the server on this machine; use it in a `with`."""

    def __init__(
        self, port: int, *, timeout: float = 10, receive_buffer: int | None = None
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # -- sending

    def send(self, data: bytes) -> "Raw":
        self.socket.sendall(data)
        return self

    def send_in(self, pieces: Iterable[bytes], pause: float = 0.0) -> "Raw":
        """Send piece by piece, each in a packet of its own when `pause` lets it leave."""
        for piece in pieces:
            self.socket.sendall(piece)
            if pause:
                time.sleep(pause)
        return self

    def end_sending(self) -> "Raw":
        """Half-close: no more requests, answers are still welcome."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Go away without a word: a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    # -- receiving

    def answer(self, method: str = "GET") -> RawAnswer:
        """Read one whole answer to a request with `method`; Broken when there is none."""
        interim = []
        while True:
            status, headers = self._head()
            if status >= 200:
                break
            interim.append(status)
        found = RawAnswer(status, headers, b"", interim)
        if method == "HEAD" or status in (204, 304):
            return found
        length = found.header("Content-Length")
        if found.header("Transfer-Encoding") == "chunked":
            assert length is None, headers
            found.body = self._chunked()
        elif length is not None:
            found.body = self._take(int(length))
        else:
            found.body = self.rest()
        return found

    def answers(self, count: int) -> list[RawAnswer]:
        return [self.answer() for _ in range(count)]

    def more(self) -> bool:
        """Wait until more comes, or the end: whether there is more."""
        return bool(self._received) or self._receive()

    def interim(self) -> int:
        """Read one interim answer's status."""
        status, headers = self._head()
        assert status < 200, (status, headers)
        return status

    def rest(self) -> bytes:
        """Return all that comes before the end; ConnectionResetError if it is a hard one."""
        while self._receive():
            pass
        data, self._received = self._received, b""
        return data

    def at_end(self) -> bool:
        """Wait for the end; whether nothing more came before it."""
        return self.rest() == b""

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes, not even the end, for so long."""
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return not self._received and self.socket.recv(1, socket.MSG_PEEK) is None
        except (TimeoutError, BlockingIOError):
            return True
        finally:
            self.socket.settimeout(before)

    def _head(self) -> tuple[int, list[tuple[str, str]]]:
        while b"\r\n\r\n" not in self._received:
            if not self._receive():
                raise Broken(f"the end came after {self._received!r}")
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = _STATUS_LINE.fullmatch(first)
        if status is None:
            raise Broken(f"no status line: {first!r}")
        headers = []
        for line in lines:
            match = _HEADER.fullmatch(line)
            if match is None:
                raise Broken(f"no header: {line!r}")
            headers.append((match[1].decode(), match[2].decode()))
        return int(status[1]), headers

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            if not self._receive():
                raise Broken(f"{len(self._received)} of {size} bytes of a body")
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _chunked(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._received:
                if not self._receive():
                    raise Broken("the end came before the last chunk")
            line, _, self._received = self._received.partition(b"\r\n")
            chunk = self._take(int(line, 16))
            assert self._take(2) == b"\r\n"
            if not chunk:
                return body
            body += chunk

    def _receive(self) -> bool:
        data = self.socket.recv(1 << 16)
        self._received += data
        return bool(data)


def request(
    method: str = "GET",
    target: str = "/health/live",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    version: str = "1.1",
    host: str | None = "localhost",
) -> bytes:
    """Return a request's bytes; with a Content-Length if it has a body."""
    fields = {} if host is None else {"Host": host}
    fields |= dict(headers or {})
    if body and not {"Content-Length", "Transfer-Encoding"} & set(fields):
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {fields[name]}" for name in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, trailers: bytes = b"") -> bytes:
    """Return a chunked body."""
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return coded + b"0\r\n" + trailers + b"\r\n"


def split(data: bytes, *places: int) -> list[bytes]:
    """Cut at these places."""
    edges = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]
