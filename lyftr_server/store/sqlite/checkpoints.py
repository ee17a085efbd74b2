"""The write-ahead log goes into the database beside the commits, not between them.

SQLite would do it within a commit, whose senders then wait until the disk has taken thousands of
pages. Here a connection of its own copies what there is and syncs it while commits go on, again and
again until little is left. That the writing one does, and the next commit begins the log anew.
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
# SQLite's own checkpoint, within a commit, should ours fail.
LIMIT_BYTES = 8 * START_BYTES
# What the writing connection copies, in some 5 ms; after so many rounds whatever is left.
REST_BYTES = 1 << 20
MOST_ROUNDS = 8

# The write-ahead log's frames, in the header of its index (sqlite.org/walformat.html, 2.1).
_FRAMES = slice(16, 20)

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
        self._copying: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Wait for what is under way; the last connection to close does the rest."""
        if self._copying is not None:
            with suppress(StoreError):
                await self._copying

    def look(self) -> None:
        """After a commit of any kind: begin to copy if it is time."""
        held = self._held()
        if held < self._seen:  # it was begun anew
            self._start = START_BYTES
        self._seen = held
        if held >= self._start and self._copying is None:
            self._copying = asyncio.create_task(self._copy())

    @property
    def due(self) -> bool:
        """Whether it is the writing connection's turn."""
        return self._copying is not None and self._copying.done()

    async def finish(self) -> None:
        """Copy the rest. StoreError, Fatal: of what was done beside the commits as well."""
        copying, self._copying = self._copying, None
        # A reader that is in the log keeps it: not again with every commit.
        self._start = self._held() + START_BYTES // 8
        if copying is not None:
            await copying
            await self._write(_checkpoint)

    async def _copy(self) -> None:
        for _ in range(MOST_ROUNDS):
            copied = await self._beside.run(self._round)
            if self._held() - copied * self._page_bytes <= REST_BYTES:
                return

    def _round(self, db: sqlite3.Connection) -> int:
        """Copy all frames that the log has now; return how many it then has in the database."""
        copied = _checkpoint(db)
        try:
            # SQLite syncs only what it knows to be all of the log.
            sync(self._database)
        except OSError as error:
            raise Fatal(str(error)) from error
        return copied

    def _held(self) -> int:
        """Return the bytes of pages in the log; its file keeps its size."""
        head = os.pread(self._index, _FRAMES.stop, 0)
        return int.from_bytes(head[_FRAMES], sys.byteorder) * self._page_bytes


def _checkpoint(db: sqlite3.Connection) -> int:
    """Copy what can be copied while nobody waits; return the frames that are in the database."""
    (_, _, copied) = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(copied)
