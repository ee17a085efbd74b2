"""Connections to whichever host takes writes; what is suspect is dropped, never waited for."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from ..errors import Fatal, StoreError, Unopenable, Unusable
from . import health, schema
from .calls import FAILURES, again, within, words
from .hosts import Hosts, timeline_of
from .insert import Slot

logger = logging.getLogger(__name__)

T = TypeVar("T")

# After a failed connect all who ask hear the same for so long.
PAUSE_SECONDS = 0.1
START_PAUSE_SECONDS = 0.25
# A transaction that stores and hears nothing for so long is rolled back.
IDLE_SECONDS = 10
# After one of these a connection is of no use, whatever it was asked.
_BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    asyncio.CancelledError,
)

SLOT_LOCKS = 0x4C59  # which advisory locks are slots'

# A primary that was a standby may lack the last rows of its predecessor, which followers have seen:
# their numbers are not given again.
LEAP = 1 << 24
_LEAP = f"""
UPDATE slots SET timeline = $1, last = last + CASE timeline WHEN 0 THEN 0 ELSE {LEAP} END
WHERE timeline <> $1
"""


class Lane:
    """One connection, for one piece of work at a time; made anew when it was dropped.

    What a `durable` one has done is on the disk, and on standbys where the database waits for them.
    """

    def __init__(self, hosts: Hosts, *, durable: bool = False) -> None:
        self._hosts = hosts
        self._durable = durable
        self._turn = asyncio.Lock()
        self._db: Any = None
        self._timeline = 0
        self._refused: StoreError | None = None
        self._refused_at = float("-inf")
        self._warning: str | None = None
        self._closed = False

    @property
    def refused(self) -> str | None:
        """Why there is no connection, as far as it is known."""
        return None if self._refused is None else str(self._refused)

    async def open(self) -> Any:
        """Return the connection, made if there is none. Unopenable, Unusable."""
        if self._closed:
            raise StoreError("the store is closing")
        if self._timeline < self._hosts.timeline:
            self.drop()  # another has taken that primary's place, as a lane beside this one found
        if self._db is None or self._db.is_closed():
            if self._refused is not None and time.monotonic() - self._refused_at < PAUSE_SECONDS:
                raise StoreError(str(self._refused))
            try:
                self._db, self._timeline = await self._hosts.connect(self._make_ready)
                self._refused = None
            except StoreError as error:
                self._refused, self._refused_at = error, time.monotonic()
                raise
        return self._db

    async def wait_for_database(self, seconds: float) -> None:
        """Connect to one that is still starting, as soon as it lets us. Unopenable, Unusable."""
        deadline = time.monotonic() + seconds
        told = False
        while True:
            try:
                await self.open()
                return
            except Unusable:
                raise
            except StoreError as error:
                if time.monotonic() > deadline:
                    raise
                if not told:
                    logger.warning("waiting for the database: %s", error)
                    told = True
            await asyncio.sleep(START_PAUSE_SECONDS)

    def drop(self) -> None:
        """Let go of the connection at once: a close would wait for the other side."""
        if self._db is not None:
            self._db.terminate()
            self._db = None

    def close(self) -> None:
        self._closed = True
        self.drop()

    async def run(self, work: Callable[[Any], Awaitable[T]], seconds: float) -> T:
        """Do work, which may be done twice, on the connection, within a time. StoreError."""
        async with self._turn:
            try:
                db = await self.open()
            except Unusable as error:
                raise Fatal(str(error)) from error
            self._warning = None
            try:
                result = await within(seconds, again(lambda: work(db)))
            except BaseException as error:
                if self._is_suspect(error):
                    self.drop()
                if isinstance(error, FAILURES):
                    raise StoreError(words(error)) from error
                raise
            self._check_replicated()
            return result

    def _is_suspect(self, error: BaseException) -> bool:
        return isinstance(error, _BROKEN)

    def _check_replicated(self) -> None:
        """A commit whose wait for standbys was cancelled is told as a success, with a warning."""
        if self._warning is not None:
            self.drop()
            raise StoreError(f"only the primary has it: {self._warning}")

    async def _make_ready(self, db: Any) -> None:
        if not self._durable:
            return
        # A commit would wait in vain, and so would the next: one connection waits, not hundreds.
        if await health.stalled(db, health.STALLED_SECONDS):
            raise Unopenable(health.STALLED)
        synchronous = await db.fetchval("SHOW synchronous_commit")
        if synchronous in ("off", "local"):
            logger.warning(
                "synchronous_commit is %s for this role or database: using on", synchronous
            )
            synchronous = "on"
        # Set for the session, even to what they are: no reload and no pooler takes them away.
        await db.execute(
            f"SET synchronous_commit = {synchronous}; SET client_min_messages = warning"
        )
        db.add_log_listener(self._on_log)

    def _on_log(self, _db: Any, message: Any) -> None:
        # By the function that says it: words are translated, and others warn of other things.
        if message.server_source_function in ("SyncRepWaitForLSN", None):
            self._warning = str(message.args[0])


class CommitLane(Lane):
    """A connection that stores messages, under numbers of its own slot."""

    def __init__(self, hosts: Hosts) -> None:
        super().__init__(hosts, durable=True)
        self.slot = Slot(-1, 0)

    def _is_suspect(self, error: BaseException) -> bool:
        # Of a commit nobody knows what became, nor which number is its slot's next.
        return True

    async def _make_ready(self, db: Any) -> None:
        if await schema.check(db) != schema.VERSION:
            raise Unusable(health.OTHER_SCHEMA)
        await super()._make_ready(db)
        # A server that was cut off in the middle holds up others for no longer than a commit may.
        await db.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        self.slot = await _take_slot(db)


async def _take_slot(db: Any) -> Slot:
    """Take the first slot that no connection has; its lock ends with the connection's backend.

    Not before: while a transaction of a dropped connection may still commit, its slot is taken.
    """
    timeline = await timeline_of(db)
    # Whoever comes first, before any slot is taken.
    await db.execute(_LEAP, timeline)
    number = 0
    while not await db.fetchval("SELECT pg_try_advisory_lock($1, $2)", SLOT_LOCKS, number):
        number += 1
    await db.execute(
        "INSERT INTO slots (slot, last, timeline) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        number,
        LEAP if timeline > 1 else 0,
        timeline,
    )
    last = await db.fetchval("SELECT last FROM slots WHERE slot = $1", number)
    return Slot(number, int(last))


async def keep_servers_off(db: Any) -> None:
    """Take a slot while nobody else has one, to the connection's end; Unusable if anybody has."""
    if await db.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
        " AND classid::bigint = $1 AND pid <> pg_backend_pid() AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database()))",
        SLOT_LOCKS,
    ) or not await db.fetchval("SELECT pg_try_advisory_lock($1, 0)", SLOT_LOCKS):
        raise Unusable("servers of ours use the database: stop them")
