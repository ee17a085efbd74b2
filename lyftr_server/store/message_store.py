"""What every engine promises: each message once, and exact answers to what readers ask."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from ..metrics import Gauge, StoreMetrics
from ..records import (
    Delivery,
    Erased,
    Message,
    Refusal,
    Result,
    StoredEvent,
    StoredMessage,
    StoredRefusal,
)
from ..schema import EventQuery, MessageQuery, RefusedQuery, TimelineQuery
from .commits import MAX_BATCH, Commits, Item
from .pages import Page, Rows


class MessageStore(ABC):
    """Every message once. All methods but open and close may be called by many tasks at a time.

    An engine subclasses this. All that it does for group commit (see commits.Engine), and all
    reads, raise StoreError when the database cannot do it.
    """

    commits_in_flight = 1
    # Whether open() waits for a database that is still starting: only then may it be cancelled.
    waiting = False

    def __init__(
        self,
        *,
        queue_limit: int = 10000,
        max_batch: int = MAX_BATCH,
        metrics: StoreMetrics | None = None,
        on_fatal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.metrics = metrics or StoreMetrics()
        self.queue_limit = queue_limit
        self._max_batch = max_batch
        self._on_fatal = on_fatal
        # Hears the ids of messages that were erased.
        self.on_erased: Callable[[Sequence[str]], None] = lambda ids: None
        self._commits: Commits

    async def open(self) -> None:
        """Connect, migrate if need be, and begin to take messages. Unopenable when not."""
        await self._open()
        self._commits = Commits(
            self,
            self.metrics,
            queue_limit=self.queue_limit,
            max_batch=self._max_batch,
            on_fatal=self._on_fatal,
        )

    async def close(self) -> None:
        """Commit what waits, and let go of the database."""
        try:
            await self._commits.close()
        finally:
            await self._close()

    # -- writing

    @property
    def full(self) -> bool:
        """Whether insert would raise QueueFull."""
        return self._commits.full

    @property
    def queue_depth(self) -> int:
        """How many messages wait for a commit."""
        return self._commits.depth

    def insert(self, delivery: Delivery) -> asyncio.Future[Result]:
        """Store a delivery whole, each of its messages once.

        The future is done when its transaction is on the disk: a conflict if any message was one,
        created if anything was new, else a duplicate. QueueFull at once; StoreError from the
        future, and then the delivery may be sent again.
        """
        return self._commits.put(delivery)

    def refuse(self, refusal: Refusal) -> asyncio.Future[Result]:
        """Keep a signed body that cannot be stored as asked. As insert."""
        return self._commits.put(refusal)

    async def ping(self) -> None:
        """Return if the database answers and a write succeeds; else StoreError."""
        await asyncio.gather(self._commits.ping(), self.answers())

    async def erase(self, *, person: str | None = None, message_id: str | None = None) -> Erased:
        """Erase all of a person's, or one message; return once no byte of it is left.

        It goes on when the caller leaves, and after a restart. StoreError before it has begun.
        """
        raise NotImplementedError

    async def erasable(self, person: str) -> Erased:
        """Return what erase() would take; it looks at everything, and changes nothing."""
        raise NotImplementedError

    # -- for an engine to say

    @property
    @abstractmethod
    def name(self) -> str:
        """What the database is called in a log line; without a password."""

    @property
    @abstractmethod
    def build(self) -> Mapping[str, str]:
        """Labels that the build metric gets from the engine, such as its version."""

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]: ...

    def commit_began(self) -> None:  # noqa: B027 - for engines that care
        """Hear that a commit is on its way."""

    @abstractmethod
    async def probe(self) -> None: ...

    async def upkeep(self) -> None:  # noqa: B027 - for engines that do it in turn with commits
        """Do one short piece of what can wait."""

    @property
    def upkeep_waits(self) -> bool:
        return False

    @property
    def upkeep_due(self) -> bool:
        return False

    @abstractmethod
    async def gauges(self) -> Sequence[Gauge]:
        """Return what only this engine has to show in a scrape; None for what is not to be had."""

    # -- reading

    @abstractmethod
    async def answers(self) -> None:
        """Return if a read succeeds now, whatever other reads wait."""

    @abstractmethod
    async def page(self, query: MessageQuery) -> Page:
        """Return one page of messages and their exact total. Invalid for a foreign cursor."""

    @abstractmethod
    async def message(self, message_id: str) -> StoredMessage | None:
        """Return one message, or None."""

    @abstractmethod
    async def payload(self, message_id: str) -> str | None:
        """Return a message's own JSON as it came, or None when none is kept."""

    @abstractmethod
    async def events(self, query: EventQuery) -> Rows[StoredEvent]:
        """Return one page of events, by the time they were received. Invalid as page()."""

    @abstractmethod
    async def refused(self, query: RefusedQuery) -> Rows[StoredRefusal]:
        """Return one page of refused bodies, the newest first. Invalid as page()."""

    @abstractmethod
    async def total(self) -> int:
        """Return the number of messages."""

    @abstractmethod
    async def stats(self, now_us: int | None = None) -> dict[str, Any]:
        """Return the statistics as of `now_us`, microseconds since 1970.

        None: now, by the clock that tells the time of storing.
        """

    @abstractmethod
    def export(self, query: MessageQuery) -> AsyncGenerator[list[Message], None]:
        """Yield all rows that match, in the listing's order, some at a time, in constant memory."""

    @abstractmethod
    async def timeline(self, query: TimelineQuery) -> list[tuple[str, int]]:
        """Return (start, count) of whole hours or days. Invalid for too many."""

    @abstractmethod
    async def head(self) -> str:
        """Return the place behind the newest message, in the order of storing."""

    @abstractmethod
    async def follow(
        self, query: MessageQuery, after: str, limit: int
    ) -> tuple[list[Message], list[str]]:
        """Return what was stored after a place and fits, in that order, and the place behind each.

        Fewer than `limit` say that no other is stored now. Of the query its sender, since and q
        count. Invalid for a place that this database never gave.
        """
