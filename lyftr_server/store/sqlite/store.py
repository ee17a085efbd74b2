"""The store on SQLite: one connection writes, three read, and one lock keeps other servers off."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ...metrics import Gauge
from ...records import Erased, Message, Result, StoredEvent, StoredMessage, StoredRefusal
from ...schema import EventQuery, MessageQuery, RefusedQuery, TimelineQuery
from ..commits import Item
from ..errors import StoreError
from ..limits import Limits, Policy
from ..message_store import MessageStore
from ..pages import Page, Rows
from . import erasure, following, opening, reads, search, timeline, upkeep
from .busiest import Busiest
from .checkpoints import Checkpoints
from .connection import Connection, open_reader, open_writer
from .derived import Derived
from .files import Files, create_private, lock, make_folder
from .insert import dedupe_by_content, insert
from .keeping import Keeping
from .reader import Reader
from .sql import Pieces
from .tombstones import Tombstones
from .writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

EXPORT_ROWS = 500
EXPORT_PAUSE_SECONDS = 0.25
GIL_SECONDS = 0.00005
# A scrape waits no longer for a figure: a disk that hangs is told by those that it has.
GAUGE_SECONDS = 1.0


class SqliteStore(MessageStore):
    """A database in one file.

    One connection writes. Of those that read, `_listings` is for what takes a moment, `_searches`
    for what may take seconds, `_health` for the probe alone: no scan delays a listing, no reader a
    commit, and nobody the word that all is well.
    """

    def __init__(
        self,
        path: Path,
        *,
        dedupe_by: str = "message_id",
        refused_limits: Limits = Limits(),  # noqa: B008 - immutable
        policy: Policy = Policy(),  # noqa: B008 - immutable
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._ours_to_place = not path.is_absolute()
        # Path.resolve raises RuntimeError for a loop of links, up to Python 3.12.
        self.path = Path(os.path.realpath(path))
        self.files = Files(self.path)
        self._dedupe_by = dedupe_by
        self._refused_limits = refused_limits
        self._opened = contextlib.AsyncExitStack()
        self._writing: Writer
        self._listings: Reader
        self._busiest: Busiest
        self._searches: Reader
        self._health: Reader
        self._checkpoints: Checkpoints
        self._derived: Derived
        self._policy = policy
        self._tombstones: Tombstones
        self._keeping: Keeping

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def build(self) -> Mapping[str, str]:
        return {"sqlite": sqlite3.sqlite_version}

    async def _open(self) -> None:
        opening.require_sqlite()
        try:
            if self._ours_to_place:  # data/ above all
                make_folder(self.path.parent)
            self._opened.callback(os.close, lock(self.path))
            self.files = Files(self.path)  # opened again, the store has another WAL
            self._opened.callback(self.files.close)
            create_private(self.path)
            writing = await self._connected(open_writer)
            self._writing = Writer(writing, self.files)
            page_bytes = await writing.run(opening.prepare)
            await writing.run(dedupe_by_content, self._dedupe_by == "content")
            found = await writing.run(opening.find)
            self._derived = Derived(self._writing.run, self.files, found)
            self._busiest = Busiest()
            self._listings = Reader(await self._connected(open_reader))
            self._searches = Reader(await self._connected(open_reader))
            self._health = Reader(await self._connected(open_reader))
            self._tombstones = await writing.run(Tombstones)
            erasing = bool(await writing.run(erasure.ordered))
            self._keeping = Keeping(
                self._writing.run, self.path, self._policy, self._tombstones, erasing
            )
            beside = Writer(await self._connected(open_writer), self.files)
            self._checkpoints = Checkpoints(beside, self._writing.run, self.files, page_bytes)
            self._checkpoints.on_copied = lambda: self._commits.wake()
            self._opened.push_async_callback(self._checkpoints.close)
            self.files.check()
        except (sqlite3.Error, OSError, StoreError) as error:
            await self._close()
            raise opening.unopenable(self.path, error) from error
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        # An open connection's thread would keep the process alive for ever.
        await self._opened.aclose()

    async def _connected(self, connect: Callable[[Path], Awaitable[Connection]]) -> Connection:
        connection = await connect(self.path)
        self._opened.push_async_callback(connection.close)
        return connection

    # -- writing

    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]:
        results, created = await self._writing.run(
            insert, batch, self._refused_limits, self._tombstones
        )
        self._writing.check_files()
        self._derived.fall_behind(created)
        self._checkpoints.look()
        return results

    def commit_began(self) -> None:
        """Let go of the GIL until the connection's thread has taken up the batch.

        Else it waits for the GIL while the loop writes the last batch's answers, instead of working
        beside it. A tenth more messages a second at 64 connections.
        """
        time.sleep(GIL_SECONDS)

    async def probe(self) -> None:
        await self._writing.probe()

    async def upkeep(self) -> None:
        keeping, derived = self._keeping, self._derived
        if self._checkpoints.due:
            await self._checkpoints.finish()
        elif keeping.due or (keeping.busy and not derived.index_waits):
            if ids := await keeping.piece():
                self.on_erased(ids)
        elif derived.uncounted and not self.queue_depth:
            await derived.count()
        elif derived.index_waits:
            await derived.index()
        else:
            await keeping.shrink()
        self._checkpoints.look()

    @property
    def upkeep_waits(self) -> bool:
        waits = self._checkpoints.due or self._derived.waits or self._keeping.waits
        return waits and not self._checkpoints.busy

    @property
    def upkeep_due(self) -> bool:
        due = self._checkpoints.due or self._derived.due or self._keeping.due
        return due and not self._checkpoints.busy

    async def erase(self, *, person: str | None = None, message_id: str | None = None) -> Erased:
        ended = await self._keeping.erase(person=person, message_id=message_id)
        self._commits.wake()
        return await asyncio.shield(ended)

    async def erasable(self, person: str) -> Erased:
        return await self._read(self._searches, erasure.count, person)

    # -- reading

    async def answers(self) -> None:
        await self._read(self._health, reads.total)

    async def page(self, query: MessageQuery) -> Page:
        reader = self._searches if query.q else self._listings
        return await self._read_long(reader, reads.page_in_pieces, query)

    async def message(self, message_id: str) -> StoredMessage | None:
        return await self._read(self._listings, reads.message, message_id)

    async def payload(self, message_id: str) -> str | None:
        return await self._read(self._listings, reads.payload, message_id)

    async def events(self, query: EventQuery) -> Rows[StoredEvent]:
        return await self._read(self._listings, reads.events_page, query)

    async def refused(self, query: RefusedQuery) -> Rows[StoredRefusal]:
        return await self._read(self._listings, reads.refused_page, query)

    async def total(self) -> int:
        return await self._read(self._health, reads.total)

    async def stats(self, now_us: int | None = None) -> dict[str, Any]:
        now_us = time.time_ns() // 1000 if now_us is None else now_us
        return await self._read(self._listings, reads.stats, now_us, self._busiest)

    async def export(self, query: MessageQuery) -> AsyncGenerator[list[Message], None]:
        """Yield all rows that match. Each chunk is a short read: no checkpoint is held back."""
        work = reads.export if query.order != "stored" else following.export
        stream = self._searches.stream(work, query, EXPORT_ROWS)
        began = time.monotonic()
        try:
            async with contextlib.aclosing(stream) as chunks:
                async for rows in chunks:
                    taken = time.monotonic() - began
                    yield rows
                    if self.queue_depth:
                        # Beside deliveries an export takes a tenth of the time, and no more.
                        await asyncio.sleep(min(9 * taken, EXPORT_PAUSE_SECONDS))
                    began = time.monotonic()
        except sqlite3.Error as error:
            raise self._failed_read(error) from error

    async def timeline(self, query: TimelineQuery) -> list[tuple[str, int]]:
        return await self._read(self._listings, timeline.timeline, query)

    async def head(self) -> str:
        return await self._read(self._listings, following.head)

    async def follow(
        self, query: MessageQuery, after: str, limit: int
    ) -> tuple[list[Message], list[str]]:
        # What everybody waits for is a few rows; what one asks for may be far apart.
        every = query.q is None and query.sender is None and query.since is None
        reader = self._listings if every else self._searches
        return await self._read_long(reader, following.in_pieces, query, after, limit)

    async def search_backlog(self) -> int:
        """Return the number of messages above the search index's watermark."""
        return await self._read(self._health, search.backlog)

    async def gauges(self) -> Sequence[Gauge]:
        backlog: int | None = None
        expired: int | None = None
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(GAUGE_SECONDS):
                backlog = await self.search_backlog()
                expired = await self._read(self._health, self._keeping.backlog)
        return [
            Gauge(
                "lyftr_search_backlog_messages",
                "Messages the search index does not cover yet.",
                backlog,
            ),
            Gauge(
                "lyftr_retention_backlog_messages",
                "Messages that have expired and are not deleted yet.",
                expired,
            ),
            Gauge("lyftr_erasures_waiting", "Erasures under way.", self._keeping.erasures),
            *self.files.gauges(),
        ]

    async def _read(
        self,
        reader: Reader,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            return await reader.run(work, *args, **kwargs)
        except sqlite3.Error as error:
            raise self._failed_read(error) from error

    async def _read_long(
        self,
        reader: Reader,
        work: Callable[Concatenate[sqlite3.Connection, P], Pieces[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            return await reader.run_in_pieces(work, *args, **kwargs)
        except sqlite3.Error as error:
            raise self._failed_read(error) from error

    def _failed_read(self, error: sqlite3.Error) -> StoreError:
        self.metrics.errors += 1
        if upkeep.damaged(error):
            self._derived.index_damaged = True
        return StoreError(str(error))
