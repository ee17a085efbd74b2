"""More than the disk takes: a bounded queue, quick refusals, bounded memory, a bounded end."""

import http.client
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import pytest

from ..postgres import PostgresServer
from ..process import Answer, RunningServer, ServerSocket, as_body, message, post_head, samples
from .clients import Senders, check_database, messages, stored
from .conftest import LAUNCHER, FaultyServerFactory
from .disk import Disk
from .test_storage_faults import recovers, unready

LIMIT = 40


def rss_mb(server: RunningServer) -> float:
    with open(f"/proc/{server.process.pid}/status") as lines:
        kilobytes = next(line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kilobytes) / 1024


class Waiting:
    """Deliveries on connections of their own, sent at once and not yet answered."""

    def __init__(self, server: RunningServer, ids: Sequence[str]) -> None:
        self.ids = ids
        self._sockets = [ServerSocket(server.port, timeout=20) for _ in ids]
        for each, message_id in zip(self._sockets, ids, strict=True):
            body = as_body(message(message_id))
            each.send(post_head(len(body), list(server.signed(body).items())) + body)

    def answers(self) -> dict[str, Answer]:
        """Read every answer."""
        found = {}
        for each, message_id in zip(self._sockets, self.ids, strict=True):
            with each:
                found[message_id] = each.read_answer("POST")
        return found

    def close(self) -> None:
        for each in self._sockets:
            each.socket.close()


def queue_depth(server: RunningServer) -> float:
    return samples(server.get("/metrics").body)["lyftr_queue_depth"]


FillQueue = Callable[[RunningServer], Waiting]


@pytest.fixture
def fill_queue() -> Iterator[FillQueue]:
    """Return when as many deliveries wait as may."""
    with ExitStack() as stack:

        def fill(server: RunningServer) -> Waiting:
            ids = [f"queued-{n}" for n in range(LIMIT)]
            waiting = stack.enter_context(closing(Waiting(server, ids)))
            deadline = time.monotonic() + 60
            while queue_depth(server) < LIMIT:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return waiting

        yield fill


class Frozen:
    """A PostgreSQL that answers nobody for a while."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres

    def stall(self) -> None:
        self._postgres.signal(signal.SIGSTOP)

    def heal(self) -> None:
        self._postgres.signal(signal.SIGCONT)


Stalling = Callable[..., tuple[RunningServer, Disk | Frozen]]


@pytest.fixture(params=["sqlite", "postgres"])
def stalling(request: pytest.FixtureRequest) -> Iterator[Stalling]:
    """Start a server on a database that we make wait."""
    if request.param == "sqlite":
        yield request.getfixturevalue("faulty")
        return
    postgres: PostgresServer = request.getfixturevalue("own_postgres")
    with postgres.database() as url:
        start = request.getfixturevalue("server_factory")

        def on_postgres(**options: Any) -> tuple[RunningServer, Frozen]:
            # Not while a test waits on a slow machine.
            patient = ("--commit-seconds", "60")
            options["command"] = (*options.get("command", (LAUNCHER,)), *patient)
            return start(errors_expected=True, DATABASE_URL=url, **options), Frozen(postgres)

        yield on_postgres
        postgres.signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_stalled_database_fills_the_queue_and_no_more(
    stalling: Stalling, fill_queue: FillQueue
) -> None:
    server, disk = stalling(QUEUE_LIMIT=str(LIMIT))
    assert server.deliver(message("first")).status == 200
    disk.stall()
    waiting = fill_queue(server)
    before = rss_mb(server)
    connection = server.connect()  # which waits for seconds, and never until the disk is back
    for n in range(3000):
        body = as_body(message(f"refused-{n}", text="x" * 4000))
        connection.request("POST", "/webhook", body, server.signed(body))
        answer = connection.getresponse()
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        answer.read()
    connection.close()
    assert rss_mb(server) < before + 20
    found = samples(server.get("/metrics").body)
    assert found["lyftr_queue_depth"] == found["lyftr_queue_limit"] == LIMIT
    assert found['webhook_requests_total{result="unavailable"}'] == 3000
    assert "answer" in unready(server)  # that the database gives none, or that its host does
    if isinstance(disk, Disk):
        # One commit hangs in its sync: nobody sees its rows before.
        assert server.get("/messages").json()["total"] == 1
    disk.heal()
    assert {answer.status for answer in waiting.answers().values()} == {200}
    recovers(server)
    server.stop()
    assert stored(server.place).keys() == {"first", "recovered", *waiting.ids}


def test_clients_that_give_up_free_no_place_before_their_time(
    faulty: FaultyServerFactory, fill_queue: FillQueue
) -> None:
    server, disk = faulty(QUEUE_LIMIT=str(LIMIT))
    disk.stall()
    fill_queue(server).close()
    time.sleep(0.1)
    assert server.deliver(message("one more")).status == 503
    disk.heal()
    recovers(server, "one more")
    assert queue_depth(server) == 0
    server.stop()
    # Nobody heard of them, and they are stored all the same: a repeat will be a duplicate.
    assert stored(server.database).keys() == {"one more", *(f"queued-{n}" for n in range(LIMIT))}


def test_sigterm_on_a_stalled_database_ends_in_bounded_time(
    stalling: Stalling, fill_queue: FillQueue
) -> None:
    server, disk = stalling(
        QUEUE_LIMIT=str(LIMIT),
        DRAIN_SECONDS="0.5",
        command=(LAUNCHER, "--close-seconds", "0.7"),
    )
    assert server.deliver(message("first")).status == 200
    disk.stall()
    waiting = fill_queue(server)
    started = time.monotonic()
    server.terminate()
    assert server.wait() == 1
    assert time.monotonic() - started < 10  # less than either is by default
    # A close that takes too long says so.
    assert {line["event"] for line in server.log_lines() if "event" in line} >= {
        "draining",
        "drain_timed_out",
        "close_timed_out",
    }
    with pytest.raises((OSError, http.client.HTTPException)):
        waiting.answers()


def test_a_second_sigterm_ends_at_once(faulty: FaultyServerFactory, fill_queue: FillQueue) -> None:
    server, disk = faulty(QUEUE_LIMIT=str(LIMIT))
    disk.stall()
    fill_queue(server)
    server.terminate()
    server.wait_for("draining")
    started = time.monotonic()
    server.terminate()
    assert server.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - started < 8  # less than DRAIN_SECONDS


@pytest.mark.slow
def test_a_disk_that_stalls_again_and_again_loses_nothing(faulty: FaultyServerFactory) -> None:
    server, disk = faulty(QUEUE_LIMIT="4")
    with Senders(server, messages("stalled"), connections=16) as senders:
        for _ in range(5):
            senders.wait_for(len(senders.acknowledged) + 30)
            disk.stall()
            disk.wait_until_stalled()
            time.sleep(0.1)
            disk.heal()
        senders.wait_for(len(senders.acknowledged) + 30)
    assert senders.answers.keys() == {200, 503}
    server.stop()
    check_database(server.database, senders.acknowledged, senders.attempted)
