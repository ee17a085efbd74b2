"""Group commit: all that waits becomes one transaction; a sender hears only after its sync."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence

from ...metrics import StoreMetrics
from ...records import Message, Result
from ..errors import QueueFull, StoreError
from . import search
from .connection import Connection
from .files import Files
from .insert import insert

logger = logging.getLogger(__name__)

MAX_BATCH = 256
# The search index is brought up to date when nobody came for so long, or once so many messages
# wait for it that searches notice (50,000: 10 to 70 ms). Whoever comes meanwhile waits 10 ms.
IDLE_SECONDS = 0.05
FOLD_BACKLOG = 50_000
# A WAL beyond this is not just waiting for its next automatic checkpoint: a reader held it open.
WAL_LIMIT_BYTES = 256 << 20
WAL_PATIENCE_MS = 50
GIL_SECONDS = 0.00005

_FSYNC_FAILED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}

Waiting = tuple[Message, "asyncio.Future[Result]"]


class Writer:
    """The only user of the read-write connection: commits, the search index, the probe.

    One task does it all in turn, so nothing is ever awaited inside another's transaction.
    """

    def __init__(
        self,
        connection: Connection,
        files: Files,
        metrics: StoreMetrics,
        *,
        queue_limit: int,
        max_batch: int = MAX_BATCH,
        on_fatal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._connection = connection
        self._files = files
        self._metrics = metrics
        self._limit = queue_limit
        self._max_batch = max_batch
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Waiting] = deque()
        self._committing = 0
        self._probe: asyncio.Future[None] | None = None
        self._wake = asyncio.Event()
        self._closing = False
        self._failing: str | None = None
        self._lost = False  # a sync failed: nothing more is acknowledged by this process
        self._written_at = 0.0
        self._last_seq = 0
        self._unfolded = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn where the table ends, and begin."""
        self._last_seq, self._unfolded = await self._connection.run(_state)
        self._task = asyncio.create_task(self._run())

    @property
    def depth(self) -> int:
        """Messages taken in but not committed."""
        return len(self._queue) + self._committing

    @property
    def full(self) -> bool:
        return self.depth >= self._limit

    def put(self, message: Message) -> "asyncio.Future[Result]":
        """Queue a message; the future is done once it is on the disk. QueueFull, StoreError."""
        if self.full:
            raise QueueFull
        if self._closing or self._lost:
            raise StoreError("the store is closing")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.append((message, future))
        self._wake.set()
        return future

    async def ping(self) -> None:
        """Return if a write succeeds now, or did within the last second; else StoreError."""
        if self._failing is None and time.monotonic() - self._written_at < 1:
            return
        if self._probe is None:
            self._probe = self._loop.create_future()
            self._wake.set()
        await asyncio.shield(self._probe)

    async def close(self) -> None:
        """Commit what waits, then end."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            await self._work()
        except (Exception, asyncio.CancelledError) as error:
            # Nobody would ever be answered again.
            logger.critical("the writer has ended", exc_info=True)
            self._lost = True
            _resolve(list(self._queue), self._failed(error))
            self._queue.clear()
            self._on_fatal("the writer has ended")

    async def _work(self) -> None:
        while True:
            if self._probe is not None:
                await self._write_probe()
            if self._queue:
                await self._commit_all()
            elif self._probe is None and not self._fold_due:
                # Nothing was awaited since this was asked, so nothing that came is overlooked.
                if self._closing:
                    return
                await self._idle()
            # One bulk in turn with the commits: a long backlog holds nobody up for longer.
            if self._fold_due:
                await self._fold()

    @property
    def _fold_due(self) -> bool:
        behind = self._unfolded >= FOLD_BACKLOG
        return behind and self._failing is None and not self._closing

    async def _idle(self) -> None:
        """Wait for work; when none comes, let the search index catch up."""
        self._wake.clear()
        patience = IDLE_SECONDS if self._unfolded and self._failing is None else None
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            while self._unfolded and self._failing is None and not self._wake.is_set():
                await self._fold()

    # -- commits

    async def _commit_all(self) -> None:
        """Commit batch after batch while messages wait, until something else is due.

        The next batch is on its way to the disk while the last one's answers are written.
        """
        batch = self._take()
        commit = self._start_commit(batch)
        while commit is not None:
            try:
                outcome: Sequence[Result] | StoreError = await commit
            except Exception as error:
                outcome = self._failed(error)
            due = self._fold_due or self._probe is not None
            answered, batch = batch, [] if due else self._take()
            commit = self._start_commit(batch)
            _resolve(answered, outcome)

    def _take(self) -> list[Waiting]:
        rows = min(len(self._queue), self._max_batch)
        return [self._queue.popleft() for _ in range(rows)]

    def _start_commit(self, batch: list[Waiting]) -> "asyncio.Task[Sequence[Result]] | None":
        self._committing = len(batch)
        if not batch:
            return None
        commit = asyncio.create_task(  # noqa: RUF006 - the caller keeps it
            self._commit([message for message, _ in batch])
        )
        self._loop.call_soon(_let_it_begin)
        return commit

    async def _commit(self, messages: list[Message]) -> Sequence[Result]:
        if self._lost:
            raise StoreError("a sync failed before")
        start = time.perf_counter()
        results, created, self._last_seq = await self._connection.run(
            insert, messages, self._last_seq
        )
        # After the commit and before any answer: a commit into a file that nobody can find again
        # is not stored. Not in the connection's thread, which would wait for the GIL after each.
        self._files.check()
        self._metrics.commit_seconds.observe(time.perf_counter() - start)
        self._metrics.batch_size.observe(len(messages))
        self._unfolded += created
        self._succeeded()
        return results

    # -- upkeep

    async def _write_probe(self) -> None:
        probe, self._probe = self._probe, None
        try:
            if self._lost:
                raise StoreError("a sync failed before")
            await self._connection.run(self._probe_database)
        except (sqlite3.Error, OSError, StoreError) as error:
            failure = self._failed(error)
            if probe is not None and not probe.done():
                probe.set_exception(failure)
                probe.exception()  # nobody may be waiting for it any more
        else:
            self._succeeded()
            if probe is not None and not probe.done():
                probe.set_result(None)

    def _probe_database(self, db: sqlite3.Connection) -> None:
        db.execute("UPDATE probe SET at = ?", (time.time_ns() // 1000,))
        self._files.check()

    async def _fold(self) -> None:
        try:
            moved = await self._connection.run(_fold_and_checkpoint, self._files)
        except (sqlite3.Error, OSError, StoreError) as error:
            self._failed(error)
        else:
            self._unfolded = max(0, self._unfolded - moved) if moved else 0

    # -- failures

    def _failed(self, error: BaseException) -> StoreError:
        """Log the first failure of its kind, not each; a failed sync ends the process."""
        reason = str(error)
        self._metrics.errors += 1
        if reason != self._failing:
            self._failing = reason
            logger.error("the database cannot be written: %s", reason)
        if getattr(error, "sqlite_errorcode", None) in _FSYNC_FAILED:
            # The kernel may have dropped the pages that it could not write and call the next
            # sync a success. Only a new process, which reads the files again, knows what is there.
            self._lost = True
            self._on_fatal(reason)
        return StoreError(reason)

    def _succeeded(self) -> None:
        self._written_at = time.monotonic()
        if self._failing is not None:
            self._failing = None
            logger.warning("the database can be written again")

    @property
    def failing(self) -> str | None:
        """Why the last write failed, or None."""
        return self._failing


def _state(db: sqlite3.Connection) -> tuple[int, int]:
    (last_seq,) = db.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'messages'"
    ).fetchone()
    return last_seq, search.backlog(db)


def _fold_and_checkpoint(db: sqlite3.Connection, files: Files) -> int:
    moved = search.fold(db)
    files.check()
    if (files.wal_bytes() or 0) > WAL_LIMIT_BYTES:
        _truncate_wal(db)
    return moved


def _truncate_wal(db: sqlite3.Connection) -> None:
    """Empty the WAL, unless readers are in it for longer than a message may wait."""
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute(f"PRAGMA busy_timeout = {WAL_PATIENCE_MS}")
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")


def _let_it_begin() -> None:
    """Let go of the GIL until the connection's thread has taken up a batch that was just given.

    Else it waits for the GIL while the loop writes the last batch's answers, instead of working
    beside it. A tenth more messages a second at 64 connections.
    """
    time.sleep(GIL_SECONDS)


def _resolve(batch: list[Waiting], outcome: Sequence[Result] | StoreError) -> None:
    if isinstance(outcome, StoreError):
        for _, future in batch:
            if not future.done():
                future.set_exception(outcome)
                future.exception()
        return
    for (_, future), result in zip(batch, outcome, strict=True):
        if not future.done():  # done: the request was cancelled; its message is stored all the same
            future.set_result(result)
