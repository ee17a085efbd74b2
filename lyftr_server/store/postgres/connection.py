"""Connections to whichever host takes writes; what is suspect is dropped, never waited for."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from ..errors import Fatal, StoreError, Unopenable, Unusable
from . import schema
from .insert import Slot

logger = logging.getLogger(__name__)

T = TypeVar("T")

# To reach one host. asyncpg's time-out is for all of a URL: behind a frozen first the second would
# never be tried.
HOST_SECONDS = 2.0
# To make a new connection ready.
READY_SECONDS = 5.0
# After a failed connect all who ask hear the same for so long.
PAUSE_SECONDS = 0.1

SLOT_LOCKS = 0x4C59  # which advisory locks are slots'
_SETTINGS = {
    "application_name": "lyftr-server",
    # A cached generic plan makes some searches ten times slower.
    "plan_cache_mode": "force_custom_plan",
    # What a reader asked who went away ends soon.
    "client_connection_check_interval": "1000",
    "idle_in_transaction_session_timeout": "60000",
    "default_transaction_isolation": "read committed",
}
# What only a person can mend: who we are, which database, what we may do.
_LASTING = ("28", "3D000", "42501", "3F000", "0A000")
# Deadlocks and serialization failures: nothing was done, and the next time it may.
_AGAIN = ("40P01", "40001")
_TRIES = 5

_URL = re.compile(r"(postgres(?:ql)?://)([^@/?]*@)?([^/?]*)(.*)", re.DOTALL)


class Lane:
    """One connection, for one piece of work at a time; made anew when it was dropped."""

    def __init__(self, url: str, *, commits: bool = False) -> None:
        self._urls = urls(url)
        self._commits = commits
        self._turn = asyncio.Lock()
        self._db: Any = None
        self._refused: StoreError | None = None
        self._refused_at = float("-inf")
        self._warning: str | None = None
        self._closed = False
        self.slot = Slot(-1, 0)

    async def open(self) -> Any:
        """Return the connection, made if there is none. Unopenable, Unusable."""
        if self._closed:
            raise StoreError("the store is closing")
        if self._db is None or self._db.is_closed():
            if self._refused is not None and time.monotonic() - self._refused_at < PAUSE_SECONDS:
                raise StoreError(str(self._refused))
            try:
                self._db = await self._connect()
                self._refused = None
            except StoreError as error:
                self._refused, self._refused_at = error, time.monotonic()
                raise
        return self._db

    def drop(self) -> None:
        """Let go of the connection at once: a close would wait for the other side."""
        if self._db is not None:
            self._db.terminate()
            self._db = None

    def close(self) -> None:
        self._closed = True
        self.drop()

    async def run(self, work: Callable[[Any], Awaitable[T]], seconds: float) -> T:
        """Do work on the connection, within a time. StoreError."""
        async with self._turn:
            try:
                db = await self.open()
            except Unusable as error:
                raise Fatal(str(error)) from error
            for _ in range(_TRIES):
                try:
                    return await self._attempt(work, db, seconds)
                except asyncpg.PostgresError as error:
                    if error.sqlstate not in _AGAIN:
                        if self._commits:
                            self.drop()
                        raise StoreError(words(error)) from error
            raise StoreError("the database's locks stand in each other's way")

    async def _attempt(self, work: Callable[[Any], Awaitable[T]], db: Any, seconds: float) -> T:
        self._warning = None
        # A cancelled call makes asyncpg open another connection for its CancelRequest, without a
        # limit of time; so nothing is cancelled but the connection dropped.
        task = asyncio.ensure_future(work(db))
        try:
            done, _ = await asyncio.wait([task], timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise StoreError(f"no answer within {seconds:g} s")
        try:
            result = task.result()
        except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            self.drop()
            raise StoreError(words(error)) from error
        except asyncpg.PostgresConnectionError as error:
            self.drop()
            raise StoreError(words(error)) from error
        self._check_replicated()
        return result

    def _check_replicated(self) -> None:
        """A commit whose wait for standbys was cancelled is told as a success, with a warning."""
        if self._warning is not None:
            self.drop()
            raise StoreError(f"only the primary has it: {self._warning}")

    def _abandon(self, task: "asyncio.Future[T]") -> None:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self.drop()

    async def _connect(self) -> Any:
        reasons = []
        for _ in range(len(self._urls)):
            url = self._urls[0]
            try:
                return await self._connect_to(url)
            except Unusable:
                raise
            except StoreError as error:
                reasons.append(f"{host(url)}: {error}")
                self._urls.append(self._urls.pop(0))
        raise Unopenable("; ".join(reasons))

    async def _connect_to(self, url: str) -> Any:
        try:
            db = await asyncpg.connect(
                url,
                timeout=HOST_SECONDS,
                target_session_attrs="read-write",
                server_settings=_SETTINGS,
            )
        except asyncpg.PostgresError as error:
            lasting = (error.sqlstate or "").startswith(_LASTING)
            raise (Unusable if lasting else Unopenable)(words(error)) from error
        except (asyncpg.InternalClientError, asyncpg.InterfaceError, OSError, ValueError) as error:
            lasting = isinstance(error, asyncpg.ClientConfigurationError)
            raise (Unusable if lasting else Unopenable)(words(error)) from error
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._make_ready(db)
        except BaseException as error:
            db.terminate()
            if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError):
                raise Unopenable(words(error)) from error
            raise
        return db

    async def _make_ready(self, db: Any) -> None:
        if not self._commits:
            return
        if await schema.check(db) != schema.VERSION:
            raise Unusable("the database has another schema than this program's")
        if await db.fetchval("SHOW synchronous_commit") == "off":
            logger.warning("synchronous_commit is off for this role or database: using on")
            await db.execute("SET synchronous_commit = on")
        self.slot = await _take_slot(db)
        db.add_log_listener(self._on_log)

    def _on_log(self, _db: Any, message: Any) -> None:
        if message.sqlstate == "01000" and message.severity_en == "WARNING":
            self._warning = str(message.args[0])


async def _take_slot(db: Any) -> Slot:
    """Take the first slot that no connection has; its lock ends with the connection's backend.

    Not before: while a transaction of a dropped connection may still commit, its slot is taken.
    """
    number = 0
    while not await db.fetchval("SELECT pg_try_advisory_lock($1, $2)", SLOT_LOCKS, number):
        number += 1
    await db.execute("INSERT INTO slots (slot) VALUES ($1) ON CONFLICT DO NOTHING", number)
    last = await db.fetchval("SELECT last FROM slots WHERE slot = $1", number)
    return Slot(number, int(last))


def urls(url: str) -> list[str]:
    """Return a URL for each of the hosts in one."""
    form = _URL.fullmatch(url)
    if form is None:
        return [url]
    scheme, user, hosts, rest = form.groups()
    return [f"{scheme}{user or ''}{host}{rest}" for host in hosts.split(",")]


def host(url: str) -> str:
    """Return where a URL leads, without user and password."""
    form = _URL.fullmatch(url)
    return (form[3] if form else "") or "the default host"


def words(error: BaseException) -> str:
    """Return what an error says, without its DETAIL, which may quote a row."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0]) if error.args else str(error.sqlstate)
    if isinstance(error, TimeoutError):
        return f"no answer within {HOST_SECONDS:g} s"
    if isinstance(error, OSError):
        return error.strerror or "cannot be reached"
    return str(error).partition("\n")[0]
