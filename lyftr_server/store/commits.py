"""Group commit: all that waits becomes one transaction; a sender hears only after its sync.

Knows no engine. What waits is bounded; whoever waits is answered, whatever happens.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from ..metrics import StoreMetrics
from ..records import Delivery, Refusal, Result
from .errors import QueueFull, StoreError
from .health import Health

logger = logging.getLogger(__name__)

# Messages and events in one transaction, unless a single delivery has more.
MAX_BATCH = 256
# So that a flood of refused bodies costs deliveries little: so many in a transaction, and while
# deliveries come none for a multiple of the time it took. Of the queue a part only.
MAX_REFUSALS = 8
REFUSALS_REST = 19
LONGEST_REST_SECONDS = 0.25
DELIVERIES_COME_SECONDS = 1.0
REFUSALS_PART = 4
# Upkeep begins when nobody came for so long. Whoever comes meanwhile waits for one piece of it.
IDLE_SECONDS = 0.05
UPKEEP_LOOK_SECONDS = 5.0  # so often it is looked whether something has come up

Item = Delivery | Refusal


class Engine(Protocol):
    """What a database does for group commit. Each raises StoreError; Fatal ends the process."""

    @property
    def commits_in_flight(self) -> int:
        """How many transactions may be on their way at a time."""

    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]:
        """Store all of a batch, synced, or nothing; return what became of each."""

    def commit_began(self) -> None:
        """Hear that a commit is on its way, before the last one's answers are written."""

    async def probe(self) -> None:
        """Return if a write succeeds now."""

    async def upkeep(self) -> None:
        """Do one short piece of what can wait."""

    @property
    def upkeep_waits(self) -> bool:
        """Whether upkeep() has anything to do."""

    @property
    def upkeep_due(self) -> bool:
        """Whether it can wait for an idle moment no longer."""


class _Waiting(NamedTuple):
    item: Item
    size: int  # messages and events
    future: "asyncio.Future[Result]"


class Commits:
    """The bounded queue and the tasks that empty it.

    The first lane also does the probe and the upkeep, in turn with its commits: on an engine with
    one connection nothing is ever awaited inside another's transaction.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: StoreMetrics,
        *,
        queue_limit: int,
        max_batch: int = MAX_BATCH,
        on_fatal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self.limit = queue_limit
        self._max_batch = max_batch
        self._health = Health(metrics, on_fatal)
        self._refusals_after = 0.0  # until then those that wait are left alone
        self._delivered_at = float("-inf")
        self._loop = asyncio.get_running_loop()
        self._deliveries: deque[_Waiting] = deque()
        self._refusals: deque[_Waiting] = deque()
        self.depth = 0  # messages taken in but not committed
        self._probe: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._lanes = [
            asyncio.create_task(self._run(first=not n)) for n in range(engine.commits_in_flight)
        ]

    @property
    def full(self) -> bool:
        return self.depth >= self.limit

    def put(self, item: Item) -> "asyncio.Future[Result]":
        """Queue what is to be stored; the future is done once it is. QueueFull, StoreError."""
        if self.full:
            raise QueueFull
        if self._closing or self._health.lost:
            raise StoreError("the store is closing")
        if isinstance(item, Refusal):
            if len(self._refusals) * REFUSALS_PART >= self.limit:
                raise QueueFull
            queue, size = self._refusals, 1
        else:
            queue, size = self._deliveries, len(item.messages) + len(item.events)
        waiting = _Waiting(item, size, self._loop.create_future())
        queue.append(waiting)
        self.depth += size
        self._wake.set()
        return waiting.future

    async def ping(self) -> None:
        """Return if a write succeeds now, or did within the last second; else StoreError."""
        if self._health.proven:
            return
        if self._probe is None:
            self._probe = self._loop.create_future()
            self._wake.set()
        await asyncio.shield(self._probe)

    def wake(self) -> None:
        """Look whether there is upkeep to do."""
        self._wake.set()

    async def close(self) -> None:
        """Commit what waits, then end."""
        self._closing = True
        self._wake.set()
        await asyncio.gather(*self._lanes)

    async def _run(self, *, first: bool) -> None:
        try:
            await (self._first_lane() if first else self._other_lane())
        except (Exception, asyncio.CancelledError) as error:
            # Nobody would ever be answered again.
            logger.critical("the writer has ended", exc_info=True)
            failure = self._health.ended(error)
            for queue in (self._deliveries, self._refusals):
                self._resolve(list(queue), failure)
                queue.clear()

    async def _first_lane(self) -> None:
        while True:
            if self._probe is not None:
                await self._write_probe()
            if self._waits:
                await self._commit_all(first=True)
            elif self._probe is None and not self._upkeep_due:
                # Nothing was awaited since this was asked, so nothing that came is overlooked.
                if self._closing:
                    return
                await self._idle()
            # One piece in turn with the commits: a long backlog holds nobody up for longer.
            if self._upkeep_due:
                await self._upkeep()

    async def _other_lane(self) -> None:
        while not self._closing or self._waits:
            await self._commit_all(first=False)
            if not self._waits and not self._closing:
                self._wake.clear()
                await self._wake.wait()

    async def _idle(self) -> None:
        """Wait for work; when none comes, do what can wait."""
        self._wake.clear()
        patience = IDLE_SECONDS if self._may_keep_up else UPKEEP_LOOK_SECONDS
        if self._refusals:
            patience = min(patience, max(0.0, self._refusals_after - time.monotonic()))
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            while self._may_keep_up and not self._wake.is_set() and not self._waits:
                await self._upkeep()

    # -- commits

    @property
    def _waits(self) -> bool:
        return bool(self._deliveries or self._ready_refusals)

    @property
    def _ready_refusals(self) -> int:
        rested = time.monotonic() >= self._refusals_after or self._closing
        return min(len(self._refusals), MAX_REFUSALS) if rested else 0

    async def _commit_all(self, *, first: bool) -> None:
        """Commit batch after batch while messages wait, until something else is due.

        The next batch is on its way to the disk while the last one's answers are written.
        """
        batch = self._take()
        commit = self._start_commit(batch)
        while commit is not None:
            try:
                outcome: Sequence[Result] | StoreError = await commit
            except Exception as error:
                outcome = self._health.failed(error)
            due = first and (self._upkeep_due or self._probe is not None)
            answered, batch = batch, [] if due else self._take()
            commit = self._start_commit(batch)
            self._resolve(answered, outcome)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        queue = self._deliveries
        while queue and (not batch or size + queue[0].size <= self._max_batch):
            batch.append(queue.popleft())
            size += batch[-1].size
        return batch + [self._refusals.popleft() for _ in range(self._ready_refusals)]

    def _start_commit(self, batch: list[_Waiting]) -> "asyncio.Task[Sequence[Result]] | None":
        if not batch:
            return None
        commit = asyncio.create_task(self._commit(batch))
        self._loop.call_soon(self._engine.commit_began)
        return commit

    async def _commit(self, batch: list[_Waiting]) -> Sequence[Result]:
        self._health.require()
        start = time.perf_counter()
        results = await self._engine.commit([waiting.item for waiting in batch])
        self._metrics.commit_seconds.observe(took := time.perf_counter() - start)
        self._rest(batch, took)
        self._metrics.batch_size.observe(sum(waiting.size for waiting in batch))
        self._health.succeeded()
        return results

    def _rest(self, batch: list[_Waiting], took: float) -> None:
        now = time.monotonic()
        if isinstance(batch[0].item, Delivery):
            self._delivered_at = now
        come = now - self._delivered_at < DELIVERIES_COME_SECONDS
        if come and isinstance(batch[-1].item, Refusal):
            self._refusals_after = now + min(REFUSALS_REST * took, LONGEST_REST_SECONDS)

    # -- the probe and upkeep

    async def _write_probe(self) -> None:
        probe, self._probe = self._probe, None
        try:
            self._health.require()
            await self._engine.probe()
        except StoreError as error:
            failure = self._health.failed(error)
            if probe is not None and not probe.done():
                probe.set_exception(failure)
                probe.exception()  # nobody may be waiting for it any more
        else:
            self._health.succeeded()
            if probe is not None and not probe.done():
                probe.set_result(None)

    @property
    def _may_keep_up(self) -> bool:
        fit = self._health.fit_for_upkeep
        return fit and not self._closing and self._engine.upkeep_waits

    @property
    def _upkeep_due(self) -> bool:
        return self._engine.upkeep_due and self._may_keep_up

    async def _upkeep(self) -> None:
        """Do a piece."""
        try:
            await self._engine.upkeep()
        except StoreError as error:
            self._health.upkeep_failed(error)
        else:
            self._health.upkeep_succeeded()

    def _resolve(self, batch: list[_Waiting], outcome: Sequence[Result] | StoreError) -> None:
        self.depth -= sum(waiting.size for waiting in batch)
        if isinstance(outcome, StoreError):
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(outcome)
                    waiting.future.exception()
            return
        for waiting, result in zip(batch, outcome, strict=True):
            if not waiting.future.done():  # else its request was cancelled; it is stored
                waiting.future.set_result(result)
