"""The store on SQLite: one connection writes, three read, and one lock keeps other servers off."""

import asyncio
import contextlib
import logging
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
from ..errors import Fatal, StoreError, Unopenable, Unusable
from ..limits import Limits, Policy
from ..message_store import MessageStore
from ..pages import Page, Rows
from . import counts, erasure, following, reads, schema, search, timeline, upkeep, verify
from .busiest import Busiest
from .connection import CHECKPOINT_BYTES, Connection, open_reader, open_writer
from .files import Files, create_private, lock, make_folder
from .insert import dedupe_by_content, insert
from .keeping import Keeping
from .reader import Reader
from .sql import Pieces
from .tombstones import Tombstones

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# STRICT tables came with 3.37, -> and ->> for JSON with 3.38.
LEAST_SQLITE = (3, 38, 0)
EXPORT_ROWS = 500
EXPORT_PAUSE_SECONDS = 0.25
GIL_SECONDS = 0.00005
# A scrape waits no longer for a figure: a disk that hangs is told by those that it has.
GAUGE_SECONDS = 1.0

_FSYNC_FAILED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}


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
        self.path = path.resolve()
        self.files = Files(self.path)
        self._dedupe_by = dedupe_by
        self._refused_limits = refused_limits
        self._lock: int | None = None
        self._connections: list[Connection] = []
        self._writing: Connection
        self._listings: Reader
        self._busiest: Busiest
        self._searches: Reader
        self._health: Reader
        self._last_seq = 0
        self._uncounted = 0  # messages that the counts do not know
        self._unfolded = 0  # messages that the search index does not have
        self._unfolded_since_upkeep = 0
        self._more_upkeep = True  # at the start somebody may have deleted messages by hand
        self._upkept_at = 0.0
        self._index_damaged = False
        self._policy = policy
        self._tombstones: Tombstones
        self._keeping: Keeping
        self._erasing: dict[int, asyncio.Future[Erased]] = {}

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def build(self) -> Mapping[str, str]:
        return {"sqlite": sqlite3.sqlite_version}

    async def _open(self) -> None:
        if sqlite3.sqlite_version_info < LEAST_SQLITE:
            least = ".".join(map(str, LEAST_SQLITE))
            msg = f"this Python has SQLite {sqlite3.sqlite_version}, and {least} is needed"
            raise Unusable(msg)
        try:
            if self._ours_to_place:  # data/ above all
                make_folder(self.path.parent)
            self._lock = lock(self.path)
            self.files = Files(self.path)  # opened again, the store has another WAL
            create_private(self.path)
            self._writing = writing = await self._opened(open_writer(self.path))
            await writing.run(schema.migrate)
            await writing.run(_make_durable)
            await writing.run(_repair_counts)
            await writing.run(dedupe_by_content, self._dedupe_by == "content")
            self._last_seq, self._uncounted, self._unfolded = await writing.run(_state)
            self._busiest = Busiest()
            self._listings = Reader(await self._opened(open_reader(self.path)))
            self._searches = Reader(await self._opened(open_reader(self.path)))
            self._health = Reader(await self._opened(open_reader(self.path)))
            self._tombstones = await writing.run(Tombstones)
            erasing = bool(await writing.run(erasure.ordered))
            self._keeping = Keeping(self._write, self.path, self._policy, self._tombstones, erasing)
            self.files.check()
        except (sqlite3.Error, OSError, StoreError) as error:
            await self._close()
            raise _unopenable(self.path, error) from error
        except BaseException:
            await self._close()
            raise

    async def _close(self) -> None:
        # An open connection's thread would keep the process alive for ever.
        for connection in reversed(self._connections):
            await connection.close()
        self._connections.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _opened(self, opening: Awaitable[Connection]) -> Connection:
        connection = await opening
        self._connections.append(connection)
        return connection

    # -- writing

    async def commit(self, batch: Sequence[Item]) -> Sequence[Result]:
        results, created, self._last_seq = await self._write(
            insert, batch, self._last_seq, self._refused_limits, self._tombstones
        )
        # After the commit and before any answer: a commit into a file that nobody can find again
        # is not stored. Not in the connection's thread, which would wait for the GIL after each.
        self._check_files()
        self._uncounted += created
        self._unfolded += created
        self._unfolded_since_upkeep += created
        return results

    def commit_began(self) -> None:
        """Let go of the GIL until the connection's thread has taken up the batch.

        Else it waits for the GIL while the loop writes the last batch's answers, instead of working
        beside it. A tenth more messages a second at 64 connections.
        """
        time.sleep(GIL_SECONDS)

    async def probe(self) -> None:
        await self._write(_probe)
        self._check_files()

    async def upkeep(self) -> None:
        if self._counts_due:
            await self._count()
        elif self._keeping.due or (self._keeping.busy and not self._index_waits):
            await self._keep()
        elif self._uncounted and not self.queue_depth:
            await self._count()
        elif self._index_waits:
            await self._index()
        else:
            await self._keeping.shrink()

    async def _keep(self) -> None:
        """Do a piece of retention or erasure, and tell whoever waits for it."""
        ids, ended = await self._keeping.piece()
        if ids:
            self.on_erased(ids)
        for erasure_id, erased in ended.items():
            waiting = self._erasing.pop(erasure_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(erased)

    async def _count(self) -> None:
        counted = await self._write(counts.fold)
        self._uncounted = max(0, self._uncounted - counted) if counted else 0

    async def _index(self) -> None:
        if self._index_damaged:
            await self._write(upkeep.start_over)
            self._index_damaged = False
        least, self._unfolded_since_upkeep = self._unfolded_since_upkeep, 0
        moved, more = await self._write(upkeep.piece, self.files, least)
        self._unfolded = max(0, self._unfolded - moved) if moved else 0
        self._more_upkeep = more
        self._upkept_at = time.monotonic()

    @property
    def _index_waits(self) -> bool:
        if self._unfolded or self._more_upkeep:
            return True
        return time.monotonic() >= self._upkept_at + upkeep.LOOK_SECONDS

    @property
    def upkeep_waits(self) -> bool:
        return bool(self._uncounted) or self._keeping.waits or self._index_waits

    @property
    def upkeep_due(self) -> bool:
        return self._counts_due or self._keeping.due or self._unfolded >= upkeep.FOLD_BACKLOG

    @property
    def _counts_due(self) -> bool:
        return self._uncounted >= counts.FOLD_ROWS

    async def erase(self, *, person: str | None = None, message_id: str | None = None) -> Erased:
        waiting: asyncio.Future[Erased] = asyncio.get_running_loop().create_future()
        number = await self._write(erasure.order, person=person, message_id=message_id)
        self._erasing[number] = waiting
        self._keeping.erasing = True
        self._commits.wake()
        return await asyncio.shield(waiting)

    async def erasable(self, person: str) -> Erased:
        return await self._read(self._searches, erasure.count, person)

    async def _write(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        try:
            return await self._writing.run(work, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in _FSYNC_FAILED:
                # The kernel may have dropped the pages that it could not write and call the next
                # sync a success. Only a new process, which reads the files again, knows.
                raise Fatal(str(error)) from error
            raise StoreError(str(error)) from error

    def _check_files(self) -> None:
        try:
            self.files.check()
        except OSError as error:
            raise StoreError(str(error)) from error

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

    async def stats(self, now_us: int) -> dict[str, Any]:
        return await self._read(self._listings, reads.stats, now_us, self._busiest)

    async def export(self, query: MessageQuery) -> AsyncGenerator[list[Message], None]:
        """Yield all rows that match.

        Each chunk is a short read of its own: a long export holds back no checkpoint.
        """
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
        disk = self.files.disk_bytes()
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
                "lyftr_database_bytes", "Size of the database file.", self.files.database_bytes()
            ),
            Gauge(
                "lyftr_retention_backlog_messages",
                "Messages that have expired and are not deleted yet.",
                expired,
            ),
            Gauge("lyftr_erasures_waiting", "Erasures under way.", len(self._erasing)),
            Gauge("lyftr_wal_bytes", "Size of the write-ahead log.", self.files.wal_bytes()),
            Gauge("lyftr_disk_free_bytes", "Free on the database's disk.", disk and disk[0]),
            Gauge("lyftr_disk_size_bytes", "Size of the database's disk.", disk and disk[1]),
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
            self._index_damaged = self._more_upkeep = True
        return StoreError(str(error))


# What only a person can mend; a lock or an I/O error may pass by itself.
_LASTING_CODES = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_READONLY,
}
_LASTING = (
    Unusable,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def _unopenable(path: Path, error: Exception) -> Unopenable:
    code = getattr(error, "sqlite_errorcode", None)
    lasting = isinstance(error, _LASTING) or (code is not None and code & 0xFF in _LASTING_CODES)
    return (Unusable if lasting else Unopenable)(f"{path}: {error}")


def _make_durable(db: sqlite3.Connection) -> None:
    # After migrate: until then nothing may be written, to a database that is not ours least of all.
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unusable(f"the file system allows no write-ahead log (journal mode {mode})")
    db.execute("PRAGMA synchronous = FULL")
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // page_bytes}").fetchall()
    # What is deleted is overwritten; an insert pays nothing for it.
    db.execute("PRAGMA secure_delete = ON").fetchall()


def _repair_counts(db: sqlite3.Connection) -> None:
    """Count anew what does not fit, after INSERT OR REPLACE by hand for one."""
    if not verify.counts_fit(db):
        logger.warning("the counts do not fit the messages: counting anew")
        counts.recount(db, lambda step: logger.info("counting anew: %s", step))


def _state(db: sqlite3.Connection) -> tuple[int, int, int]:
    """Return the last seq, and how many messages the counts and the search index do not have."""
    (last_seq,) = db.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
    ).fetchone()
    return last_seq, counts.waiting(db), search.backlog(db)


def _probe(db: sqlite3.Connection) -> None:
    db.execute("UPDATE probe SET at = ?", (time.time_ns() // 1000,))
