"""python -m tests.attack.crowd PORT NAME CLIENTS SECONDS: many clients that do one thing.

In a process of its own, so that the deliveries that are measured beside it have theirs.
"""

import contextlib
import resource
import selectors
import socket
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

MEGABYTE = 1 << 20
HOST = b"Host: localhost\r\n"


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\n".encode() + HOST + b"\r\n"


def post(body: bytes, length: int | None = None) -> bytes:
    """Return a delivery without a signature; it may lack what `length` promises."""
    size = len(body) if length is None else length
    return b"POST /webhook HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size + body


def one_byte_chunks() -> bytes:
    head = b"POST /webhook HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"1\r\nx\r\n" * 900_000 + b"0\r\n\r\n"


class Attack(NamedTuple):
    """What each client sends; again and again, unless `once`. Some never read."""

    title: str
    clients: int
    data: Callable[[], bytes]
    reads: bool = True
    once: bool = False


ATTACKS = {
    "nothing": Attack("nobody", 0, bytes),
    "uploads": Attack(
        "uploads of 1 MB that lack a byte",
        300,
        lambda: post(bytes(MEGABYTE - 1), MEGABYTE),
        once=True,
    ),
    "many-uploads": Attack(
        "as many as may come, each with 200 kB of 1 MB",
        5000,
        lambda: post(bytes(200_000), MEGABYTE),
        once=True,
    ),
    "heads": Attack(
        "as many as may come, each with a head that lacks its end",
        5000,
        lambda: get("/").removesuffix(b"\r\n") + b"X: " + b"y" * 31_000,
        once=True,
    ),
    "bodies": Attack(
        "bodies of 1 MB without a signature, pipelined", 20, lambda: post(bytes(MEGABYTE))
    ),
    "chunks": Attack("bodies in chunks of one byte", 50, one_byte_chunks),
    "requests": Attack(
        "small requests without a signature, pipelined", 20, lambda: post(b"{}") * 500
    ),
    "pages": Attack(
        "pages that nobody reads",
        60,
        lambda: get("/messages?limit=100") * 20,
        reads=False,
        once=True,
    ),
    "exports": Attack(
        "exports that nobody reads",
        60,
        lambda: get("/messages.ndjson") * 20,
        reads=False,
        once=True,
    ),
    "files": Attack(
        "the API page's files, that nobody reads",
        60,
        lambda: get("/docs/swagger-ui.js") * 20,
        reads=False,
        once=True,
    ),
    "search": Attack("searches for 256 equal letters", 4, lambda: get("/messages?q=" + "a" * 256)),
    "listings": Attack(
        "pages far behind, and counts", 30, lambda: get("/messages?offset=3000&limit=100")
    ),
}


class Client:
    """One client of the crowd; it comes again when it is cut."""

    def __init__(
        self, port: int, attack: Attack, data: bytes, crowd: selectors.BaseSelector
    ) -> None:
        self._port, self._attack, self._crowd = port, attack, crowd
        self._data = memoryview(data)
        self._sent = 0
        self._connect()

    def _connect(self) -> None:
        self._sent = 0
        self._socket = socket.socket()
        if not self._attack.reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(10)
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.setblocking(False)
        reads = selectors.EVENT_READ if self._attack.reads else 0
        self._crowd.register(self._socket, selectors.EVENT_WRITE | reads, self)

    def go_on(self, events: int) -> None:
        try:
            if events & selectors.EVENT_READ and not self._socket.recv(1 << 16):
                raise ConnectionResetError
            if events & selectors.EVENT_WRITE:
                self._send()
        except BlockingIOError:
            pass
        except OSError:
            self._crowd.unregister(self._socket)
            self._socket.close()
            if not self._attack.once:
                self._connect()

    def _send(self) -> None:
        self._sent += self._socket.send(self._data[self._sent : self._sent + (1 << 18)])
        if self._sent < len(self._data):
            return
        self._sent = 0
        if self._attack.once:
            if self._attack.reads:
                self._crowd.modify(self._socket, selectors.EVENT_READ, self)
            else:
                self._crowd.unregister(self._socket)


def run(port: int, name: str, clients: int, seconds: float) -> None:
    attack, end = ATTACKS[name], time.monotonic() + seconds
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    data = attack.data()
    with selectors.DefaultSelector() as crowd:
        kept: list[Client] = []
        while time.monotonic() < end:
            new = min(50, clients - len(kept))
            kept += [Client(port, attack, data, crowd) for _ in range(new)]
            if not crowd.get_map():
                time.sleep(0.05)
                continue
            for key, events in crowd.select(0.05):
                key.data.go_on(events)


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
