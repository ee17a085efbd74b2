"""Senders that deliver each message until it is acknowledged, and what must be stored then."""

import http.client
import itertools
import random
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from lyftr_server.signature import sign
from lyftr_server.store.sqlite import verify

from ..postgres import COUNTS_THAT_DIFFER, query
from ..process import RunningServer, ask, message, samples
from ..sources.senders import NATIVE, Sender, one_of

Content = dict[str, Any]

WORDS = "alpha beta gamma delta नमस्ते straße ТЕКСТ 100% under_score \U0001f680".split()


def messages(prefix: str, seed: int = 0) -> Iterator[Content]:
    """Yield messages without end, each with an id of its own, over a few senders and days."""
    chance = random.Random(seed)
    for n in itertools.count():
        day, minute = chance.randrange(1, 29), chance.randrange(60)
        yield message(
            f"{prefix}-{n}",
            from_=f"+91{chance.randrange(40):04}",
            to=f"+1415{chance.randrange(5)}",
            ts=f"2025-01-{day:02}T10:{minute:02}:00.{n % 1000:03}Z",
            text=chance.choice([None, " ".join(chance.choices(WORDS, k=chance.randrange(1, 12)))]),
        )


class Lost(AssertionError):
    """An acknowledged message is not stored."""


class Senders:
    """Threads that each deliver one message at a time, again and again until a 200 comes.

    Where the server ends they wait for `port` to become another. One delivery in ten repeats what
    was acknowledged already, half of them with another text, which must change nothing. Each
    message comes from one of the `kinds` of sender; `attempted` has what must be stored of it.
    """

    def __init__(
        self,
        server: RunningServer,
        source: Iterable[Content],
        *,
        connections: int = 8,
        repeats: float = 0.1,
        mark: Callable[[], int] | None = None,
        pause: float = 0.0,
        kinds: Sequence[Sender] = (NATIVE,),
    ) -> None:
        self.port = server.port
        self.secrets = [server.secret]
        self.attempted: dict[str, Content] = {}
        self.acknowledged: dict[str, Content] = {}
        self.answers: Counter[int] = Counter()
        self.broken = 0
        self.pause = pause  # seconds of each thread after each delivery
        # (what mark() said when a 200 had arrived, message_id)
        self.marks: list[tuple[int, str]] = []
        self._mark = mark
        self._source = iter(source)
        self._kinds = kinds
        self._unfinished: deque[Content] = deque()
        self._connections = connections
        self.repeats = repeats  # which part of the deliveries is none of a new message
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Senders":
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._work, args=(n,), daemon=True)
            for n in range(self._connections)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; what is not acknowledged is the first to be sent in the next `with`."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a delivery hangs"

    @property
    def sources(self) -> set[str]:
        """Who has had a message acknowledged."""
        return {one_of(self._kinds, name).source for name in self.acknowledged}

    def wait_for(self, acknowledged: int, seconds: float = 60) -> None:
        """Return when so many are acknowledged in all."""
        waiting = threading.Event()
        for _ in range(int(seconds / 0.01)):
            if len(self.acknowledged) >= acknowledged:
                return
            waiting.wait(0.01)
        raise AssertionError(f"only {len(self.acknowledged)} acknowledged, {self.answers}")

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        connection: http.client.HTTPConnection | None = None
        port = 0
        while not self._stop.is_set():
            content, first = self._next(chance)
            if content is None:
                break
            acknowledged = False
            while not acknowledged and not self._stop.is_set():
                if connection is None or port != self.port:
                    port = self.port
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                acknowledged = self._deliver(connection, content, chance, first)
            if self.pause:
                self._stop.wait(self.pause)
            if first and not acknowledged:
                with self._lock:
                    self._unfinished.append(content)
        if connection is not None:
            connection.close()

    def _next(self, chance: random.Random) -> tuple[Content | None, bool]:
        with self._lock:
            if self.marks and chance.random() < self.repeats:
                content = self.acknowledged[chance.choice(self.marks)[1]]
                return content | ({"text": "changed"} if chance.random() < 0.5 else {}), False
            content = self._unfinished.popleft() if self._unfinished else next(self._source, None)
            if content is not None:
                name = content["message_id"]
                self.attempted[name] = one_of(self._kinds, name).stored(content)
            return content, True

    def _deliver(
        self,
        connection: http.client.HTTPConnection,
        content: Content,
        chance: random.Random,
        first: bool,
    ) -> bool:
        kind = one_of(self._kinds, content["message_id"])
        body = kind.say(content)
        headers = kind.sign(body)
        if kind is NATIVE:
            headers["X-Signature"] = sign(chance.choice(self.secrets).encode(), body)
        # The id of the request, too: the answer then says which message it acknowledges.
        headers["X-Request-ID"] = content["message_id"]
        try:
            answer = ask(connection, "POST", kind.route, body, headers)
        except (OSError, http.client.HTTPException):
            connection.close()
            with self._lock:
                self.broken += 1
            self._stop.wait(0.01)
            return False
        with self._lock:
            self.answers[answer.status] += 1
            if answer.status == 200 and first:
                self.acknowledged[content["message_id"]] = content
                self.marks.append((self._mark() if self._mark else 0, content["message_id"]))
        if answer.status != 200:
            self._stop.wait(0.01)
        return answer.status == 200


_ROWS = "SELECT message_id, from_msisdn, to_msisdn, ts, text FROM messages"


def stored(database: Path | str) -> dict[str, Content]:
    """Return every row by its id, as it was sent; each id must be there once.

    The database is a file of SQLite's or a URL of PostgreSQL's.
    """
    if isinstance(database, str):
        rows = query(database, _ROWS)
    else:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            rows = db.execute(_ROWS).fetchall()
    names = ("message_id", "from", "to", "ts", "text")
    contents = [dict(zip(names, row, strict=True)) for row in rows]
    by_id = {content["message_id"]: content for content in contents}
    assert len(by_id) == len(contents)
    return by_id


def check_database(
    database: Path | str,
    acknowledged: Iterable[str],
    attempted: dict[str, Content],
    *,
    deep: bool = True,
) -> int:
    """Hold that what was acknowledged is stored as it was sent, and that all counts fit."""
    rows = stored(database)
    lost = set(acknowledged) - rows.keys()
    if lost:
        raise Lost(f"{len(lost)} acknowledged messages are lost, such as {min(lost)}")
    for message_id, row in rows.items():
        want = attempted[message_id]
        assert row | {"ts": want["ts"] and row["ts"]} == want
    check_derived(database, deep=deep)
    return len(rows)


def check_derived(database: Path | str, *, deep: bool = True) -> None:
    """Hold that counts, and on SQLite all that is derived, fit the rows."""
    if isinstance(database, str):
        assert query(database, COUNTS_THAT_DIFFER) == []
    else:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            assert list(verify.problems(db, deep)) == []


def check_answers(server: RunningServer, rows: int) -> None:
    """Hold that listing, statistics and metrics agree with a plain count."""
    assert server.get("/messages?limit=1").json()["total"] == rows
    stats = server.get("/stats").json()
    senders: Counter[str] = Counter(row["from"] for row in stored(server.place).values())
    assert (stats["total_messages"], stats["senders_count"]) == (rows, len(senders))
    for entry in stats["messages_per_sender"]:
        assert senders[entry["from"]] == entry["count"]
    assert samples(server.get("/metrics").body)["lyftr_stored_messages"] == rows
