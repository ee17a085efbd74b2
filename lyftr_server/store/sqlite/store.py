"""The message store: an embedded SQLite database, shared by all handlers of an application."""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...metrics import StoreMetrics
from ...records import Message, Result
from ...schema import MessageQuery
from ..cursor import key_of
from ..errors import StoreError, Unopenable
from ..pages import Page
from . import reads, schema, search, verify
from .connection import Connection, open_reader, open_writer
from .files import Files, create_private, lock
from .insert import CONTENT_DEDUPE
from .writer import MAX_BATCH, Writer

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

EXPORT_ROWS = 500
EXPORT_PAUSE_SECONDS = 0.25


class MessageStore:
    """Every message once. All methods but open and close may be called by many tasks at a time.

    One connection writes (see Writer). Two read: `_listings` for what takes a moment, `_searches`
    for what may take seconds, so that no scan delays a listing, and neither delays a commit.
    """

    def __init__(
        self,
        path: Path,
        *,
        dedupe_by: str = "message_id",
        queue_limit: int = 10000,
        max_batch: int = MAX_BATCH,
        metrics: StoreMetrics | None = None,
        on_fatal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.path = path.resolve()
        self.files = Files(self.path)
        self.metrics = metrics or StoreMetrics()
        self._dedupe_by = dedupe_by
        self._queue_limit = queue_limit
        self._max_batch = max_batch
        self._on_fatal = on_fatal
        self._lock: int | None = None
        self._connections: list[Connection] = []
        self._writer: Writer
        self._listings: _Lane
        self._searches: _Lane

    async def open(self) -> None:
        """Lock, open and migrate the database, creating it if need be. Unopenable when not."""
        try:
            self._lock = lock(self.path)
            create_private(self.path)
            writing = await self._opened(open_writer(self.path))
            await writing.run(schema.migrate)
            await writing.run(_make_durable)
            await writing.run(_repair_counts)
            if self._dedupe_by == "content":
                await writing.run(lambda db: db.execute(CONTENT_DEDUPE))
            self._listings = _Lane(await self._opened(open_reader(self.path)))
            self._searches = _Lane(await self._opened(open_reader(self.path)))
            self._writer = Writer(
                writing,
                self.files,
                self.metrics,
                queue_limit=self._queue_limit,
                max_batch=self._max_batch,
                on_fatal=self._on_fatal,
            )
            await self._writer.start()
            self.files.check()
        except (sqlite3.Error, OSError, StoreError) as error:
            await self._release()
            raise Unopenable(f"{self.path}: {error}") from error
        except BaseException:
            await self._release()
            raise

    async def close(self) -> None:
        """Commit what waits and close the files."""
        try:
            await self._writer.close()
        finally:
            await self._release()

    # -- writing

    @property
    def full(self) -> bool:
        """Whether insert would raise QueueFull."""
        return self._writer.full

    @property
    def queue_depth(self) -> int:
        return self._writer.depth

    @property
    def queue_limit(self) -> int:
        return self._queue_limit

    def insert(self, message: Message) -> "asyncio.Future[Result]":
        """Store a message once. The future is done when its transaction is on the disk.

        QueueFull at once; StoreError from the future, and then the message may be sent again.
        """
        return self._writer.put(message)

    async def ping(self) -> None:
        """Return if the database answers and a write succeeds; else StoreError."""
        await self._writer.ping()
        await self._read(self._listings, reads.total)

    @property
    def failing(self) -> str | None:
        """Why the last write failed; None when it did not."""
        return self._writer.failing

    # -- reading. All raise StoreError when the database does not answer.

    async def page(self, query: MessageQuery) -> Page:
        """Return one page of messages and their exact total. Invalid for a foreign cursor."""
        lane = self._searches if query.q else self._listings
        return await self._read(lane, reads.page, query, lane.stopped)

    async def stats(self, now_us: int) -> dict[str, Any]:
        """Return the statistics; `now_us` is microseconds since 1970."""
        return await self._read(self._listings, reads.stats, now_us)

    async def message(self, message_id: str) -> Message | None:
        """Return one message, or None."""
        return await self._read(self._listings, reads.message, message_id)

    async def total(self) -> int:
        """Return the number of messages."""
        return await self._read(self._listings, reads.total)

    async def search_backlog(self) -> int:
        """Return the number of messages above the search index's watermark."""
        return await self._read(self._listings, search.backlog)

    async def export(self, query: MessageQuery) -> AsyncGenerator[list[Message], None]:
        """Yield all rows that match, in the listing's order, some at a time and in constant memory.

        Each chunk is a short read of its own: a long export holds back no checkpoint.
        """
        after = None
        lane = self._searches
        while True:
            began = time.monotonic()
            rows = await self._read(lane, reads.chunk, query, after, EXPORT_ROWS, lane.stopped)
            if not rows:
                return
            yield rows
            after = key_of(rows[-1])
            if self.queue_depth:
                # Beside deliveries an export takes a tenth of the time, and no more.
                await asyncio.sleep(min(9 * (time.monotonic() - began), EXPORT_PAUSE_SECONDS))

    async def _read(
        self,
        lane: "_Lane",
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            return await lane.run(work, *args, **kwargs)
        except sqlite3.Error as error:
            self.metrics.errors += 1
            raise StoreError(str(error)) from error

    async def _opened(self, opening: Any) -> Connection:
        connection: Connection = await opening
        self._connections.append(connection)
        return connection

    async def _release(self) -> None:
        # An open connection's thread would keep the process alive for ever.
        for connection in reversed(self._connections):
            await connection.close()
        self._connections.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class _Lane:
    """A read connection that serves one reader at a time, and stops when that one goes away."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()
        self._stop = False

    def stopped(self) -> bool:
        """Whether the reader has gone; long reads ask between their pieces."""
        return self._stop

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with self._turn:
            self._stop = False
            reading = asyncio.ensure_future(self._connection.run(work, *args, **kwargs))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                # Long reads ask for it between pieces of 100 ms at most. SQLite's own interrupt
                # would stop inside one, where FTS5 was seen to crash of it.
                self._stop = True
                await asyncio.wait([reading])
                if not reading.cancelled():
                    reading.exception()
                raise


def _make_durable(db: sqlite3.Connection) -> None:
    # After migrate: until then nothing may be written, to a database that is not ours least of all.
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"the file system allows no write-ahead log (journal mode {mode})")
    db.execute("PRAGMA synchronous = FULL")


def _repair_counts(db: sqlite3.Connection) -> None:
    """Count anew what does not fit, after INSERT OR REPLACE by hand for one."""
    if not verify.counts_fit(db):
        logger.warning("the counts do not fit the messages: counting anew")
        verify.rebuild(db, lambda step: logger.info("counting anew: %s", step))
