"""However deliveries interleave, break off and meet restarts: one row for each message."""

import contextlib
import http.client
import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ..process import RunningServer, message, post_head, samples
from ..sources.senders import SENDERS, VARIABLES, Sender
from .clients import check_answers, check_database, stored
from .conftest import torture

MESSAGES = 5
CONNECTIONS = 3


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
    """End the server, gently or not, with whatever is under way, and start it again."""

    gently: bool


Step = Deliver | Read | Abort | Restart

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
histories = st.tuples(
    steps, st.lists(st.tuples(st.builds(Restart, st.booleans()), steps), max_size=2)
)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without its time: Twilio's have that of their receipt."""
    return row | {"ts": None}


class Pipeline:
    """A connection on which requests may follow each other before the first is answered."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
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
    """Plays steps against a server, and knows what must have come of them."""

    def __init__(self, folder: Path) -> None:
        self.server = RunningServer(folder, variables=VARIABLES)
        self._folder = folder
        self._prefix = 0
        self._sockets: dict[int, Pipeline] = {}
        self._owed: dict[int, list[str]] = {}
        self.first: dict[str, list[dict[str, Any]]] = {}
        self.acknowledged: set[str] = set()

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
                case Restart(gently):
                    self._restart(gently)
        for connection in list(self._sockets):
            self._read(connection)
        # A sender sends again what nobody acknowledged.
        for number in range(MESSAGES):
            content = self.content(number, False)
            self.first.setdefault(content["message_id"], []).append(content)
            assert self.server.deliver(content).status == 200
            self.acknowledged.add(content["message_id"])

    def check(self) -> None:
        """Hold one row for each message, whole, and that the server counted what it answered."""
        rows = stored(self.server.database)
        assert rows.keys() == self.first.keys()
        assert len(rows) == self._prefix * MESSAGES
        for message_id, row in rows.items():
            assert _timeless(row) in map(_timeless, self.first[message_id])
        check_answers(self.server, len(rows))
        found = samples(self.server.get("/metrics").body)
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
        assert not any(
            count
            for name, count in found.items()
            if name.startswith("http") and 'status="5' in name
        )

    def _send(self, sender: Sender, connection: int, content: dict[str, Any], part: float) -> None:
        if connection not in self._sockets:
            self._sockets[connection] = Pipeline(self.server.port)
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
            assert self._sockets[connection].read_status() == 200
            self.acknowledged.add(message_id)

    def _forget(self, connection: int) -> None:
        self._owed.pop(connection)
        self._sockets.pop(connection).close()

    def _restart(self, gently: bool) -> None:
        if gently:
            self.server.stop()
        else:
            self.server.kill()
        for connection in list(self._sockets):
            self._forget(connection)
        check_database(self.server.database, self.acknowledged, self._any_of_first())
        self.server = RunningServer(self._folder, variables=VARIABLES)

    def _any_of_first(self) -> dict[str, Any]:
        rows = stored(self.server.database)
        return {
            name: row
            for name, row in rows.items()
            if _timeless(row) in map(_timeless, self.first[name])
        }

    def close(self) -> None:
        for connection in list(self._sockets):
            self._forget(connection)
        self.server.kill()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path)
    yield history
    history.close()


Played = tuple[list[Step], list[tuple[Restart, list[Step]]]]


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
