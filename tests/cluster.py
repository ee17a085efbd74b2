"""A primary and two standbys on this machine, as replication, failures and people move them."""

import itertools
import shutil
import signal
import time
from pathlib import Path
from typing import Self

from .postgres import NO_SYNC, TEMPLATE, PostgresServer

NAMES = ("a", "b", "c")
# On every node: whoever is promoted waits for one of the others.
SYNCHRONOUS = "ANY 1 (a, b, c)"
PATIENCE_SECONDS = 60
# A standby that lost its primary asks again at once, not after five seconds.
OPTIONS = f"{NO_SYNC} -c wal_retrieve_retry_interval=50ms"


class Node(PostgresServer):
    """One of the cluster's servers; its standbys are copies of the first."""

    def __init__(
        self, programs: Path, name: str, options: str, primary: "Node | None" = None
    ) -> None:
        super().__init__(programs, options=options)
        self._primary = primary
        self.name = name

    def _make(self) -> None:
        if self._primary is None:
            super()._make()
        else:
            self.copy(self._primary)

    def copy(self, primary: "Node") -> None:
        """Become a new standby of the primary."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.data, ignore_errors=True)
        self.run("pg_basebackup", "-D", self.data, "-d", self._to(primary), "-R",
                 "--checkpoint=fast", "--no-sync")  # fmt: skip
        self.start()

    def follow(self, primary: "Node") -> None:
        """Replicate from another one from now on."""
        self.execute(f"ALTER SYSTEM SET primary_conninfo = '{self._to(primary)}'")
        self.execute("SELECT pg_reload_conf()")

    def _to(self, primary: "Node") -> str:
        return f"host=127.0.0.1 port={primary.port} user=postgres application_name={self.name}"

    def received(self) -> int:
        """Return how much of the primary's log is here."""
        sql = "SELECT (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::bigint"
        return int(self.ask(lambda db: db.fetchval(sql), "postgres"))

    def execute(self, sql: str) -> None:
        self.ask(lambda db: db.execute(sql), "postgres")

    def wait_until(self, sql: str) -> None:
        """Return when a query says true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.ask(lambda db: db.fetchval(sql), "postgres"):
            assert time.monotonic() < deadline, sql
            time.sleep(0.02)


class Cluster:
    """Three nodes, of which one takes writes; a context manager."""

    def __init__(self, programs: Path, *, options: str = OPTIONS) -> None:
        self.primary = Node(programs, NAMES[0], options)
        self.nodes = [self.primary]
        self.nodes += [Node(programs, name, options, self.primary) for name in NAMES[1:]]
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        try:
            self.primary.__enter__()
            # In the file at once, and so in the copies' too; in force when there are standbys.
            self.primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{SYNCHRONOUS}'")
            for standby in self.standbys:
                standby.__enter__()
            self.primary.execute("SELECT pg_reload_conf()")
            self.wait_for_standbys()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            # At once: none waits until the others have all that it wrote.
            node.stop(signal.SIGQUIT)
            node.__exit__()

    @property
    def standbys(self) -> list[Node]:
        return [node for node in self.nodes if node is not self.primary]

    def wait_for_standbys(self, count: int = 2) -> None:
        sql = f"SELECT count(*) = {count} FROM pg_stat_replication WHERE state = 'streaming'"
        self.primary.wait_until(sql)

    def promote(self) -> Node:
        """Make the most advanced standby the primary, let the other follow it; return the old."""
        old = self.primary
        behind, self.primary = sorted(self.standbys, key=Node.received)
        behind.follow(self.primary)
        self.primary.execute("SELECT pg_promote()")
        return old

    def database(self) -> str:
        """Make a migrated database; return its name. It goes with the cluster."""
        name = f"shared{next(self._numbers)}"
        self.primary.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    def url(self, database: str, first: Node | None = None) -> str:
        """Return the URL of a database on every host; one may be named before the others."""
        nodes = sorted(self.nodes, key=lambda node: node is not first)
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        return f"postgresql://postgres@{hosts}/{database}"
