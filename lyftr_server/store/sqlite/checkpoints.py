"""The write-ahead log goes into the database beside the commits, not between them.

SQLite would do it within a commit, whose senders then wait until the disk has taken thousands of
pages. Here a connection of its own copies what there is and syncs it while commits go on, again and
again until little is left. That the writing one does, and the next commit begins the log anew.

SQLite before 3.51.3 may lose commits when the log is begun anew beside a checkpoint that found
nothing to copy. So none is begun then, no other one runs beside it, and a commit makes none.
"""

import asyncio
import os
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from ..errors import Fatal, StoreError
from .files import Files
from .writer import Writer

# Of WAL. Of a larger one less is written, as a page that many commits changed goes to the database
# once, and more is read again after a crash.
START_BYTES = 32 << 20
# What the writing connection copies, in some 5 ms; after so many rounds whatever is left.
REST_BYTES = 1 << 20
MOST_ROUNDS = 8

# In the header of the log's index: its frames, and how many are copied (sqlite.org/walformat.html,
# 2.1: mxFrame, nBackfill).
_FRAMES = slice(16, 20)
_COPIED = slice(96, 100)

sync = getattr(os, "fdatasync", os.fsync)


class Checkpoints:
    """Knows how much the log holds, and when to copy it."""

    def __init__(
        self, beside: Writer, write: Callable[..., Awaitable[Any]], files: Files, page_bytes: int
    ) -> None:
        self._beside = beside
        self._write = write
        self._page_bytes = page_bytes
        self._database = files.descriptor(files.database)
        self._index = files.descriptor(files.wal_index)
        self._start = START_BYTES
        self._seen = 0
        self.on_copied: Callable[[], None] = lambda: None  # the writing connection's turn
        self._copying: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Wait for what is under way; the last connection to close does the rest."""
        if self._copying is not None:
            with suppress(StoreError):
                await self._copying

    def look(self) -> None:
        """After a commit of any kind: begin to copy if it is time."""
        held, copied = self._log()
        if held < self._seen:  # it was begun anew
            self._start = START_BYTES
        self._seen = held
        if held >= self._start and held > copied and self._copying is None:
            self._copying = asyncio.create_task(self._copy())
            self._copying.add_done_callback(lambda _: self.on_copied())

    @property
    def busy(self) -> bool:
        """Whether the log is being copied: nothing else may empty it meanwhile."""
        return self._copying is not None and not self._copying.done()

    @property
    def due(self) -> bool:
        """Whether it is the writing connection's turn."""
        return self._copying is not None and self._copying.done()

    async def finish(self) -> None:
        """Copy the rest. StoreError, Fatal: of what was done beside the commits as well."""
        copying, self._copying = self._copying, None
        # A reader that is in the log keeps it: not again with every commit.
        self._start = self._log()[0] + START_BYTES // 8
        failed = copying.exception() if copying is not None else None
        if not isinstance(failed, Fatal):
            await self._write(_checkpoint)
        if failed is not None:
            raise failed

    async def _copy(self) -> None:
        for _ in range(MOST_ROUNDS):
            await self._beside.run(self._round)
            held, copied = self._log()
            if held - copied <= REST_BYTES:
                return

    def _round(self, db: sqlite3.Connection) -> None:
        _checkpoint(db)
        try:
            # SQLite syncs only what it knows to be all of the log.
            sync(self._database)
        except OSError as error:
            raise Fatal(str(error)) from error

    def _log(self) -> tuple[int, int]:
        """Return the bytes of pages in the log, whose file keeps its size, and those copied."""
        head = os.pread(self._index, _COPIED.stop, 0)
        frames, copied = (int.from_bytes(head[at], sys.byteorder) for at in (_FRAMES, _COPIED))
        return frames * self._page_bytes, copied * self._page_bytes


def _checkpoint(db: sqlite3.Connection) -> None:
    """Copy what can be copied while nobody waits."""
    db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
