"""Requests that nobody with good intentions sends: name -> (bytes, what may answer it).

What must never show up in a log line or an error answer carries one of the words below.
"""

import json
from typing import Any

from lyftr_server.signature import sign

from ..process import SECRET, message
from .raw import chunked, request

TEXT = "canary-text"
NUMBER = "15550199199"
QUERY = "canary-query"
HEADER = "canary-header"
SECRETS = (TEXT, NUMBER, QUERY, HEADER, SECRET)

Hostile = dict[str, tuple[bytes, tuple[int, ...]]]

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /webhook HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def _signed(body: bytes) -> bytes:
    return request("POST", "/webhook", {"X-Signature": sign(SECRET.encode(), body)}, body)


def _message(**fields: Any) -> bytes:
    content = message(text=TEXT, from_=f"+{NUMBER}") | {
        name.removesuffix("_"): value for name, value in {"message_id": "hostile", **fields}.items()
    }
    return json.dumps(content).encode()


def _raw_message(text: str) -> bytes:
    """Return a message with `text` as the JSON of its text."""
    return _message(text="@").replace(b'"@"', text.encode("utf-8", "surrogatepass"))


def first_lines() -> Hostile:
    lines = [
        b"", b" ", b"\x00", b"\xff\xfe", b"GET", b"GET ", b"GET /", b"GET / ", b"GET / HTTP",
        b"GET / HTTP/", b"GET / HTTP/1", b"GET / HTTP/1.", b"GET / HTTP/1.1x", b"GET / HTTP/9.9",
        b"GET / HTTP/-1.1", b"GET / HTTP/1.1 HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /\r HTTP/1.1",
        b"GET /a\tb HTTP/1.1", b"GET \\ HTTP/1.1", b"GET ? HTTP/1.1", b"GET # HTTP/1.1",
        b"GET :// HTTP/1.1", b"GET http:/x HTTP/1.1", b"GET javascript:alert(1) HTTP/1.1",
        b"G\x00T / HTTP/1.1", b"G=T / HTTP/1.1", b"<script> / HTTP/1.1", b"GET/ HTTP/1.1",
        b"A" * 1000 + b" / HTTP/1.1", b"{\"a\":1}", b"EHLO example.com", b"SSH-2.0-OpenSSH_9.2",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00", b"\x80\x2e\x01\x00\x02", b"*1\r\n$4\r\nPING",
        b"GET / HTTP/1.1\x0b", b"GET /%00 HTTP/1.1 ", b"get / HTTP/1.1", b"GET\x85/ HTTP/1.1",
    ]  # fmt: skip
    allowed = (400, 404, 405, 408, 505)
    return {f"first line {line[:30]!r}": (line + b"\r\nHost: a\r\n\r\n", allowed) for line in lines}


def targets() -> Hostile:
    found = {
        "..": (request("GET", "/../../etc/passwd"), (404,)),
        "encoded ..": (request("GET", "/%2e%2e/%2e%2e/etc/passwd"), (404,)),
        "docs ..": (request("GET", "/docs/../openapi.json"), (404,)),
        "encoded nul": (request("GET", "/webhook%00"), (404,)),
        "encoded crlf": (request("GET", "/x%0d%0aSet-Cookie:%20a=b"), (404,)),
        "encoded crlf in an id": (request("GET", "/messages/x%0d%0aX:%20y"), (404,)),
        "bad escape in an id": (request("GET", "/messages/%zz"), (404,)),
        "bad UTF-8 in an id": (request("GET", "/messages/%ff%fe"), (400, 404)),
        "surrogate in an id": (request("GET", "/messages/%ed%a0%80"), (400, 404)),
        "nul in an id": (request("GET", "/messages/a%00b"), (404, 422)),
        "quote in an id": (request("GET", "/messages/'%22%5c"), (404,)),
        "sql in an id": (request("GET", "/messages/x'%20OR%201=1--"), (404,)),
        "long id": (request("GET", "/messages/" + "x" * 20000), (404,)),
        "a number in the path": (request("GET", f"/number/+{NUMBER}"), (404,)),
        "many slashes": (request("GET", "/" * 5000), (404,)),
        "template": (request("GET", "/${jndi:ldap://x}/{{7*7}}"), (400, 404)),
        "quote in the path": (request("GET", '/"},{"x":"'), (400, 404)),
        "backslash in the path": (request("GET", "/\\u0000"), (400, 404)),
        "user and password": (request("GET", f"http://u:{HEADER}@h/nowhere"), (404,)),
        "long authority": (request("GET", f"http://{'h' * 20000}/nowhere"), (404,)),
        "query in the authority": (request("GET", f"http://h?{QUERY}"), (200,)),
    }
    return {f"target: {name}": entry for name, entry in found.items()}


def headers() -> Hostile:
    tricks: dict[str, tuple[bytes, tuple[int, ...]]] = {
        "id with crlf": (b"X-Request-ID: a\r\n b\r\n", (400,)),
        "id with cr": (b"X-Request-ID: a\rb\r\n", (400,)),
        "id with lf": (b"X-Request-ID: a\nX: y\r\n", (400,)),
        "id with a quote": (f'X-Request-ID: {HEADER}","level":"x\r\n'.encode(), (200,)),
        "id too long": (f"X-Request-ID: {HEADER}{'x' * 200}\r\n".encode(), (200,)),
        "id of bytes": (b"X-Request-ID: \xff\xe2\x80\xa8\r\n", (200,)),
        "id of other digits": ("X-Request-ID: ١٢٣\r\n".encode(), (200,)),
        "id empty": (b"X-Request-ID:\r\n", (200,)),
        "ids": (f"X-Request-ID: {HEADER} \r\nX-Request-ID: b\r\n".encode(), (200,)),
        "proxy's": (f"X-Forwarded-For: {HEADER}\r\nX-Scheme: x\r\n".encode(), (200,)),
        "host of another": (f"X-Forwarded-Host: {HEADER}\r\n".encode(), (200,)),
        "method of another": (b"X-HTTP-Method-Override: DELETE\r\n", (200,)),
        "cookies": (b"Cookie: " + b"a=b; " * 4000 + b"\r\n", (200,)),
        "bad cookie": (b'Cookie: ="\\";;=,\r\n', (200,)),
        "range": (b"Range: bytes=0-0, 1-1, -1, 5-\r\n", (200,)),
        "if-none-match": (b"If-None-Match: *\r\n", (200,)),
        "if-modified-since": (b"If-Modified-Since: Thu, 99 Foo 99999 99:99:99 GMT\r\n", (200,)),
        "accept": (b"Accept: " + b"a/b;q=0.1," * 3000 + b"\r\n", (200,)),
        "accept-encoding": (b"Accept-Encoding: gzip;q=nan, *\r\n", (200,)),
        "authorization": (f"Authorization: Bearer {HEADER}\xff\r\n".encode("latin-1"), (200,)),
        "form": (b"Content-Type: multipart/form-data; boundary=x\r\n", (200,)),
        "expectation": (f"Expect: {HEADER}\r\n".encode(), (417,)),
        "connection": (b"Connection: Content-Length, X-Signature, , ,\r\n", (200,)),
        "upgrade to a websocket": (
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
            (200,),
        ),
        "long name": (b"X" * 20000 + b": y\r\n", (200,)),
        "te": (b"TE: trailers, deflate\r\n", (200,)),
        "nul": (b"X: \x00\r\n", (400,)),
        "escape": (b"X: \x1b[2J\r\n", (400,)),
        "bytes": (b"X: " + bytes(range(0x80, 0x100)) + b"\r\n", (200,)),
    }
    return {
        f"header: {name}": (GET + lines + b"\r\n", allowed)
        for name, (lines, allowed) in tricks.items()
    }


def signatures() -> Hostile:
    body = _message()
    right = sign(SECRET.encode(), body)
    length = f"Content-Length: {len(body)}\r\n".encode()
    values = {
        "none": [], "empty": [b""], "zeros": [b"0" * 64], "short": [right[:63].encode()],
        "long": [right.encode() + b"0"], "endless": [b"a" * 20000],
        "prefixed": [b"sha256=" + right.encode()], "quoted": [b'"' + right.encode() + b'"'],
        "right and wrong": [right.encode(), b"0" * 64], "wrong and right": [b"0", right.encode()],
        "right twice": [right.encode(), right.encode()], "a list": [right.encode() + b",x"],
        "bytes": [b"\xff" * 64], "fullwidth": ["\uff10".encode() * 64],
        "arabic digits": ["١".encode() * 64], "of another body": [sign(b"x", body).encode()],
        "of nothing": [sign(SECRET.encode(), b"").encode()], "the secret": [SECRET.encode()],
        "spaces inside": [right[:32].encode() + b" " + right[32:].encode()],
        "base64": [b"q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="],
    }  # fmt: skip
    found: Hostile = {}
    for name, given in values.items():
        lines = b"".join(b"X-Signature: " + value + b"\r\n" for value in given)
        found[f"signature: {name}"] = (POST + length + lines + b"\r\n" + body, (401,))
    return found


def bodies() -> Hostile:
    deep = 200_000
    refused = {
        "empty": b"",
        "blank": b" ",
        "bom": b"\xef\xbb\xbf" + _message(),
        "utf-16": _message().decode().encode("utf-16"),
        "no utf-8": _message().replace(b"canary", b"\xff\xfe"),
        "cut": _message()[:-1],
        "twice": _message() * 2,
        "null": b"null",
        "true": b"true",
        "number": b"1",
        "string": b'"x"',
        "array": b"[" + _message() + b"]",
        "object": b"{}",
        "deep arrays": b"[" * deep + b"]" * deep,
        "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "deep inside": _raw_message("[" * deep + "]" * deep),
        "open arrays": b"[" * deep,
        "NaN": _raw_message("NaN"),
        "Infinity": _raw_message("-Infinity"),
        "long integer": _raw_message("9" * 100_000),
        "large float": _raw_message("1e999999"),
        "hex": _raw_message("0x10"),
        "leading zero": _raw_message("01"),
        "single quotes": _message().replace(b'"', b"'"),
        "comment": b"/**/" + _message(),
        "trailing comma": _message()[:-1] + b",}",
        "text a number": _raw_message("5"),
        "text an object": _raw_message('{"a":"' + TEXT + '"}'),
        "text too long": _message(text=TEXT + "x" * 4096),
        "nul": _message(text=TEXT + "\0"),
        "lone surrogate": _raw_message(f'"{TEXT}\\ud800"'),
        "raw surrogate": _raw_message('"\ud800"'),
        "swapped surrogates": _raw_message('"\\udc00\\ud800"'),
        "raw control": _raw_message('"a\nb"'),
        "bad escape": _raw_message('"\\x41"'),
        "short escape": _raw_message('"\\u12"'),
        "key twice": _message()[:-1] + b',"text":"x"}',
        "key twice inside": _message()[:-1] + b',"x":{"a":1,"a":2}}',
        "id empty": _message(message_id=""),
        "id too long": _message(message_id="x" * 257),
        "id null": _message(message_id=None),
        "id an array": _message(message_id=["x"]),
        "id with nul": _message(message_id="a\0"),
        "number without plus": _message(from_=NUMBER),
        "number of letters": _message(from_="+abc"),
        "number with a newline": _message(from_=f"+{NUMBER}\n"),
        "number of other digits": _message(from_="+١٢٣"),
        "number empty": _message(from_="+"),
        "number too long": _message(from_="+" + "1" * 33),
        "to missing": _message().replace(b'"to"', b'"t0"'),
        "ts of words": _message(ts="yesterday"),
        "ts 30 february": _message(ts="2025-02-30T00:00:00Z"),
        "ts leap second": _message(ts="2016-12-31T23:59:60Z"),
        "ts offset": _message(ts="2025-01-15T10:00:00+00:00"),
        "ts lower case": _message(ts="2025-01-15t10:00:00z"),
        "ts year 0": _message(ts="0000-01-01T00:00:00Z"),
        "ts newline": _message(ts="2025-01-15T10:00:00Z\n"),
        "ts 10 digits": _message(ts="2025-01-15T10:00:00.1234567890Z"),
        "ts other digits": _message(ts="٢٠٢٥-01-15T10:00:00Z"),
        "prototype": b'{"__proto__":{}}',
    }
    found: Hostile = {f"body: {name}": (_signed(body), (422,)) for name, body in refused.items()}
    flood = json.dumps({f"k{number}": number for number in range(50_000)}).encode()
    found["body: many keys"] = (_signed(flood), (422,))
    return found


def queries() -> Hostile:
    refused = [
        "limit=0",
        "limit=-1",
        "limit=101",
        "limit=1.0",
        "limit=1e1",
        "limit=0x1",
        "limit=",
        "limit=+1",
        "limit=%201",
        "limit=1%00",
        "limit=%D9%A1",
        "limit=1_0",
        "limit=" + "1" * 5000,
        "limit=1&limit=2",
        "limit=%ff",
        "limit=NaN",
        "offset=-1",
        "offset=9223372036854775808",
        "offset=" + "9" * 5000,
        "offset=%EF%BC%91",
        "offset=1;offset=2",
        "since=" + QUERY,
        "since=2025-1-15",
        "since=2025-02-30T00:00:00Z",
        "since=2025-01-15T10:00:00Z%0a",
        "since=" + "9" * 5000,
        "from=" + QUERY,
        "from=%2B",
        "from=%2B%D9%A1",
        "from=%2B1%00",
        "from=" + "1" * 33,
        "from=1&from=2",
        "from=1&from_msisdn=2",
        "q=" + "x" * 257,
        "q=%00",
        "q=%ff%fe",
        "q=%ed%a0%80",
        "cursor=" + QUERY,
        "cursor=%00",
        "cursor=" + "A" * 20000,
        "cursor=e30=.x",
    ]
    fine = [
        "q=%25",
        "q=_",
        "q=%25%25%25_%25",
        "q='%20OR%20'1'='1",
        "q=%5C",
        "q=%22*",
        "q=NEAR(",
        "q=a%20AND%20b",
        "q=" + "%F0%9F%92%A9" * 256,
        "q=%EF%B7%BA",
        "q=%C4%B0",
        "offset=9223372036854775807",
        "offset=0000",
        "from=%2B" + NUMBER,
        "x=" + QUERY,
        "__proto__=x",
        "%6cimit=1",
        "q[]=x",
        "&&&&",
        "=",
        "limit=001",
    ]
    found: Hostile = {}
    for query in refused:
        found[f"query: {query[:60]} ({len(query)})"] = (
            request("GET", f"/messages?{query}"),
            (422,),
        )
    for query in fine:
        found[f"query: {query[:60]} ({len(query)})"] = (
            request("GET", f"/messages?{query}"),
            (200, 422),
        )
    found["query: 10,000 arguments"] = (request("GET", "/messages?" + "a=&" * 10_000), (400,))
    found["query: 10,000 times q"] = (request("GET", "/messages?" + "q&" * 10_000), (400,))
    return found


def framings() -> Hostile:
    allowed = (400, 401, 413, 501)
    found = {
        "both": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        "both, hidden": POST + b"Transfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\nabc",
        "length of 10^30": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        "length of 2^63": POST + b"Content-Length: 9223372036854775808\r\n\r\n",
        "chunk of 2^64": CHUNKED + b"ffffffffffffffff1\r\n",
        "chunk of 2^63": CHUNKED + b"8000000000000000\r\n" + b"x" * 1_100_000,
        "chunk size of words": CHUNKED + HEADER.encode() + b"\r\n",
        "chunks of a refused body": CHUNKED + chunked(b"x" * 600_000, b"x" * 600_000),
        "many single bytes": CHUNKED + chunked(*[b"x"] * 100_000),
        "trailers": CHUNKED + chunked(b"x", trailers=b"X-Signature: y\r\nHost: z\r\n"),
    }
    return {f"framing: {name}": (data, allowed) for name, data in found.items()}


def all_of_them() -> Hostile:
    return {
        **first_lines(),
        **targets(),
        **headers(),
        **signatures(),
        **bodies(),
        **queries(),
        **framings(),
    }
