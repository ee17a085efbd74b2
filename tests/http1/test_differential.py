"""The same application on Tornado's own HTTPServer and on ours: every difference has its reason."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets
from tornado.platform.asyncio import AsyncIOLoop

from lyftr_server import http1
from lyftr_server.app import Application
from lyftr_server.signature import sign

from ..process import SECRET, message
from .raw import chunked, request

BODY = json.dumps(message("differential")).encode()
SIGNED = {"X-Signature": sign(SECRET.encode(), BODY)}
LIVE = request()
HEAD = b"POST /webhook HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DELIVERY = request("POST", "/webhook", SIGNED, BODY)

# What came back: the statuses, in order, and whether the connection was closed then.
Outcome = tuple[tuple[int, ...], bool]


def _delivery(**headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request("POST", "/webhook", SIGNED | named, BODY)


def _coded(coded: bytes, **headers: str) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    coding = {"Transfer-Encoding": "chunked"}
    return request("POST", "/webhook", SIGNED | coding | named) + coded


SAME: dict[str, bytes] = {
    "get": LIVE,
    "head": request("HEAD", "/health"),
    "root": request("GET", "/"),
    "messages": request("GET", "/messages"),
    "messages with arguments": request("GET", "/messages?limit=5&offset=0&q=%C3%BC&from=+91"),
    "messages with an empty argument": request("GET", "/messages?q="),
    "messages with a bad argument": request("GET", "/messages?limit=0"),
    "messages with a bad escape": request("GET", "/messages?q=%zz"),
    "messages with an argument that is no UTF-8": request("GET", "/messages?q=%ff"),
    "one message": request("GET", "/messages/nobody"),
    "one message that is no UTF-8": request("GET", "/messages/%ff"),
    "stats": request("GET", "/stats"),
    "ready": request("GET", "/health/ready"),
    "metrics": request("GET", "/metrics"),
    "unknown path": request("GET", "/nowhere"),
    "path with two slashes": request("GET", "//health"),
    "path with an escape": request("GET", "/health%2flive"),
    "path with a semicolon": request("GET", "/health;x"),
    "query without a name": request("GET", "/health?=&=&&"),
    "asterisk": request("OPTIONS", "*"),
    "wrong method": request("DELETE", "/messages"),
    "options": request("OPTIONS", "/webhook"),
    "patch": request("PATCH", "/", body=b"x"),
    "unusual method": request("PROPFIND", "/messages"),
    "lower-case method": b"get /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"BREW /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "delivery": DELIVERY,
    "delivery with another type": _delivery(Content_Type="text/plain"),
    "delivery as a form": _delivery(Content_Type="application/x-www-form-urlencoded"),
    "delivery twice": DELIVERY * 2,
    "delivery chunked": _coded(chunked(BODY)),
    "delivery in many chunks": _coded(chunked(*(bytes([byte]) for byte in BODY))),
    "delivery chunked with capitals": _coded(chunked(BODY), Transfer_Encoding="Chunked"),
    "delivery with capital hex": _coded(b"%X\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "delivery without signature": request("POST", "/webhook", {}, BODY),
    "delivery with a wrong signature": request("POST", "/webhook", {"X-Signature": "00"}, BODY),
    "delivery with signatures twice": HEAD + b"X-Signature: a\r\nX-Signature: b\r\n\r\n",
    "delivery with a signature of bytes": HEAD + b"X-Signature: \xff\xfe\r\n\r\n",
    "delivery without body": request("POST", "/webhook", SIGNED),
    "delivery of nothing": request("POST", "/webhook", {"Content-Length": "0"}),
    "get with a body": request("GET", "/health", body=b"ignored"),
    "pipeline": LIVE * 5,
    "pipeline of kinds": LIVE + request("GET", "/nowhere") + DELIVERY + request("DELETE", "/"),
    "empty line before": b"\r\n" + LIVE,
    "close": request(headers={"Connection": "close"}),
    "close in capitals": request(headers={"Connection": "Close"}),
    "keep-alive": request(headers={"Connection": "keep-alive"}),
    "1.0": request(version="1.0"),
    "1.0 without host": request(version="1.0", host=None),
    "1.0 kept alive": request(version="1.0", headers={"Connection": "keep-alive"}) * 2,
    "1.0 delivery": DELIVERY.replace(b"/1.1", b"/1.0", 1),
    "empty header": GET + b"X:\r\n\r\n",
    "header without space": GET + b"X:y\r\n\r\n",
    "header with spaces": GET + b"X: \t y \t \r\n\r\n",
    "header of bytes": GET + b"X: \xe4\xff\r\n\r\n",
    "header twice": GET + b"X: y\r\nX: z\r\n\r\n",
    "header in capitals": GET.upper().replace(b"/HEALTH", b"/health") + b"\r\n",
    "host with a port": request(host="example.com:8000"),
    "host of numbers": request(host="[::1]:8000"),
    "host empty": request(host=""),
    "no host": request(host=None),
    "host twice": GET + b"Host: a\r\n\r\n",
    "host with a space": request(host="a b"),
    "host with a slash": request(host="a/b"),
    "host with a user": request(host="u@a"),
    "version of letters": b"GET /health HTTP/x.y\r\nHost: a\r\n\r\n",
    "version 1.10": b"GET /health HTTP/1.10\r\nHost: a\r\n\r\n",
    "lower-case protocol": b"GET /health http/1.1\r\nHost: a\r\n\r\n",
    "another protocol": b"GET /health SMTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": b"GET /he alth HTTP/1.1\r\nHost: a\r\n\r\n",
    "nul in target": b"GET /he\x00alth HTTP/1.1\r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab in the first line": b"GET\t/health HTTP/1.1\r\nHost: a\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "no name": GET + b": y\r\n\r\n",
    "space before the colon": GET + b"X : y\r\n\r\n",
    "space in a name": GET + b"X Y: z\r\n\r\n",
    "nul in a name": GET + b"X\x00: z\r\n\r\n",
    "nul in a value": GET + b"X: \x00\r\n\r\n",
    "control in a value": GET + b"X: \x01\r\n\r\n",
    "delete in a value": GET + b"X: \x7f\r\n\r\n",
    "folded": GET + b"X: y\r\n z\r\n\r\n",
    "bare cr": GET + b"X: y\rz\r\n\r\n",
    "both lengths": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length with plus": HEAD + b"Content-Length: +3\r\n\r\nabc",
    "length with minus": HEAD + b"Content-Length: -3\r\n\r\nabc",
    "length in hex": HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    "length of letters": HEAD + b"Content-Length: abc\r\n\r\nabc",
    "length empty": HEAD + b"Content-Length: \r\n\r\nabc",
    "length with underscore": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "coding twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunk with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk with plus": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk with minus": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "chunk with space": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk with underscore": CHUNKED + b"0_3\r\nabc\r\n0\r\n\r\n",
    "chunk without size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "chunk of no hex": CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n",
    "expect in capitals": _delivery(Expect="100-Continue"),
    "coding with a space behind": HEAD + b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
    "length of 2^64": HEAD + b"Content-Length: 18446744073709551616\r\n\r\n",
    "chunk of zeros": _coded(b"%020x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk of 2^64": CHUNKED + b"10000000000000000\r\n",
    "trailer with a length": _coded(chunked(BODY, trailers=b"Content-Length: 1\r\n")),
    "upgrade": request(headers={"Connection": "Upgrade", "Upgrade": "h2c"}),
    "upgrade of a delivery": _delivery(Connection="Upgrade", Upgrade="h2c"),
    "target with delete": b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
    "target with a tab": b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": request("GET", "/health#x"),
    "backslash": request("GET", "/\\health"),
    "space behind the version": b"GET /health HTTP/1.1 \r\nHost: a\r\n\r\n",
    "space before the method": b" GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "space before the first header": b"GET /health HTTP/1.1\r\n Host: a\r\n\r\n",
    "name of bytes": GET + b"\xe4: y\r\n\r\n",
    "host of bytes": GET.replace(b"Host: a", b"Host: \xe4") + b"\r\n",
    "host as a list": request(host="a,b"),
    "host with two ports": request(host="a:1:2"),
    "host with a port of letters": request(host="a:b"),
    "host in brackets alone": request(host="[::1"),
    "1,001 arguments": request("GET", "/messages?" + "a=b&" * 1000 + "a=b"),
    "requests after close": request(headers={"Connection": "close"}) + LIVE,
    "1.0 with a body that is not declared": b"POST /webhook HTTP/1.0\r\n\r\nabc",
    "garbage": b"\x00\x01\x02\x03\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "chunk too long": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
}  # fmt: skip

# name: (request, Tornado's outcome, ours, why)
DIFFERENT: dict[str, tuple[bytes, Outcome, Outcome, str]] = {
    "100 headers": (
        GET + b"X: y\r\n" * 100 + b"\r\n",
        ((200,), False),
        ((431,), True),
        "ClientLimits.headers; Tornado counts none",
    ),
    "absolute target": (
        request("GET", "http://localhost/health"),
        ((404,), False),
        ((200,), False),
        "RFC 9112, 3.2.2: a server must accept it",
    ),
    "absolute target without path": (
        request("GET", "http://localhost"),
        ((404,), False),
        ((200,), False),
        "its path is /",
    ),
    "another protocol with a method of its own": (
        b"OPTIONS /health RTSP/1.0\r\nHost: a\r\n\r\n",
        ((400,), True),
        ((405,), True),
        "llhttp reads RTSP's first line; it is answered and closed",
    ),
    "bare lf": (
        GET.replace(b"\r\n", b"\n") + b"\n",
        ((200,), False),
        ((400,), True),
        "a reader before us may see no end of line there",
    ),
    "bare lf in a header": (
        GET + b"X: y\n\r\n",
        ((200,), False),
        ((400,), True),
        "a reader before us may see no end of line there",
    ),
    "chunk too large": (
        CHUNKED + b"100001\r\n" + b"x" * 0x100001 + b"\r\n0\r\n\r\n",
        ((413,), False),
        ((413,), True),
        "we read no more of it, so the connection is over",
    ),
    "chunk with an extension": (
        _coded(b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
        ((400,), True),
        ((200,), False),
        "RFC 9112, 7.1.1: a recipient must ignore unknown ones",
    ),
    "chunk with bare lf": (
        CHUNKED + b"3\nabc\n0\n\n",
        ((0,), False),
        ((400,), True),
        "Tornado waits for a CRLF",
    ),
    "close in a list": (
        request(headers={"Connection": "keep-alive, close"}),
        ((200,), False),
        ((200,), True),
        "Connection is a list; Tornado looks for close alone",
    ),
    "coding empty": (
        HEAD + b"Transfer-Encoding:\r\n\r\n",
        ((400,), True),
        ((501,), True),
        "a coding that we do not know (RFC 9112, 6.1)",
    ),
    "coding gzip": (
        HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
        ((400,), True),
        ((501,), True),
        "a coding that we do not know (RFC 9112, 6.1)",
    ),
    "coding gzip, chunked": (
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ((400,), True),
        ((501,), True),
        "a coding that we do not know (RFC 9112, 6.1)",
    ),
    "coding identity": (
        HEAD + b"Transfer-Encoding: identity\r\n\r\n",
        ((400,), True),
        ((501,), True),
        "a coding that we do not know (RFC 9112, 6.1)",
    ),
    "coding in 1.0": (
        b"POST /webhook HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ((401,), True),
        ((400,), True),
        "RFC 9112, 6.1: its framing is faulty",
    ),
    "connect": (
        request("CONNECT", "example.com:443"),
        ((404,), False),
        ((404,), True),
        "what follows it may be anything",
    ),
    "expect in 1.0": (
        _delivery(Expect="100-continue").replace(b"/1.1", b"/1.0", 1),
        ((100, 200), True),
        ((200,), True),
        "RFC 9110, 10.1.1: to be ignored",
    ),
    "expect": (
        _delivery(Expect="100-continue"),
        ((100, 200), False),
        ((200,), False),
        "RFC 9110, 10.1.1: not when the body is there already",
    ),
    "expect something else": (
        request(headers={"Expect": "more"}),
        ((200,), False),
        ((417,), True),
        "an expectation that we cannot meet",
    ),
    "head of 40 kB": (
        GET + b"X: " + b"y" * 40000 + b"\r\n\r\n",
        ((200,), False),
        ((431,), True),
        "ClientLimits.head_bytes; Tornado's is 64 KiB",
    ),
    "head of 70 kB": (
        GET + b"X: " + b"y" * 70000 + b"\r\n\r\n",
        ((), True),
        ((431,), True),
        "Tornado hangs up",
    ),
    "length too large": (
        HEAD + b"Content-Length: 1048577\r\n\r\n",
        ((0,), False),
        ((413,), True),
        "refused at once; Tornado waits for the body",
    ),
    "length with zeros": (
        _delivery(Content_Length=f"{len(BODY):025}"),
        ((200,), False),
        ((413,), True),
        "a number of more than 18 digits is large, whatever they are",
    ),
    "lengths in a list": (
        HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
        ((401,), False),
        ((400,), True),
        "a reader before us may take the second",
    ),
    "no version": (b"GET /health\r\n\r\n", ((400,), True), ((505,), True), "that is HTTP/0.9"),
    "preface of HTTP/2": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ((400,), True),
        ((505,), True),
        "a version that we do not speak",
    ),
    "relative target": (
        request("GET", "health"),
        ((404,), False),
        ((400,), True),
        "no form of RFC 9112, 3.2",
    ),
    "several empty lines before": (
        b"\r\n\r\n\r\n" + LIVE,
        ((400,), True),
        ((200,), False),
        "RFC 9112, 2.2: at least one is to be ignored",
    ),
    "target of another scheme": (
        request("GET", "ftp://localhost/health"),
        ((404,), False),
        ((200,), False),
        "in absolute form only the path counts",
    ),
    "target of bytes": (
        b"GET /\xe4 HTTP/1.1\r\nHost: a\r\n\r\n",
        ((404,), False),
        ((400,), True),
        "no URI has them",
    ),
    "trailer": (
        _coded(chunked(BODY, trailers=b"X: y\r\n")),
        ((400,), True),
        ((200,), False),
        "RFC 9112, 7.1.2: trailers may be discarded",
    ),
    "two lengths alike": (
        HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        ((401,), False),
        ((400,), True),
        "a reader before us may join them",
    ),
    "two spaces": (
        b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
        ((400,), True),
        ((200,), False),
        "RFC 9112, 3: a recipient may read it by its words",
    ),
    "version 0.9": (
        request(version="0.9"),
        ((400,), True),
        ((505,), True),
        "a version that we do not speak",
    ),
    "version 1.2": (
        request(version="1.2"),
        ((200,), True),
        ((400,), True),
        "llhttp knows its versions",
    ),
    "version 2.0": (
        request(version="2.0"),
        ((400,), True),
        ((505,), True),
        "a version that we do not speak",
    ),
}

MARKER = request(headers={"X-Request-ID": "marker"})


class TornadoExchange:
    """What our handlers answer on, on a connection of Tornado's own server."""

    def __init__(self, request: HTTPServerRequest) -> None:
        self.started = monotonic()
        self._connection: Any = request.connection
        self._head_only = request.method == "HEAD"
        self.too_large = len(request.body) > http1.ClientLimits().body_bytes

    def set_close_callback(self, callback: Callable[[], None]) -> None:
        self._connection.set_close_callback(callback)

    def detach(self) -> "TornadoExchange":
        return self

    def owe(self, size: int) -> bool:
        return True

    def respond(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        fields = HTTPHeaders({"Content-Type": "application/json"} | dict(headers))
        fields["Content-Length"] = str(len(body))
        body = b"" if self._head_only else body
        self._connection.write_headers(ResponseStartLine("", status, "x"), fields, body)
        self._connection.finish()


@pytest.fixture
def ports(io_loop: AsyncIOLoop, app: Application) -> Iterator[tuple[int, int]]:
    """Tornado's port, and ours."""

    def on_tornado(request: HTTPServerRequest) -> None:
        request.connection = TornadoExchange(request)  # type: ignore[assignment]
        app(request)  # type: ignore[arg-type]

    server = http1.Server(app, http1.ClientLimits())
    app.load = server.load
    theirs = HTTPServer(on_tornado)

    async def listen() -> int:
        theirs.add_socket(bound)
        return await server.listen("127.0.0.1", 0)

    (bound,) = bind_sockets(0, "127.0.0.1")
    yield bound.getsockname()[1], io_loop.run_sync(listen)
    theirs.stop()
    io_loop.run_sync(theirs.close_all_connections)
    assert io_loop.run_sync(lambda: server.drain(1))


# Far beyond what an answer takes; all wait at once.
PATIENCE_SECONDS = 3


async def outcomes(
    requests: Iterable[bytes], ports: tuple[int, int]
) -> list[tuple[Outcome, Outcome]]:
    """Send each to both servers."""

    async def both(data: bytes) -> tuple[Outcome, Outcome]:
        return await outcome(ports[0], data), await outcome(ports[1], data)

    return await asyncio.gather(*map(both, requests))


async def outcome(port: int, data: bytes) -> Outcome:
    """Send a request, then one more that tells whether the connection still serves."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    statuses: list[int] = []
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await _answer(reader, statuses, data.startswith(b"HEAD")) != "marker":
                if len(statuses) == 1:
                    writer.write(MARKER)
    except (asyncio.IncompleteReadError, ConnectionError):
        return tuple(statuses), True
    except TimeoutError:
        return (*statuses, 0), False  # it waits for more
    finally:
        writer.close()
    return tuple(statuses[:-1]), False


async def _answer(reader: asyncio.StreamReader, statuses: list[int], head: bool) -> str | None:
    """Read one answer; return its request id."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    statuses.append(int(lines[0].split(" ")[1]))
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    if headers.get("x-request-id") == "marker" or not head:
        await reader.readexactly(int(headers.get("content-length", "0")))
    return headers.get("x-request-id")


def test_what_both_servers_do_alike(io_loop: AsyncIOLoop, ports: tuple[int, int]) -> None:
    found = io_loop.run_sync(lambda: outcomes(SAME.values(), ports))
    pairs = dict(zip(SAME, found, strict=True))
    assert {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} == {}


def test_what_they_do_differently_is_meant(io_loop: AsyncIOLoop, ports: tuple[int, int]) -> None:
    sent = [data for data, *_ in DIFFERENT.values()]
    found = io_loop.run_sync(lambda: outcomes(sent, ports))
    expected = {name: (theirs, ours) for name, (_, theirs, ours, _) in DIFFERENT.items()}
    assert dict(zip(DIFFERENT, found, strict=True)) == expected
