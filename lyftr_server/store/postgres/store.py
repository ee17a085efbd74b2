"""The store on PostgreSQL: two connections commit, the others read, and one keeps up."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from ...metrics import Gauge
from ...records import Erased, Message, Result, StoredEvent, StoredMessage, StoredRefusal
from ...schema import EventQuery, MessageQuery, RefusedQuery, TimelineQuery
from ..commits import Item
from ..cursor import Key, key_of
from ..errors import StoreError, Unopenable, Unusable
from ..limits import Limits, Policy
from ..message_store import MessageStore
from ..pages import Page, Rows, cut_to_fit
from . import erasure, following, health, reads, schema, tombstones, upkeep
from .connection import CommitLane, Lane
from .gauges import gauges
from .hosts import Hosts, host, lasting, urls
from .insert import Options, insert
from .keeping import Keeping, last_erased

logger = logging.getLogger(__name__)

T = TypeVar("T")

COMMIT_SECONDS = 10.0
HEALTH_SECONDS = 5.0
# Readiness has two seconds for its answer; after this it looks for the reason.
PATIENCE_SECONDS = 1.0
LISTING_SECONDS = 30.0
SEARCH_SECONDS = 120.0
# A migration of many rows, and a piece of upkeep.
MIGRATE_SECONDS = 3600.0
UPKEEP_SECONDS = 60.0

EXPORT_ROWS = 500
EXPORT_PAUSE_SECONDS = 0.25
# From one look for what can wait to the next, and after a failure.
KEEP_UP_SECONDS = 1.0
KEEP_UP_RETRY_SECONDS = 5.0
# Whoever waits for an erasure looks so often.
ERASED_SECONDS = 0.1

_LIMITS, _POLICY = Limits(), Policy()


class PostgresStore(MessageStore):
    """A database that any number of servers share.

    `_listings` is for reads that take a moment, `_searches` for what may take seconds, `_health`
    for the probe alone.
    """

    commits_in_flight = 2

    def __init__(
        self,
        url: str,
        *,
        dedupe_by: str = "message_id",
        refused_limits: Limits = _LIMITS,
        policy: Policy = _POLICY,
        wait_seconds: float = 30.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._url = url
        self._options = Options(by_content=dedupe_by == "content", refused_limits=refused_limits)
        self._policy = policy
        self._wait_seconds = wait_seconds
        self._version = ""
        self._writing: list[CommitLane] = []
        self._listings: Lane
        self._searches: Lane
        self._health: Lane
        self._upkeep: Lane
        self._lessening: Lane
        self._keeping: Keeping
        self._pinging: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def name(self) -> str:
        return "postgresql://" + ",".join(host(url) for url in urls(self._url))

    @property
    def build(self) -> Mapping[str, str]:
        return {"postgresql": self._version}

    async def _open(self) -> None:
        hosts = Hosts(self._url)
        self._writing = [CommitLane(hosts) for _ in range(self.commits_in_flight)]
        self._listings, self._searches, self._health, self._lessening = (
            Lane(hosts) for _ in range(4)
        )
        self._upkeep = Lane(hosts, durable=True)
        try:
            self.waiting = True
            await self._upkeep.wait_for_database(self._wait_seconds)
            self.waiting = False
            await self._upkeep.run(schema.migrate, MIGRATE_SECONDS)
            seen = await self._upkeep.run(tombstones.seen, HEALTH_SECONDS)
            last = await self._upkeep.run(last_erased, HEALTH_SECONDS)
            for lane in self._writing:
                await lane.open()
            self._version = await self._health.run(_version, HEALTH_SECONDS)
        except StoreError as error:
            await self._close()
            kind = type(error) if isinstance(error, Unopenable) else Unopenable
            if lasting(error.__cause__):
                kind = Unusable
            raise kind(f"{self.name}: {error}") from error
        except BaseException:
            await self._close()
            raise
        self._options = self._options._replace(seen=seen)
        self._keeping = Keeping(
            self._lessening,
            self._policy,
            seen,
            last,
            self.metrics,
            busy=lambda: bool(self.queue_depth),
            heard=lambda ids: self.on_erased(ids),
        )
        self._tasks = [asyncio.create_task(work) for work in (self._keep_up(), self._keeping.run())]

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        reading = (self._listings, self._searches, self._health)
        for lane in (*self._writing, *reading, self._upkeep, self._lessening):
            lane.close()

    # -- writing

    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]:
        # As many lanes as commits in flight: one is free.
        lane = self._writing.pop()
        try:
            results, last = await lane.run(
                lambda db: insert(db, batch, lane.slot, self._options), COMMIT_SECONDS
            )
            lane.slot = lane.slot._replace(last=last)
            return results
        finally:
            self._writing.append(lane)

    async def probe(self) -> None:
        lane = self._writing.pop()
        try:
            await lane.run(lambda db: health.probe(db, lane.slot.number), HEALTH_SECONDS)
        finally:
            self._writing.append(lane)

    async def erase(self, *, person: str | None = None, message_id: str | None = None) -> Erased:
        # Beside upkeep, whose pieces are short: whoever lists does not wait for a standby.
        number = await self._upkeep.run(
            lambda db: erasure.order(db, person=person, message_id=message_id), LISTING_SECONDS
        )
        self._keeping.wake()
        while True:
            try:
                done = await self._upkeep.run(lambda db: erasure.taken(db, number), LISTING_SECONDS)
            except erasure.Lost:
                raise
            except StoreError:
                done = None  # it goes on, here or on another server
            if done is not None:
                return done
            await asyncio.sleep(ERASED_SECONDS)

    async def erasable(self, person: str) -> Erased:
        return await self._read(self._searches, lambda db: erasure.count(db, person))

    async def _keep_up(self) -> None:
        """Do what can wait, for ever; beside deliveries at most half of the time."""
        failing: str | None = None
        while True:
            pause = KEEP_UP_SECONDS
            try:
                while await self._upkeep.run(upkeep.fold, UPKEEP_SECONDS):
                    pass
                began = time.monotonic()
                while await self._upkeep.run(upkeep.index, UPKEEP_SECONDS):
                    if self.queue_depth:
                        pause = min(KEEP_UP_SECONDS, time.monotonic() - began)
                        break
                failing = None
            except StoreError as error:
                self.metrics.errors += 1
                pause = KEEP_UP_RETRY_SECONDS
                if str(error) != failing:
                    failing = str(error)
                    logger.error("upkeep of the database failed: %s", error)
            await asyncio.sleep(pause)

    # -- reading

    async def ping(self) -> None:
        """As any engine's; what has not ended after a moment is asked why."""
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.ensure_future(super().ping())
            self._pinging.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        done, _ = await asyncio.wait([self._pinging], timeout=PATIENCE_SECONDS)
        if done:
            return self._pinging.result()
        if reason := self._health.refused:
            raise StoreError(reason)
        await self._read(self._health, health.explain)
        await asyncio.shield(self._pinging)

    async def answers(self) -> None:
        await self._read(self._health, health.check)

    async def page(self, query: MessageQuery) -> Page:
        lane = self._searches if query.q else self._listings
        return await self._read(lane, lambda db: reads.page(db, query))

    async def message(self, message_id: str) -> StoredMessage | None:
        return await self._read(self._listings, lambda db: reads.message(db, message_id))

    async def payload(self, message_id: str) -> str | None:
        return await self._read(self._listings, lambda db: reads.payload(db, message_id))

    async def events(self, query: EventQuery) -> Rows[StoredEvent]:
        return await self._read(self._listings, lambda db: reads.events_page(db, query))

    async def refused(self, query: RefusedQuery) -> Rows[StoredRefusal]:
        return await self._read(self._listings, lambda db: reads.refused_page(db, query))

    async def total(self) -> int:
        return await self._read(self._health, reads.total)

    async def stats(self, now_us: int | None = None) -> dict[str, Any]:
        return await self._read(self._listings, lambda db: reads.stats(db, now_us))

    async def export(self, query: MessageQuery) -> AsyncGenerator[list[Message], None]:
        """Yield all rows that match. Each chunk is a short read of its own."""
        after, place, size = None, following.BEGINNING, EXPORT_ROWS
        places: list[str] = []
        while True:
            began = time.monotonic()
            if query.order == "stored":
                rows, places = await self.follow(query, place, size)
            else:
                rows = await self._chunk(query, after, size)
            if not rows:
                return
            cut_to_fit(rows)
            size = min(EXPORT_ROWS, 2 * len(rows))
            yield rows
            after = key_of(rows[-1])
            place = places[len(rows) - 1] if places else place
            if self.queue_depth:
                # Beside deliveries an export takes a tenth of the time, and no more.
                await asyncio.sleep(min(9 * (time.monotonic() - began), EXPORT_PAUSE_SECONDS))

    async def _chunk(self, query: MessageQuery, after: Key | None, size: int) -> list[Message]:
        return await self._read(self._searches, lambda db: reads.chunk(db, query, after, size))

    async def timeline(self, query: TimelineQuery) -> list[tuple[str, int]]:
        return await self._read(self._listings, lambda db: reads.timeline(db, query))

    async def head(self) -> str:
        return await self._read(self._listings, following.head)

    async def follow(
        self, query: MessageQuery, after: str, limit: int
    ) -> tuple[list[Message], list[str]]:
        every = query.q is None and query.sender is None and query.since is None
        lane = self._listings if every else self._searches
        return await self._read(lane, lambda db: following.follow(db, query, after, limit))

    async def gauges(self) -> Sequence[Gauge]:
        return await gauges(
            lambda work: self._read(self._health, work), self._keeping.retention.backlog
        )

    async def _read(self, lane: Lane, work: Callable[[Any], Awaitable[T]]) -> T:
        seconds = {self._health: HEALTH_SECONDS, self._searches: SEARCH_SECONDS}
        try:
            return await lane.run(work, seconds.get(lane, LISTING_SECONDS))
        except StoreError:
            self.metrics.errors += 1
            raise


async def _version(db: Any) -> str:
    return str(await db.fetchval("SHOW server_version"))
