"""A cluster that loses its primary or its standbys: nothing acknowledged is lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ..cluster import Cluster, Node
from ..conftest import ServerFactory
from ..postgres import find_programs, query
from ..process import RunningServer, message
from .clients import Senders, check_answers, check_database, messages
from .conftest import LAUNCHER, torture

pytestmark = pytest.mark.slow

# For a commit. Less than in earnest, more than a slow machine takes.
COMMIT_SECONDS = "3"
WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[Cluster]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with Cluster(programs) as cluster:
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Cluster:
    whole_cluster.wait_for_standbys()
    return whole_cluster


class Pair:
    """Two servers under load, and all that they acknowledged."""

    def __init__(self, cluster: Cluster, start: ServerFactory) -> None:
        self._cluster, self._start = cluster, start
        self.database = cluster.database()
        self.late: dict[str, Any] = {}  # that other servers took
        url = cluster.url(self.database)
        self.servers = [self.server(url) for _ in range(2)]
        self.senders = [
            Senders(server, messages(f"sent-{n}-{self.database}"), connections=4)
            for n, server in enumerate(self.servers)
        ]

    def server(self, url: str) -> RunningServer:
        command = (LAUNCHER, "--commit-seconds", COMMIT_SECONDS)
        return self._start(command=command, errors_expected=True, DATABASE_URL=url)

    def fail_over(self, how: signal.Signals) -> Node:
        """Lose the primary under load, and go on with another; return the former."""
        with ExitStack() as stack:
            for each in self.senders:
                stack.enter_context(each)
                each.wait_for(len(each.acknowledged) + 100)
            if how == signal.SIGKILL:
                self._cluster.primary.stop(how)
            else:
                self._cluster.primary.signal(how)
            former = self._cluster.promote()
            for each in self.senders:
                each.wait_for(len(each.acknowledged) + 100, seconds=60)
        return former

    def check(self) -> None:
        acknowledged, attempted = dict(self.late), dict(self.late)
        for each in self.senders:
            acknowledged |= each.acknowledged
            attempted |= each.attempted
        url = self._cluster.primary.url(self.database)
        rows = check_database(url, acknowledged, attempted)
        for server in self.servers:
            server.place = url
            check_answers(server, rows)
        assert all(each.answers.keys() <= {200, 503} for each in self.senders)

    def come_late(self, first: Node) -> None:
        """A server that starts now asks one node before the others, and is not misled."""
        late = self.server(self._cluster.url(self.database, first))
        content = message(f"late-{len(self.late)}")
        assert late.deliver(content).status == 200
        self.late[content["message_id"]] = content
        assert self.servers[0].get(f"/messages/{content['message_id']}").status == 200
        late.stop()


@pytest.fixture
def pair(cluster: Cluster, server_factory: ServerFactory) -> Pair:
    return Pair(cluster, server_factory)


def kill_primaries(pair: Pair, cluster: Cluster, rounds: int) -> None:
    for _ in range(rounds):
        former = pair.fail_over(signal.SIGKILL)
        pair.check()
        # It comes back as it was, and takes writes.
        former.start()
        pair.come_late(former)
        former.copy(cluster.primary)
        cluster.wait_for_standbys()


def test_a_killed_primary_loses_nothing(pair: Pair, cluster: Cluster) -> None:
    kill_primaries(pair, cluster, 2)


@torture
def test_ten_killed_primaries_lose_nothing(pair: Pair, cluster: Cluster) -> None:
    kill_primaries(pair, cluster, 10)


def test_a_frozen_primary_loses_nothing(pair: Pair, cluster: Cluster) -> None:
    former = pair.fail_over(signal.SIGSTOP)
    pair.come_late(former)
    former.signal(signal.SIGCONT)
    # Whoever is still connected to it must not believe it.
    pair.check()
    with pair.senders[0], pair.senders[1]:
        for each in pair.senders:
            each.wait_for(len(each.acknowledged) + 100)
    pair.check()
    former.copy(cluster.primary)


def test_without_standbys_nothing_is_acknowledged(
    pair: Pair, cluster: Cluster, server_factory: ServerFactory
) -> None:
    server, other = pair.servers
    assert server.deliver(message("m1")).status == 200
    for standby in cluster.standbys:
        standby.stop()
    try:
        statuses: list[int] = []
        sender = threading.Thread(
            target=lambda: statuses.append(server.deliver(message("m2")).status)
        )
        sender.start()
        cluster.primary.wait_until(f"SELECT count(*) > 0 {WAITING}")
        # PostgreSQL tells a cancelled wait as a success; the row is on the primary alone, in sight.
        cluster.primary.execute(f"SELECT pg_cancel_backend(pid) {WAITING}")
        sender.join(30)
        assert statuses == [503]
        assert other.get("/messages/m2").status == 200
        for each, repeat in ((server, "m1"), (other, "m2"), (server, "m3"), (server, "m4")):
            assert each.deliver(message(repeat)).status == 503
        for each in (server, other):
            ready = each.get("/health/ready")
            assert (ready.status, "replication is stalled" in ready.json()["detail"]) == (503, True)
        # What is sent again and again takes no connection each.
        ((waiting,),) = query(cluster.primary.url("postgres"), f"SELECT count(*) {WAITING}")
        assert 0 < waiting <= 4
    finally:
        for standby in cluster.standbys:
            standby.start()
    cluster.wait_for_standbys()
    for repeat in ("m1", "m2", "m3", "m4"):
        deliver_until_taken(other, repeat)
    assert server.get("/messages").json()["total"] == 4


def deliver_until_taken(server: RunningServer, message_id: str) -> None:
    with Senders(server, [message(message_id)], connections=1, repeats=0) as sender:
        sender.wait_for(1)
