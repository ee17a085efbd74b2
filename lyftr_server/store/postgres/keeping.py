"""Keeping less: what expired and what is erased goes, by whichever server gets the lock."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ...metrics import StoreMetrics
from ..errors import StoreError
from ..limits import Policy
from . import erasure
from .connection import SLOT_LOCKS, Lane
from .erasure import Erasure
from .retention import Retention
from .tombstones import Seen

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How often it is looked whether an erasure was ordered, and whether anything has expired.
LOOK_SECONDS = 1.0
EXPIRE_SECONDS = 20.0
RETRY_SECONDS = 5.0
# Other servers hear by then which messages were erased.
HEARD_SECONDS = 3 * LOOK_SECONDS
# Beside deliveries a fifth of the time, and no more.
REST = 4
PIECE_SECONDS = 60.0
VACUUM_SECONDS = 24 * 3600.0
# An erasure that waits for an old snapshot says so after this time.
PATIENCE_SECONDS = 30.0
SETTLE_SECONDS = 0.05

_LOCK = 0x4C594B4C  # whoever has it keeps less


class _Elsewhere(Exception):
    """Another server keeps less at the moment."""


class Keeping:
    """A task that makes things go. `busy` tells whether deliveries wait."""

    def __init__(
        self,
        lane: Lane,
        policy: Policy,
        seen: Seen,
        last_erased: int,
        metrics: StoreMetrics,
        busy: Callable[[], bool],
        heard: Callable[[Sequence[str]], None],
    ) -> None:
        self.retention = Retention(policy, seen.pads)
        self._lane = lane
        self._policy = policy
        self._seen = seen
        self._metrics = metrics
        self._busy = busy
        self._tell = heard
        self._heard = last_erased
        self._expire_at = 0.0
        self._holding = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """An erasure was ordered."""
        self._woken.set()

    async def run(self) -> None:
        """Work for ever."""
        failing: str | None = None
        while True:
            pause = LOOK_SECONDS
            self._woken.clear()
            try:
                await self._lane.run(self._seen.catch_up, VACUUM_SECONDS)
                await self._hear()
                if orders := await self._lane.run(erasure.ordered, PIECE_SECONDS):
                    await self._erase(orders)
                if time.monotonic() >= self._expire_at:
                    await self._expire()
                failing = None
            except _Elsewhere:
                pass
            except StoreError as error:
                self._metrics.errors += 1
                pause = RETRY_SECONDS
                if str(error) != failing:
                    failing = str(error)
                    logger.error("keeping less failed: %s", error)
            if self._holding:
                await self._release()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _hear(self) -> None:
        """Tell of messages that were erased, on any server."""
        while found := await self._lane.run(lambda db: _erased(db, self._heard), PIECE_SECONDS):
            self._heard = found[-1][0]
            self._tell([message_id for _, message_id in found])

    async def _expire(self) -> None:
        while await self._piece(self.retention.piece):
            pass
        self._expire_at = time.monotonic() + EXPIRE_SECONDS

    async def _erase(self, orders: Sequence[Erasure]) -> None:
        """Make all that is ordered go, and come back when it is gone."""
        for each in orders:
            await self._take_messages(each)
            for table in erasure.BODIES:
                await self._take_bodies(each, table)
        if await self._piece(_others_serve):
            await asyncio.sleep(HEARD_SECONDS)
        await self._wait_until(erasure.folded, "counts to be folded")
        await self._piece(erasure.cross_out, orders)
        await self._wait_until(erasure.settled, "an old snapshot of the database")
        for table in erasure.ANALYZED:
            await self._piece(erasure.analyze, table, seconds=VACUUM_SECONDS)
        for table in erasure.VACUUMED:
            await self._piece(erasure.vacuum, table, seconds=VACUUM_SECONDS)
        await self._piece(erasure.finish, orders)

    async def _take_messages(self, each: Erasure) -> None:
        while seqs := await self._piece(erasure.sent, each):
            await self._take(each, seqs)
        if each.person is None or not await self._piece(erasure.was_recipient, each.person):
            return
        after: int | None = 0
        while after is not None:
            seqs, after = await self._piece(erasure.received, each, after)
            if seqs:
                await self._take(each, seqs)

    async def _take(self, each: Erasure, seqs: Sequence[int]) -> None:
        await self._piece(erasure.take, each, seqs, self._policy.tombstone_days, self._seen.pads)
        await self._hear()

    async def _take_bodies(self, each: Erasure, table: str) -> None:
        after: int | None = 0
        while after is not None:
            keys, after = await self._piece(
                erasure.mentioning, table, after, each.person, each.message_id
            )
            if keys:
                await self._piece(erasure.take_bodies, each, table, keys)

    async def _wait_until(self, done: Callable[[Any], Awaitable[bool]], what: str) -> None:
        told_at = time.monotonic() + PATIENCE_SECONDS
        pause = SETTLE_SECONDS
        while not await self._piece(done):
            if time.monotonic() > told_at:
                logger.warning("an erasure waits for %s", what)
                told_at = float("inf")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS)

    async def _piece(
        self,
        work: Callable[..., Awaitable[T]],
        *args: Any,
        seconds: float = PIECE_SECONDS,
    ) -> T:
        """Do a piece while no other server does one; then rest, where deliveries wait."""

        async def held(db: Any) -> T:
            # Again for each piece: the connection may be another. The session's, not a
            # transaction's, which VACUUM cannot be in.
            if not await db.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                raise _Elsewhere
            return await work(db, *args)

        self._holding = True
        started = time.monotonic()
        result = await self._lane.run(held, seconds)
        if self._busy():
            await asyncio.sleep(REST * (time.monotonic() - started))
        return result

    async def _release(self) -> None:
        self._holding = False
        with suppress(StoreError):  # then the connection is gone, and its lock
            await self._lane.run(_unlock, PIECE_SECONDS)


async def _unlock(db: Any) -> None:
    await db.execute("SELECT pg_advisory_unlock_all()")


async def last_erased(db: Any) -> int:
    """Return the last that was written down: what comes after it is to be heard."""
    return int(await db.fetchval("SELECT coalesce(max(id), 0) FROM erased"))


async def _erased(db: Any, after: int) -> list[Any]:
    found: list[Any] = await db.fetch(
        "SELECT id, message_id FROM erased WHERE id > $1 ORDER BY id LIMIT 1000", after
    )
    return found


async def _others_serve(db: Any) -> bool:
    """Tell whether there are other servers: they have slots of their own."""
    servers = await db.fetchval(
        "SELECT count(DISTINCT objid) FROM pg_locks WHERE locktype = 'advisory'"
        " AND classid::bigint = $1 AND objsubid = 2"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        SLOT_LOCKS,
    )
    return bool(servers > 2)
