"""Keeping less, in turn with commits: what expired, what is erased, and the file's size."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from ...records import Erased
from ..limits import Policy
from . import erasure
from .retention import Retention
from .tombstones import Tombstones

# How often it is looked whether anything has expired.
LOOK_SECONDS = 20.0
# Beside deliveries, retention and erasures take a fifth of the time, and no more.
REST = 4
# Free pages that stay in the file for what comes next, and those that one piece gives back.
SPARE_PAGES = 256
SHRINK_PAGES = 64
# What a file may hold in use to be made anew beside deliveries: 256 MiB. They wait for that once,
# a second or two.
ANEW_PAGES = 65_536
_INCREMENTAL = 2  # of PRAGMA auto_vacuum

Write = Callable[..., Awaitable[Any]]


class Keeping:
    """Knows what is to go, and makes it go a piece at a time."""

    def __init__(
        self,
        write: Write,
        path: Path,
        policy: Policy,
        tombstones: Tombstones,
        erasing: bool,
    ) -> None:
        self.erasing = erasing
        self._write = write
        self._path = path
        self._policy = policy
        self._tombstones = tombstones
        self._retention = Retention(policy, tombstones)
        self._looked_at = float("-inf")
        self._expiring = False
        self._eraser: erasure.Eraser | None = None
        self._shrinking = True
        self._rested_at = 0.0
        self._waiting: dict[int, asyncio.Future[Erased]] = {}

    @property
    def erasures(self) -> int:
        """How many somebody waits for."""
        return len(self._waiting)

    async def erase(
        self, *, person: str | None = None, message_id: str | None = None
    ) -> asyncio.Future[Erased]:
        """Write down what is to go; the future is done once it is gone."""
        waiting: asyncio.Future[Erased] = asyncio.get_running_loop().create_future()
        number = await self._write(erasure.order, person=person, message_id=message_id)
        self._waiting[number] = waiting
        self.erasing = True
        return waiting

    @property
    def busy(self) -> bool:
        """Whether messages are to go."""
        return self._expiring or self.erasing

    @property
    def waits(self) -> bool:
        """Whether there is anything to do; it looks from time to time whether any has expired."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._expiring = self._policy.retention_days is not None or self._tombstones.any
        return self.busy or self._shrinking

    @property
    def due(self) -> bool:
        """Whether it is to go beside deliveries too: for a share of the time."""
        return self.busy and time.monotonic() >= self._rested_at

    async def piece(self) -> Sequence[str]:
        """Do a piece; return the ids of messages that went with it."""
        started = time.monotonic()
        try:
            return await (self._expire() if self._expiring else self._erase())
        finally:
            now = time.monotonic()
            self._rested_at = now + REST * (now - started)

    async def shrink(self) -> None:
        """Give some free pages back to the file system."""
        self._shrinking = False  # what fails is tried again when more has gone
        self._shrinking = await self._write(shrink, self._path)

    def backlog(self, db: sqlite3.Connection) -> int:
        """Return how many messages have expired and are not deleted yet."""
        return self._retention.backlog(db, time.time())

    async def _expire(self) -> Sequence[str]:
        if await self._write(self._retention.piece, time.time()):
            self._shrinking = True
        else:
            self._expiring = False
        return ()

    async def _erase(self) -> Sequence[str]:
        if self._eraser is None:
            until = self._policy.forgotten_at(time.time())
            self._eraser = erasure.Eraser(self._path, self._tombstones, until)
        eraser = self._eraser
        ids = await self._write(eraser.piece)
        if ids is not None:
            return list(ids)
        self._eraser = None
        self.erasing = bool(await self._write(erasure.ordered))  # some may have come meanwhile
        for number, erased in eraser.done.items():
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(erased)
        return ()


def shrink(db: sqlite3.Connection, path: Path) -> bool:
    """Give some free pages back to the file system; tell whether there are more.

    Only a file that was made so can give them back. One of 0.1.0 is made anew, once, when what is
    left in it is little, and less than what is free; until then its pages are used again.
    """
    mode, pages, free = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("auto_vacuum", "page_count", "freelist_count")
    )
    surplus = free - SPARE_PAGES
    if surplus <= 0:
        return False
    if mode != _INCREMENTAL:
        if pages - free <= min(free, ANEW_PAGES):
            erasure.make_anew(db, path)
        return False
    db.execute(f"PRAGMA incremental_vacuum({min(surplus, SHRINK_PAGES)})").fetchall()
    return bool(surplus > SHRINK_PAGES)
