"""One read connection shared by many readers, in turns: no long read makes a short one wait."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Concatenate, ParamSpec, TypeVar

from .connection import Connection

P = ParamSpec("P")
T = TypeVar("T")

# A turn ends with the first piece that ends later than this.
TURN_SECONDS = 0.02


class Reader:
    """A read connection that does one thing at a time.

    Who comes new goes before those whose read goes on, so a short read waits for one turn of a long
    one at most, and is done in its own first turn however many pieces it has. While a long read
    waits, no two that come new go one after the other: a flood of short ones does not starve it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._busy = False
        self._new: deque[asyncio.Future[None]] = deque()
        self._going_on: deque[asyncio.Future[None]] = deque()
        self._last_was_new = False
        self._stop = False
        self._closing: set[asyncio.Future[None]] = set()  # of abandoned reads

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return work(connection, *args), called in the connection's thread."""
        await self._take_turn(self._new)
        return await self._use_turn(lambda db: work(db, *args, **kwargs))

    async def run_in_pieces(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], Generator[None, None, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Return what a generator returns, which yields None between pieces of 100 ms at most.

        At each yield others may read on this connection: no transaction may be open then, and what
        is kept in a temporary table must be this reader's alone. When the reader goes away, the
        generator is closed at its next yield, in the connection's thread.
        """
        pieces = _Pieces(lambda db: work(db, *args, **kwargs))
        try:
            result: T = await self._go_on(pieces)
            return result
        except asyncio.CancelledError:
            self._close_later(pieces)
            raise

    async def stream(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], Generator[T | None, None, None]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> AsyncGenerator[T, None]:
        """Yield what such a generator yields besides; it rests until more is asked for."""
        pieces = _Pieces(lambda db: work(db, *args, **kwargs))
        try:
            while (found := await self._go_on(pieces)) is not None:
                yield found
        finally:
            self._close_later(pieces)

    async def _go_on(self, pieces: "_Pieces") -> Any:
        """Give a generator turns until it yields something, or returns."""
        queue = self._new

        def turn(db: sqlite3.Connection) -> list[Any]:
            """Return what was yielded or returned in a list, empty as long as it is None."""
            end_of_turn = time.monotonic() + TURN_SECONDS
            while not self._stop:
                try:
                    found = next(pieces.begun(db))
                except StopIteration as end:
                    return [end.value]
                if found is not None:
                    return [found]
                if time.monotonic() >= end_of_turn:
                    break
            return []

        while True:
            await self._take_turn(queue)
            if result := await self._use_turn(turn):
                return result[0]
            queue = self._going_on

    def _close_later(self, pieces: "_Pieces") -> None:
        """Close a generator, behind the piece that the thread may be at."""
        if pieces.generator is None:
            return
        closing = asyncio.ensure_future(self._connection.run(pieces.close))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        closing.add_done_callback(_nobody_waits)

    # -- turns: between _take_turn and the end of what _use_turn does, the connection is one's own

    async def _take_turn(self, queue: deque[asyncio.Future[None]]) -> None:
        if not self._busy:
            self._busy = True
            self._last_was_new = queue is self._new
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given in the same moment
                self._pass_on()
            raise

    async def _use_turn(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do the work and pass the turn on; whoever goes away need not wait for that."""
        self._stop = False
        reading = asyncio.ensure_future(self._connection.run(work))
        reading.add_done_callback(self._pass_on)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # SQLite's own interrupt would stop inside a piece, where FTS5 was seen to crash of it.
            if not reading.done():
                self._stop = True
            reading.add_done_callback(_nobody_waits)
            raise

    def _pass_on(self, _ended: Any = None) -> None:
        self._busy = False
        while self._new or self._going_on:
            new_waits = bool(self._new) and not (self._last_was_new and self._going_on)
            turn = (self._new if new_waits else self._going_on).popleft()
            if not turn.done():  # else whoever waited has gone away
                self._busy = True
                self._last_was_new = new_waits
                turn.set_result(None)
                return


class _Pieces:
    """A long read: a generator, from its first turn on."""

    def __init__(self, begin: Callable[[sqlite3.Connection], Generator[Any, None, Any]]) -> None:
        self._begin = begin
        self.generator: Generator[Any, None, Any] | None = None

    def begun(self, db: sqlite3.Connection) -> Generator[Any, None, Any]:
        if self.generator is None:
            self.generator = self._begin(db)
        return self.generator

    def close(self, _: sqlite3.Connection) -> None:
        if self.generator is not None:
            self.generator.close()


def _nobody_waits(ended: "asyncio.Future[Any]") -> None:
    """Look at the failure of what nobody waits for, so that asyncio does not log it."""
    if not ended.cancelled():
        ended.exception()
