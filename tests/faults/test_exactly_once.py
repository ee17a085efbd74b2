"""However deliveries interleave, break off and meet restarts: one row for each message.

On SQLite by one server, on PostgreSQL by several that share a database.
"""

import contextlib
import http.client
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ..postgres import query
from ..process import RunningServer, message, post_head, samples
from ..sources.senders import SENDERS, VARIABLES, Sender
from .clients import check_answers, check_derived, stored
from .conftest import torture

MESSAGES = 5
CONNECTIONS = 3
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Deliver:
    """Send a message on one of the connections; read its answer some time later, in turn."""

    sender: Sender
    connection: int
    message: int
    changed: bool


@dataclass(frozen=True)
class Read:
    """Read all the answers that a connection is owed."""

    connection: int


@dataclass(frozen=True)
class Abort:
    """Send a part of a delivery, or all of it, and go away without reading an answer."""

    sender: Sender
    connection: int
    message: int
    part: float


@dataclass(frozen=True)
class Restart:
    """End a connection's server, gently or not, with what is under way, and start it again."""

    connection: int
    gently: bool


@dataclass(frozen=True)
class Cut:
    """End every connection to the database, in the middle of whatever is under way on it."""


CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

Step = Deliver | Read | Abort | Restart | Cut

connections = st.integers(0, CONNECTIONS - 1)
numbers = st.integers(0, MESSAGES - 1)
senders = st.sampled_from(SENDERS)
deliveries = st.builds(Deliver, senders, connections, numbers, st.booleans())
steps = st.lists(
    st.one_of(
        deliveries,
        deliveries,
        deliveries,
        st.builds(Read, connections),
        st.builds(Abort, senders, connections, numbers, st.sampled_from([0.0, 0.3, 0.8, 1.0])),
    ),
    max_size=30,
)
# Few restarts: each takes half a second.
restarts = st.builds(Restart, connections, st.booleans())
histories = st.tuples(
    steps, st.lists(st.tuples(st.one_of(restarts, st.just(Cut())), steps), max_size=2)
)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its time: Twilio's have that of their receipt."""
    return row | {"ts": None}


class Pipeline:
    """A connection on which requests may follow each other before the first is answered."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._answers = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read_status(self) -> int:
        """Read the next answer."""
        status = int(self._answers.readline().split()[1])
        headers = http.client.parse_headers(self._answers)
        self._answers.read(int(headers["Content-Length"]))
        return status

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


class History:
    """Plays steps against servers of one database, and knows what must have come of them."""

    def __init__(self, folder: Path, urls: Sequence[str]) -> None:
        self._folder, self._urls = folder, urls
        self.servers = [self._start(n) for n in range(len(urls))]
        self._prefix = 0
        self._cuts = 0
        self._sockets: dict[int, Pipeline] = {}
        self._owed: dict[int, list[str]] = {}
        self.first: dict[str, list[dict[str, Any]]] = {}
        self.acknowledged: set[str] = set()

    def _start(self, n: int) -> RunningServer:
        url = self._urls[n]
        # That its connection was cut is an error to a server, and expected.
        variables = VARIABLES | ({"DATABASE_URL": url} if url else {})
        return RunningServer(self._folder / str(n), variables=variables, errors_expected=bool(url))

    def _server(self, n: int) -> RunningServer:
        return self.servers[n % len(self.servers)]

    def content(self, number: int, changed: bool) -> dict[str, Any]:
        return message(f"h{self._prefix}-{number}", text="changed" if changed else "as it was")

    def play(self, history: list[Step]) -> None:
        self._prefix += 1
        for step in history:
            match step:
                case Deliver(sender, connection, number, changed):
                    self._send(sender, connection, self.content(number, changed), 1.0)
                    self._owed[connection].append(f"h{self._prefix}-{number}")
                case Read(connection):
                    self._read(connection)
                case Abort(sender, connection, number, part):
                    self._read(connection)
                    self._send(sender, connection, self.content(number, False), part)
                    self._forget(connection)
                case Restart(connection, gently):
                    self._restart(connection, gently)
                case Cut():
                    self._cut()
        for connection in list(self._sockets):
            self._read(connection)
        # A sender sends again what nobody acknowledged.
        for number in range(MESSAGES):
            content = self.content(number, False)
            self.first.setdefault(content["message_id"], []).append(content)
            self._deliver(number, content)
            self.acknowledged.add(content["message_id"])

    def check(self) -> None:
        """Hold one row for each message, whole, and that the server counted what it answered."""
        rows = self._check_rows()
        assert rows.keys() == self.first.keys()
        assert len(rows) == self._prefix * MESSAGES
        for server in self.servers:
            check_answers(server, len(rows))
            self._check_metrics(samples(server.get("/metrics").body))

    def _check_rows(self) -> dict[str, dict[str, Any]]:
        """Hold that each is whole, and none that was acknowledged is missing; return all."""
        rows = stored(self.servers[0].place)
        assert self.acknowledged <= rows.keys()
        for message_id, row in rows.items():
            assert _timeless(row) in map(_timeless, self.first[message_id])
        return rows

    def _check_metrics(self, found: dict[str, float]) -> None:
        results = Counter(
            {
                name: found[f'webhook_requests_total{{result="{name}"}}']
                for name in ("created", "duplicate", "conflict")
            }
        )
        acknowledged = sum(
            count
            for name, count in found.items()
            if re.match('http_requests_total{method="POST",path="/webhook.*",status="200"}', name)
        )
        assert results.total() == acknowledged > 0
        failed = sum(
            count
            for name, count in found.items()
            if name.startswith("http") and 'status="5' in name
        )
        assert not failed or self._cuts

    def _send(self, sender: Sender, connection: int, content: dict[str, Any], part: float) -> None:
        if connection not in self._sockets:
            self._sockets[connection] = Pipeline(self._server(connection).port)
            self._owed[connection] = []
        body = sender.body(content["message_id"], content["text"])
        whole = post_head(len(body), list(sender.sign(body).items()), sender.route) + body
        if part == 1.0:
            self.first.setdefault(content["message_id"], []).append(content)
        with contextlib.suppress(OSError):
            self._sockets[connection].send(whole[: round(len(whole) * part)])

    def _read(self, connection: int) -> None:
        owed, self._owed[connection] = self._owed.get(connection, []), []
        for message_id in owed:
            status = self._sockets[connection].read_status()
            assert status == 200 or (self._cuts and status == 503)
            if status == 200:
                self.acknowledged.add(message_id)

    def _deliver(self, number: int, content: dict[str, Any]) -> None:
        """Deliver to one of the servers, as often as it takes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (status := self._server(number).deliver(content).status) != 200:
            assert (status, bool(self._cuts)) == (503, True)
            assert time.monotonic() < deadline

    def _forget(self, connection: int) -> None:
        self._owed.pop(connection)
        self._sockets.pop(connection).close()

    def _cut(self) -> None:
        if not self._urls[0]:
            return  # a file has no connections
        self._cuts += 1
        query(self._urls[0], CUT)

    def _restart(self, connection: int, gently: bool) -> None:
        server = self._server(connection)
        if gently:
            server.stop()
        else:
            server.kill()
        for each in list(self._sockets):
            if self._server(each) is server:
                self._forget(each)
        # Another server may store more meanwhile.
        self._check_rows()
        check_derived(server.place)
        n = self.servers.index(server)
        self.servers[n] = self._start(n)

    def close(self) -> None:
        for connection in list(self._sockets):
            self._forget(connection)
        for server in self.servers:
            server.kill()


@pytest.fixture
def history(database: dict[str, str], tmp_path: Path) -> Iterator[History]:
    url = database.get("DATABASE_URL")
    history = History(tmp_path, [url, url] if url else [""])
    yield history
    history.close()


Played = tuple[list[Step], list[tuple[Restart | Cut, list[Step]]]]


def play(history: History, played: Played) -> None:
    first, more = played
    history.play([*first, *(step for restart, after in more for step in (restart, *after))])
    history.check()


def examples(count: int, *, derandomize: bool) -> settings:
    return settings(
        max_examples=count,
        derandomize=derandomize,
        deadline=None,
        database=None,
        # No shrinking: each try costs restarts.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
@examples(7, derandomize=True)
@given(histories)
def test_any_history_of_deliveries_gives_one_row_each(history: History, played: Played) -> None:
    play(history, played)


@torture
@examples(300, derandomize=False)
@given(histories)
def test_many_histories_of_deliveries_give_one_row_each(history: History, played: Played) -> None:
    play(history, played)
