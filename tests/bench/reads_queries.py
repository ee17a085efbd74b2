"""The reads that are measured: over HTTP, and inside SQLite what they are compared with."""

from __future__ import annotations

import http.client
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from lyftr_server.schema import MessageQuery
from lyftr_server.store.sqlite import matching, reads
from lyftr_server.store.sqlite.listing import Scope
from lyftr_server.store.sqlite.sql import answer
from tests.bench.bodies import sign
from tests.bench.reads_data import DAYS, MIDDLING_WORD, RARE_WORD, START, sender

MIDDLE = f"{START + timedelta(days=DAYS // 2, hours=7, minutes=30):%Y-%m-%dT%H:%M:%SZ}"
BUSY, MIDDLING, RARE = sender(0), sender(100), sender(9_000)
COMMON = "the"
SCAN = "LIKE scan"


class Query(NamedTuple):
    """A read, by the size of the database; `flat` ones must cost the same with every size."""

    name: str
    path: Callable[[int, int], str]  # (rows of the database, rows that match) -> path
    flat: bool = True
    total_of: str | None = None  # the filters whose total `path` wants to know


class Figures(NamedTuple):
    p50_ms: float
    p99_ms: float
    times: int
    total: int | None


def _list(**parameters: Any) -> Callable[[int, int], str]:
    return lambda rows, total: "/messages?" + urlencode(parameters)


def _deep(part: float, back: int = 0, **parameters: Any) -> Callable[[int, int], str]:
    def path(rows: int, total: int) -> str:
        return "/messages?" + urlencode(parameters | {"offset": max(0, int(total * part) - back)})

    return path


def _stats(rows: int, total: int) -> str:
    return "/stats"


def _q(name: str, **parameters: Any) -> Query:
    return Query(f"q={name}", _list(**parameters), flat=False)


def _q_deep(name: str, **parameters: Any) -> Query:
    total_of = "/messages?" + urlencode(parameters)
    return Query(f"q={name}", _deep(0.5, **parameters), flat=False, total_of=total_of)


QUERIES = (
    Query("first page", _list()),
    Query("offset in the middle", _deep(0.5), total_of="/messages?limit=1"),
    Query("offset near the end", _deep(1, 100), total_of="/messages?limit=1"),
    Query("busy sender", _list(**{"from": BUSY})),
    Query(
        "busy sender, in the middle",
        _deep(0.5, **{"from": BUSY}),
        total_of="/messages?" + urlencode({"from": BUSY}),
    ),
    Query("middling sender", _list(**{"from": MIDDLING})),
    Query(
        "middling sender, in the middle",
        _deep(0.5, **{"from": MIDDLING}),
        total_of="/messages?" + urlencode({"from": MIDDLING}),
    ),
    Query("rare sender", _list(**{"from": RARE})),
    Query("since the middle", _list(since=MIDDLE)),
    Query("busy sender since the middle", _list(since=MIDDLE, **{"from": BUSY})),
    Query("/stats", _stats),
    _q("nothing has it", q="no such words"),
    _q("1 in 10,000", q=RARE_WORD),
    _q("1 in 200", q=MIDDLING_WORD),
    _q("a common word", q="meeting"),
    _q("three letters", q=COMMON),
    _q("other scripts", q="नमस्ते"),
    _q("other scripts, folded", q="СПАСИБО"),
    _q("folded: STRASSE", q="STRASSE"),
    _q("two letters", q="qu"),
    _q("two letters, folded", q="пр"),
    _q("one letter", q="e"),
    _q("busy sender, 1 in 10,000", q=RARE_WORD, **{"from": BUSY}),
    _q("since the middle, 1 in 10,000", q=RARE_WORD, since=MIDDLE),
    Query("newest first", _list(order="desc")),
    Query("newest first, in the middle", _deep(0.5, order="desc"), total_of="/messages?limit=1"),
    Query("until the middle", _list(until=MIDDLE)),
    Query("/stats/timeline by day", lambda rows, total: "/stats/timeline?by=day"),
    _q("busy sender, three letters", q=COMMON, **{"from": BUSY}),
    _q("since the middle, three letters", q=COMMON, since=MIDDLE),
    _q("until the middle, three letters", q=COMMON, until=MIDDLE),
    _q("newest first, three letters", q=COMMON, order="desc"),
    _q("busy sender since the middle, three letters", q=COMMON, since=MIDDLE, **{"from": BUSY}),
    _q("since the middle, two letters", q="qu", since=MIDDLE),
    _q_deep("three letters, in the middle", q=COMMON),
    _q_deep("busy sender, three letters, in the middle", q=COMMON, **{"from": BUSY}),
    _q_deep("since the middle, three letters, in the middle", q=COMMON, since=MIDDLE),
    _q_deep("until the middle, three letters, in the middle", q=COMMON, until=MIDDLE),
    _q_deep("newest first, three letters, in the middle", q=COMMON, order="desc"),
    _q_deep("two letters, in the middle", q="qu"),
)


class Client:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def get(self, path: str) -> tuple[float, Any]:
        """Return the milliseconds that an answer took, and its JSON."""
        start = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        taken = time.perf_counter() - start
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:200]!r}")
        return taken * 1000, json.loads(body)

    def post(self, body: bytes, secret: str) -> float:
        """Deliver a message; return the milliseconds until the answer."""
        headers = {"X-Signature": sign(secret, body).decode()}
        start = time.perf_counter()
        self._connection.request("POST", "/webhook", body, headers)
        response = self._connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"POST /webhook: {response.status}")
        return (time.perf_counter() - start) * 1000


def ask(clients: Mapping[int, Client], query: Query, seconds: float) -> dict[int, Figures]:
    """Ask each server in turn, until each has had its time or 300 answers; at least three."""
    paths, totals = {}, {}
    for rows, client in clients.items():
        total = client.get(query.total_of)[1]["total"] if query.total_of else rows
        paths[rows] = query.path(rows, total)
        _, answer = client.get(paths[rows])  # not counted: the first one reads the file
        totals[rows] = answer.get("total")
    taken: dict[int, list[float]] = {rows: [] for rows in clients}
    waiting = set(clients)
    while waiting:
        for rows in sorted(waiting):
            taken[rows].append(clients[rows].get(paths[rows])[0])
            enough = len(taken[rows]) >= 300 or sum(taken[rows]) >= seconds * 1000
            if enough and len(taken[rows]) >= 3:
                waiting.remove(rows)
    return {rows: figures(times, totals[rows]) for rows, times in taken.items()}


def figures(times: list[float], total: int | None = None) -> Figures:
    times = sorted(times)
    return Figures(statistics.median(times), times[int(0.99 * (len(times) - 1))], len(times), total)


def inside(path: Path) -> dict[str, Figures]:
    """Measure in SQLite itself: the LIKE scan to compare with, and totals without their page."""
    found = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = -32768")
        found[SCAN] = _timed(
            lambda: db.execute(
                "SELECT count(*) FROM messages WHERE text LIKE ?", (f"%{RARE_WORD}%",)
            ).fetchone()[0]
        )
        for name, q in (("1 in 10,000", RARE_WORD), ("three letters", COMMON)):
            found[f"total of q={name}"] = _timed(partial(_total, db, q))
            query = MessageQuery(q=q)
            found[f"total and page of q={name}"] = _timed(partial(_page_total, db, query))
    return found


def _total(db: sqlite3.Connection, q: str) -> int:
    with matching.search(db, q, Scope()) as search:
        answer(search.find(), _go_on)
        return search.total


def _page_total(db: sqlite3.Connection, query: MessageQuery) -> int:
    return reads.page(db, query, _go_on).total


def _timed(work: Callable[[], int]) -> Figures:
    times = []
    total = work()
    while len(times) < 3 or sum(times) < 500:
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return figures(times, total)


def _go_on() -> bool:
    return False
