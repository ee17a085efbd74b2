"""What follows behind the messages, a piece at a time: the counts and the search index."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from . import counts, upkeep
from .files import Files
from .opening import Standing

Write = Callable[..., Awaitable[Any]]


class Derived:
    """Knows how far behind they are, and lets them catch up."""

    def __init__(self, write: Write, files: Files, found: Standing) -> None:
        self.uncounted = found.uncounted > 0  # whether messages wait for the counts
        self.index_damaged = False
        self._write = write
        self._files = files
        self._unfolded = found.unfolded  # messages that the search index does not have
        self._unfolded_since = 0  # of them, those that came since its last piece
        self._more = True  # at the start somebody may have deleted messages by hand
        self._indexed_at = 0.0

    def fall_behind(self, messages: int) -> None:
        """So many more were stored."""
        self.uncounted = self.uncounted or messages > 0
        self._unfolded += messages
        self._unfolded_since += messages

    @property
    def index_waits(self) -> bool:
        if self._unfolded or self._more or self.index_damaged:
            return True
        return time.monotonic() >= self._indexed_at + upkeep.LOOK_SECONDS

    @property
    def waits(self) -> bool:
        """Whether an idle moment has anything to do."""
        return self.uncounted or self.index_waits

    @property
    def due(self) -> bool:
        """Whether it can wait for an idle moment no longer."""
        return self._unfolded >= upkeep.FOLD_BACKLOG

    async def count(self) -> None:
        """Let the counts take in what waits for them."""
        self.uncounted = await self._write(counts.fold) > 0

    async def index(self) -> None:
        """Do a piece of the search index's upkeep."""
        if self.index_damaged:
            await self._write(upkeep.start_over)
            self.index_damaged = False
        least, self._unfolded_since = self._unfolded_since, 0
        moved, self._more = await self._write(upkeep.piece, self._files, least)
        self._unfolded = max(0, self._unfolded - moved) if moved else 0
        self._indexed_at = time.monotonic()
